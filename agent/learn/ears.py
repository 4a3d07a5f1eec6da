"""Ears on serial ports: every port that no console of the settings has is opened, read, and never written to."""

import asyncio
import contextlib
import re
from collections.abc import Callable, Iterable

from agent.console.milestones import PATTERNS
from agent.console.milestones import Kind as Milestone
from agent.console.path_watch import PathWatch
from agent.console.port import Port
from agent.console.settings import ConsoleTable
from agent.learn.signs import Event, Kind, Linked, Sign, Subject

TAIL_KEPT_BYTES = 4096
"""A login prompt or a MAC address may come in two pieces."""
NOISE = bytes([0x00, 0x80, 0xC0, 0xE0, 0xF0, 0xF8, 0xFC, 0xFE, 0xFF])
"""What a receiver makes of a line that loses its power or gets it."""
WORDS_MOST = 60

_LOGIN = re.compile(rb"(?:^|[\r\n])[^\r\n]{0,80}\blogin: ?$")
_MAC = re.compile(rb"(?<![0-9A-Fa-f:])[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}(?![0-9A-Fa-f:])")
_OWN = re.compile(rb"(?i)\b(?:eth\w*addr|ethaddr|address|mac|eth\d|end\d)\b[^\r\n]{0,40}$")
"""Stands before an address that is the board's own."""
_SAID = re.compile(
    rb"|".join(pattern for kind, pattern in PATTERNS if kind in {Milestone.BOOTLOADER, Milestone.KERNEL})
)


class Hearing:
    """What one port says: bytes in, signs out."""

    def __init__(self, name: str) -> None:
        self.subject = Subject(Kind.CONSOLE, name)
        self._tail = b""

    def feed(self, data: bytes) -> list[Event]:
        """Some bytes came. Noise is no sign of life."""
        if not data.strip(NOISE):
            return []
        text = self._tail + data
        self._tail = text[-TAIL_KEPT_BYTES:]
        said = _SAID.search(text)
        words = "" if said is None else said[0].decode("ascii", "replace")[:WORDS_MOST]
        events: list[Event] = [Sign(self.subject, ready=_LOGIN.search(text) is not None, words=words)]
        events += [
            Linked(self.subject, Subject(Kind.MAC, found[0].decode().lower()))
            for found in _MAC.finditer(text)
            if found.end() > len(text) - len(data) and _OWN.search(text[: found.start()]) and not _is_group(found[0])
        ]
        return events


def _is_group(mac: bytes) -> bool:
    """Whether it is a multicast address, which no board has."""
    return int(mac[:2], 16) % 2 == 1


class Ears:
    """Holds ports open between `listen` and `close`."""

    def __init__(self, on_event: Callable[[Event], None], speed: int = 115200) -> None:
        """`on_event` is called in the event loop and must not block. `speed` in baud, of all ports."""
        self._on_event = on_event
        self._speed = speed
        self._watch: PathWatch | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def listen(self, places: Iterable[str]) -> None:
        """Open these as well; those that are open already stay so."""
        if self._watch is None:
            self._watch = PathWatch()
        for place in places:
            if place in self._tasks:
                continue
            hearing = Hearing(place)
            port = Port(
                ConsoleTable(device=place, speed=self._speed),
                self._watch,
                on_data=lambda data, hearing=hearing: self._heard(hearing, data),  # type: ignore[misc]
                on_state=lambda _state: None,
            )
            self._tasks[place] = asyncio.create_task(port.run(), name=f"learn listens to {place}")

    def _heard(self, hearing: Hearing, data: bytes) -> None:
        for event in hearing.feed(data):
            self._on_event(event)

    async def close(self) -> None:
        """Let go of all."""
        for task in self._tasks.values():
            task.cancel()
        for task in self._tasks.values():
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        if self._watch is not None:
            self._watch.close()
            self._watch = None
