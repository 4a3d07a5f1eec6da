"""What the agent says over MQTT: retained state that is always the latest, and events that are all said.

State topics are kept here and published when they change, and all again after every connect: a server that lost its
retained messages has them back. Events come from the outbox in order and are forgotten on acknowledgement.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable, Collection, Sequence

from agent.outbox import Outbox, Waiting
from daemon.mqtt_link import LinkError, MqttLink, NotConnectedError

log = logging.getLogger(__name__)

BATCH = 20
"""Events in flight at once: what Mosquitto's default max_inflight_messages takes without queueing."""
PASSING_KEPT = 200
"""Answers kept for a server that is away; whoever asked has given up by the time there are more."""
DISK_PAUSE_S = 5.0
"""A disk that does not take that events were said is asked again after this; all else is said meanwhile."""
REFUSED_PAUSE_S = 30.0
"""A server that refuses our messages (ACL) is asked again after this; the admin mends it meanwhile."""


class Voice:
    """Publishes for one agent. `link` is set before `run` is called."""

    def __init__(self, outbox: Outbox, event_topic: Callable[[str], str]) -> None:
        """`event_topic` gives the topic of a board's events."""
        self.link: MqttLink | None = None
        self._outbox = outbox
        self._event_topic = event_topic
        self._retained: dict[str, bytes] = {}
        self._stale: dict[str, None] = {}
        self._passing: list[tuple[str, bytes]] = []
        self._greeted = False
        self._unforgotten: int | None = None
        self._disk_at_s = 0.0
        self._wake = asyncio.Event()
        self._all_said = asyncio.Event()

    def retain(self, topic: str, payload: bytes) -> None:
        """Have `payload` stand retained on `topic` from now on; empty clears it."""
        if self._retained.get(topic) == payload:
            return
        self._retained[topic] = payload
        self._stale[topic] = None
        self._wake.set()

    def forget_board(self, topics: Collection[str], below: str) -> None:
        """Clear what stands retained on these topics, and on all that begin with `below`."""
        for topic in [*topics, *(topic for topic in self._retained if topic.startswith(below))]:
            self.retain(topic, b"")

    def say(self, topic: str, payload: bytes) -> None:
        """Publish once, unretained. While there is no connection the newest `PASSING_KEPT` of these wait."""
        self._passing = [*self._passing, (topic, payload)][-PASSING_KEPT:]
        self._wake.set()

    def event_stored(self) -> None:
        """The outbox has something new."""
        self._wake.set()

    def again(self, topics: Sequence[str] | None = None) -> None:
        """Publish all retained topics again (or these), because the server may not have them."""
        for topic in self._retained if topics is None else topics:
            if topic in self._retained:
                self._stale[topic] = None
        self._wake.set()

    async def greet(self, state_topic: str) -> None:
        """After a connect: our own state first, then everything else; events follow when this returns."""
        self._greeted = False
        self._stale = {topic: None for topic in self._retained if topic != state_topic}
        await self._publish(state_topic, self._retained[state_topic], retain=True)
        await self._speak_state()
        self._greeted = True
        self._wake.set()

    def fell_silent(self) -> None:
        """The connection ended; nothing is sent until the next `greet`."""
        self._greeted = False

    async def finish(self, timeout_s: float) -> None:
        """Give what is still to be said up to `timeout_s`. Events that are not said then wait on disk."""
        self._all_said.clear()
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._all_said.wait()

    async def run(self) -> None:
        """Publish for ever; ends by cancellation."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._all_said.clear()
            if not self._greeted:
                continue
            try:
                while await self._speak():
                    pass
                if not self._wake.is_set():
                    self._all_said.set()
            except NotConnectedError as error:
                log.debug("waiting for the connection: %s", error)
            except LinkError as error:
                log.error("%s; trying again in %g s", error, REFUSED_PAUSE_S)  # noqa: TRY400  # no fault of our code
                await asyncio.sleep(REFUSED_PAUSE_S)
                self._wake.set()

    async def _speak(self) -> bool:
        """Say what there is to say now; whether there was something."""
        spoke = await self._speak_passing()
        spoke |= await self._speak_state()
        spoke |= await self._speak_events()
        return spoke

    async def _speak_passing(self) -> bool:
        spoke = False
        while self._passing:
            topic, payload = self._passing[0]
            # State goes before answers: who is told that a command is done finds the state that it led to.
            while await self._speak_state():
                pass
            await self._publish(topic, payload, retain=False)
            if self._passing and self._passing[0] == (topic, payload):
                self._passing = self._passing[1:]
            spoke = True
        return spoke

    async def _speak_state(self) -> bool:
        topics = list(self._stale)
        for topic in topics:
            payload = self._retained[topic]
            await self._publish(topic, payload, retain=True)
            if self._retained.get(topic) == payload:
                self._stale.pop(topic, None)
                if not payload:
                    self._retained.pop(topic, None)
        return bool(topics)

    async def _speak_events(self) -> bool:
        if time.monotonic() < self._disk_at_s:
            return False
        try:
            spoke = await self._speak_batch()
        except sqlite3.Error as error:
            # Once, and not every few seconds of a night: the log may be on the same disk.
            level = logging.DEBUG if self._disk_at_s else logging.ERROR
            log.log(level, "events cannot be read, or not be forgotten once said (%s); trying on", error)
            self._disk_at_s = time.monotonic() + DISK_PAUSE_S
            asyncio.get_running_loop().call_later(DISK_PAUSE_S, self._wake.set)
            return False
        self._disk_at_s = 0.0
        return spoke

    async def _speak_batch(self) -> bool:
        if self._unforgotten is not None:
            await self._forget(self._unforgotten)
        batch = await self._outbox.waiting(BATCH)
        if not batch:
            return False
        sent = await asyncio.gather(*map(self._publish_event, batch), return_exceptions=True)
        last_id = None
        failure: BaseException | None = None
        for waiting, result in zip(batch, sent, strict=True):
            if isinstance(result, BaseException):
                failure = result
                break
            last_id = waiting.id
        if last_id is not None:
            await self._forget(last_id)
        if failure is not None:
            raise failure
        return True

    async def _forget(self, up_to_id: int) -> None:
        """Forget events that the server has. Where the disk does not take that, they are not said again."""
        self._unforgotten = up_to_id
        await self._outbox.sent(up_to_id)
        self._unforgotten = None

    async def _publish_event(self, waiting: Waiting) -> None:
        await self._publish(self._event_topic(waiting.board), waiting.payload, retain=False)

    async def _publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        if self.link is None:
            raise NotConnectedError(f"{topic}: the link is not there yet")
        await self.link.publish(topic, payload, retain=retain)
