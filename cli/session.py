"""The blocking MQTT connection of one command, with its errors said in the command's own words.

On the fast path of `boardhand power`: `board.client` costs little, TLS is imported when the address asks for it.
"""

import os
import time

from board.client import MqttConnection, MqttError, Received
from cli.exits import CliError, Exit, usage
from cli.target import Target

TYPE_CHECKING = False  # importing typing for this name would cost 2 ms; mypy knows it by name
if TYPE_CHECKING:
    from collections.abc import Iterator
    from ssl import SSLContext

CONNECT_TIMEOUT_S = 5.0  # a server that takes longer for a handshake is not usable by hand
# Mosquitto keeps this retained, and sends what is retained in the order in which it is subscribed to.
LAST_OF_ALL = "$SYS/broker/version"
# Servers without that message give no mark at the end; their retained messages follow the SUBACK within milliseconds.
QUIET_S = 0.2
COLLECT_DEADLINE_S = 3.0

__all__ = ["Received", "Session"]


def _tls(target: Target) -> "SSLContext | None":
    if not target.tls:
        return None
    import ssl

    from daemon.tls import trusting

    try:
        context = trusting(target.ca_file)
        if target.client_cert:
            context.load_cert_chain(target.client_cert, target.client_key)
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(name for name in (target.ca_file, target.client_cert, target.client_key) if name)
        advice = "mend --ca-file, --client-cert, --client-key"
        raise usage(f"TLS files {files or '(system)'}: {error}", advice) from None
    return context


def new_id() -> str:
    """A name that nobody else has: for transactions and client ids."""
    return os.urandom(8).hex()


class Session:
    """A connection that raises `CliError` alone. A context manager: entering connects."""

    def __init__(self, target: Target, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self.target = target
        self.prefix = target.prefix
        self._link = MqttConnection(
            target.host,
            target.port,
            "bh-cli-" + new_id(),  # 23 characters, the most that every server takes (MQTT 3.1.1 section 3.1.3.1)
            username=target.username,
            password=target.password(),
            tls=_tls(target),
            timeout_s=timeout_s,
        )

    def __enter__(self) -> "Session":  # noqa: PYI034 -- typing.Self would import typing: 2 ms
        try:
            self._link.connect()
        except (MqttError, OSError) as error:
            self._link.abort()
            raise self._unreachable(error) from error
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._link.close()
        except (MqttError, OSError):
            self._link.abort()  # the answer is known by now; a server that is gone cannot change it

    def _unreachable(self, error: Exception) -> CliError:
        target = self.target
        at = f"{target.host}:{target.port}" + (" (TLS)" if target.tls else "")
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            why = "no answer in time"
        if isinstance(error, MqttError):
            advice = "check the address, --username and --password-file"
        elif target.source == "the default":
            advice = "start a farm with 'boardhand up', or name the server with --mqtt or BOARDHAND_MQTT"
        else:
            advice = f"check that it runs (the address is from {target.source})"
        return CliError(Exit.UNREACHABLE, f"MQTT server {at}: {why.lower() if why.istitle() else why}", advice)

    def subscribe(self, *topics: str) -> None:
        """Subscribe and wait for the server's answer.

        Raises:
            CliError: the connection broke (UNREACHABLE) or the server refused the topic (NOT_ALLOWED).
        """
        try:
            self._link.subscribe(*topics)
        except MqttError as error:
            raise CliError(
                Exit.NOT_ALLOWED,
                f"the MQTT server refused to subscribe to {', '.join(topics)}: {error}",
                "check --username and the server's access rules",
            ) from error
        except OSError as error:
            raise self._unreachable(error) from error

    def publish(self, topic: str, payload: bytes, *, wait: bool = False, retain: bool = False) -> None:
        """Publish at QoS 1. Without `wait` the caller waits for an answer that is worth more.

        Raises:
            CliError: the connection broke.
        """
        try:
            self._link.publish(topic, payload, qos=1, wait=wait, retain=retain)
        except (MqttError, OSError) as error:
            raise self._unreachable(error) from error

    def receive(self, timeout_s: float | None) -> Received | None:
        """The next message, or None when `timeout_s` have passed; None waits for ever.

        Raises:
            CliError: the connection broke.
        """
        try:
            return self._link.receive(timeout_s)
        except (MqttError, OSError) as error:
            raise self._unreachable(error) from error

    def retained(self, *topics: str, quiet_s: float = QUIET_S) -> "Iterator[Received]":
        """Subscribe, and yield what is retained on `topics`; then end, though a farm that talks never falls silent.

        MQTT marks no end of it. Mosquitto's own version, subscribed to last, comes when all others have come; without
        it the end is `quiet_s` of silence. Messages that are said meanwhile are among them.

        Raises:
            CliError: as `subscribe` and `receive`.
        """
        self.subscribe(*topics)
        try:
            self._link.subscribe(LAST_OF_ALL)
        except MqttError:
            pass  # refused: silence will tell; a connection that is gone is told by what follows
        except OSError as error:
            raise self._unreachable(error) from error
        deadline_s = time.monotonic() + COLLECT_DEADLINE_S
        while time.monotonic() < deadline_s:
            message = self.receive(quiet_s)
            if message is None or message.topic == LAST_OF_ALL:
                return
            yield message
