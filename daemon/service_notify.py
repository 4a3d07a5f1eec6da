"""Tells systemd how a daemon is: ready, alive, stopping. Protocol: sd_notify(3); the unit says `Type=notify`.

Without `NOTIFY_SOCKET` in the environment, as by hand or in a container, nothing is said.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

_US_PER_S = 1_000_000
_BEATS_PER_DEADLINE = 3
"""Two may come late, as on a host whose disk is busy, before systemd takes us for dead."""
_MIN_BEAT_S = 0.05


class ServiceNotify:
    """The line to the service manager. `watchdog_s` is how long it waits for a beat; None: it does not."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        # A name in the abstract namespace is written with '@' (sd_notify(3), NOTIFY_SOCKET).
        self._address = f"\0{address[1:]}" if address is not None and address.startswith("@") else address
        self.watchdog_s = None if address is None else watchdog_s
        self._complained = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str], pid: int) -> "ServiceNotify":
        """What systemd told this process. `WATCHDOG_USEC` counts for process `WATCHDOG_PID` alone
        (sd_watchdog_enabled(3)); a value that is no number is none."""
        address = environment.get("NOTIFY_SOCKET") or None
        if address is not None and not address.startswith(("/", "@")):
            log.warning("NOTIFY_SOCKET %r is no UNIX socket of systemd's: it hears nothing of this daemon", address)
            address = None
        period_us, whose = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID") or str(pid)
        mine = whose == str(pid) and period_us.isascii() and period_us.isdigit() and int(period_us) > 0
        return cls(address, int(period_us) / _US_PER_S if mine else None)

    def say(self, *words: str) -> None:
        """Send `NAME=value` words in one datagram. Never waits; what cannot be sent is logged once."""
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as line:
                line.connect(self._address)
                line.send("\n".join(words).encode())
        except OSError as error:
            if not self._complained:
                log.warning("systemd cannot be told %s: %s", words[0], error)
            self._complained = True

    def ready(self) -> None:
        """Everything is started."""
        self.say("READY=1", "STATUS=running")

    def stopping(self) -> None:
        """The way to the end has begun."""
        self.say("STOPPING=1", "STATUS=stopping")

    async def beat(self) -> None:
        """Say again and again that the event loop lives, until cancelled; at once over where nobody waits for it."""
        if self.watchdog_s is None:
            return
        every_s = max(self.watchdog_s / _BEATS_PER_DEADLINE, _MIN_BEAT_S)
        while True:
            self.say("WATCHDOG=1")
            await asyncio.sleep(every_s)


class StopEvent(asyncio.Event):
    """A daemon's stop. Who waits for it has started everything else: at the first `wait`, `on_ready` is called."""

    def __init__(self, on_ready: Callable[[], None]) -> None:
        super().__init__()
        self._on_ready = on_ready
        self._told = False

    async def wait(self) -> bool:  # type: ignore[override]  # typeshed says Literal[True]; it is always true
        """Until it is set."""
        if not self._told:
            self._told = True
            self._on_ready()
        return await super().wait()
