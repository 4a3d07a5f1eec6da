"""One connection to an MQTT server for all drivers of an agent that reach their devices through it.

Apart from the agent's own connection on purpose: what devices say must not wait behind our own messages, and the
agent's will is not theirs. Commands are published with QoS 1, so that a server that refuses them says so; devices
answer with QoS 0 as a rule, and what is lost on the way costs a timeout, after which the core reads back.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass

from daemon.mqtt_link import Message, MqttLink
from daemon.mqtt_settings import MqttSettings

REFUSED = "refused:"
"""With this `MqttLink` begins its reason when the server does not accept who we are."""


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """Somebody who wants to hear: `subscriptions` as MQTT filters, `heard` for each message of the connection (each
    listener picks its own), `lost` when the connection is gone."""

    subscriptions: tuple[str, ...]
    heard: Callable[[Message], None]
    lost: Callable[[], None]


class NoConnectionError(Exception):
    """There is none to the MQTT server. `refused` says that it does not accept who we are."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.refused = reason.startswith(REFUSED)


class PlugLink:
    """The connection. Opened when it is first needed."""

    def __init__(self, settings: MqttSettings) -> None:
        self.settings = settings
        self._listeners: list[Listener] = []
        self._link: MqttLink | None = None
        self._served: set[Listener] = set()
        """Those the connection was opened for. One that came later needs a new one: retained messages, as wills, are
        told only to who subscribes."""
        self._reason = ""

    def listen(self, listener: Listener) -> None:
        """From the next `ready` on. Listeners that come later cost one reconnect."""
        self._listeners.append(listener)

    async def leave(self, listener: Listener) -> None:
        """Hear no more. With the last listener the connection is closed."""
        if listener in self._listeners:
            self._listeners.remove(listener)
            self._served.discard(listener)
        if not self._listeners:
            await self.close()

    async def ready(self, timeout_s: float) -> MqttLink:
        """The link, connected and subscribed.

        Raises:
            NoConnectionError: not within `timeout_s`; the text is the reason.
        """
        if self._link is None or not self._served.issuperset(self._listeners):
            await self._open()
        link = self._link
        if link is None:
            raise NoConnectionError("being closed")
        if not link.connected:
            try:
                await link.wait_connected(timeout_s)
            except TimeoutError:
                raise NoConnectionError(self._reason or f"no answer within {timeout_s:g} s") from None
        return link

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.stop()

    async def _open(self) -> None:
        old, self._served = self._link, set(self._listeners)
        if old is not None:
            # Before the new one can hear anything: what it hears of retained wills must not be forgotten again.
            self._tell_lost()
        self._link = link = MqttLink(
            self.settings,
            f"boardhand-power-{secrets.token_hex(6)}",  # two connections of one name throw each other out
            will=None,
            subscriptions=sorted({topic for listener in self._listeners for topic in listener.subscriptions}),
            on_message=lambda message: self._heard(link, message),
            on_connect=self._connected,
            on_disconnect=lambda reason: self._disconnected(link, reason),
        )
        await link.start()
        if old is not None:
            await old.stop()

    async def _connected(self) -> None:
        self._reason = ""

    def _disconnected(self, link: MqttLink, reason: str) -> None:
        if link is not self._link:
            return  # replaced, and on its way out
        self._reason = reason
        self._tell_lost()

    def _tell_lost(self) -> None:
        for listener in self._listeners:
            listener.lost()

    def _heard(self, link: MqttLink, message: Message) -> None:
        if link is not self._link:
            return
        for listener in self._listeners:
            listener.heard(message)
