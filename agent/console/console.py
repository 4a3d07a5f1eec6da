"""One board's console: its port, its recording, who reads, who types, and what its words say of the boot."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from agent.console.milestones import BootStory, ConsoleWatch, Kind, Milestone
from agent.console.path_watch import PathWatch
from agent.console.port import Port, PortState
from agent.console.recorder import Recorder
from agent.console.redactor import Redactor
from agent.console.settings import ConsolesTable, ConsoleTable
from agent.console.telnet import Setting
from agent.console.writer_place import Binding, Writer, WriterPlace

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.05
"""Readers get every byte at once; recording and milestones take what has come in this time together."""
LOOK_BYTES = 256 * 1024
"""Or so much of it."""
AFTER_PANIC_S = 1.0
"""A kernel says why after it has said that it panics."""


class ConsoleReader(Protocol):
    """Who reads a console. Called in the event loop; must neither block nor raise."""

    def said(self, data: bytes) -> None:
        """The board said `data`; secrets are hidden in it."""

    def changed(self) -> None:
        """The port opened or went away, or the writer's place passed to somebody else."""


@dataclass(frozen=True, slots=True)
class Sight:
    """A milestone with what is needed to judge it.

    Attributes:
        lines: the last of the console; of a panic alone.
        restarted: this boot began with a boot loader's banner after a system had run, and no power was switched.
    """

    board: str
    milestone: Milestone
    lines: tuple[str, ...] = ()
    restarted: bool = False

    @property
    def kind(self) -> Kind:
        return self.milestone.kind


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a console needs of its agent. The calls are made in the event loop and must not block.

    Attributes:
        recorder: where everything goes.
        watch: tells when a port is back.
        on_sight: a milestone was passed.
        on_state: the port opened or went away.
        lease: the lease that holds a board now.
    """

    recorder: Recorder
    watch: PathWatch
    on_sight: Callable[[Sight], None]
    on_state: Callable[[str, PortState], None]
    lease: Callable[[str], Binding | None]


class Console:
    """One board's console between `run`'s start and its cancellation."""

    def __init__(self, board: str, table: ConsoleTable, consoles: ConsolesTable, around: Surroundings) -> None:
        self.board = board
        self.table = table
        self.speed = table.speed
        self.place = WriterPlace(consoles.writer_idle_s)
        self.port = Port(table, around.watch, on_data=self._data, on_state=self._state)
        self.story = BootStory()
        self.bytes_seen = 0
        self.power_at = time.monotonic()
        """When its power changed, as far as we know; monotonic seconds."""
        self.on_boot: list[Callable[[str], None]] = []
        """Called with the reason when what ran on the board is gone: its power went off, it restarted, it panicked."""
        self._clients_set_speed = consoles.clients_set_speed
        self._around = around
        self._redactor = Redactor()
        self._lines = ConsoleWatch()
        self._readers: dict[ConsoleReader, None] = {}
        self._unlooked: list[bytes] = []
        self._unlooked_bytes = 0
        self._look_soon: asyncio.TimerHandle | None = None
        self._panics: set[asyncio.TimerHandle] = set()

    async def run(self) -> None:
        """Hold the port for ever."""
        try:
            await self.port.run()
        finally:
            self.look()
            for handle in self._panics:
                handle.cancel()

    # --- from the board ------------------------------------------------------------------------------------------

    def _data(self, data: bytes) -> None:
        data = self._redactor.feed(data)
        for reader in list(self._readers):
            reader.said(data)
        self._unlooked.append(data)
        self._unlooked_bytes += len(data)
        if self._unlooked_bytes >= LOOK_BYTES:
            self.look()
        elif self._look_soon is None:
            self._look_soon = asyncio.get_running_loop().call_later(LOOK_EVERY_S, self.look)

    def look(self) -> None:
        """Take what has come to the recording, and see what it tells, now."""
        if self._look_soon is not None:
            self._look_soon.cancel()
            self._look_soon = None
        if not self._unlooked:
            return
        data = b"".join(self._unlooked)
        self._unlooked = []
        self._unlooked_bytes = 0
        self.bytes_seen += len(data)
        milestones = self._lines.feed(data)
        anew = self._pass(milestones)
        if anew:
            self._around.recorder.new_boot(self.board)
            self._tell_boot("the board restarted")
        elif any(milestone.kind is Kind.PANIC for milestone in milestones):
            self._tell_boot("its kernel panicked")
        self._around.recorder.data(self.board, data)

    def _tell_boot(self, why: str) -> None:
        for call in list(self.on_boot):
            call(why)

    def _pass(self, milestones: list[Milestone]) -> bool:
        """Tell what is to be told; whether another boot began without the power's doing."""
        begun = False
        for milestone in milestones:
            anew, tell = self.story.take(milestone, time.monotonic())
            begun |= anew
            if not tell or not self.table.milestones:
                continue
            if milestone.kind is Kind.PANIC:
                self._tell_after(milestone)
            else:
                self._around.on_sight(Sight(self.board, milestone, restarted=self.story.restarted))
        return begun

    def _tell_after(self, milestone: Milestone) -> None:
        """A panic is told when its lines have come."""

        def tell() -> None:
            self._panics.discard(handle)
            self.look()
            self._around.on_sight(Sight(self.board, milestone, tuple(self._lines.last_lines())))

        handle = asyncio.get_running_loop().call_later(AFTER_PANIC_S, tell)
        self._panics.add(handle)

    def _state(self, state: PortState) -> None:
        self.look()
        self._around.recorder.note(self.board, "port open" if state.is_open else f"port away: {state.why}")
        self._around.on_state(self.board, state)
        self._tell_readers()

    def power(self, *, on: bool) -> None:
        """The board's power was read back. What comes after an off is of a new boot: that power is on again may be read
        later than the board's first word."""
        self.look()
        self._around.recorder.note(self.board, "power on" if on else "power off")
        self.power_at = time.monotonic()
        if not on:
            self.story.begin()
            self._lines.forget()
            self._around.recorder.new_boot(self.board)
            self._tell_boot("the board lost its power")

    def last_line(self) -> str | None:
        """What the board said last; None where it has said nothing since its power came."""
        self.look()
        lines = self._lines.last_lines(1)
        return lines[0] if lines else None

    def last_lines(self) -> list[str]:
        """The last lines of this boot."""
        self.look()
        return self._lines.last_lines()

    # --- readers and the writer ----------------------------------------------------------------------------------

    def attach(self, reader: ConsoleReader) -> None:
        """Have `reader` told everything from now on."""
        self._readers[reader] = None

    def detach(self, reader: ConsoleReader) -> None:
        """Tell `reader` nothing more."""
        self._readers.pop(reader, None)

    @property
    def readers(self) -> int:
        return len(self._readers)

    def _tell_readers(self) -> None:
        for reader in list(self._readers):
            reader.changed()

    def _binding(self) -> Binding | None:
        return self._around.lease(self.board) if self.table.writers == "lease" else None

    def type(self, who: Writer, data: bytes) -> str | None:
        """Type `data` as `who`. Returns None where it goes to the board, else why it does not.

        The caller waits for `port.when_drained` while `port.is_full`.
        """
        before = self.place.holder
        refused = self.place.type(who, time.monotonic(), self._binding())
        if self.place.holder is not before:
            self._tell_readers()
        if refused is not None:
            return refused
        if self.port.write(data):
            return None
        if not self.port.state.is_open:
            return f"the console's port is away: {self.port.state.why}"
        return "the board takes nothing more now"

    def take_place(self, who: Writer) -> str | None:
        """Give `who` the writer's place. Returns None where it has it now, else why not."""
        before = self.place.holder
        refused = self.place.take(who, time.monotonic(), self._binding())
        if self.place.holder is not before:
            log.info("console %s: %s writes now", self.board, who.name)
            self._tell_readers()
        return refused

    def leave_place(self, who: Writer) -> None:
        """`who` writes no more."""
        if self.place.leave(who):
            self._tell_readers()

    def pulse(self, who: Writer) -> str | None:
        """Send a break as `who`. Returns None, or why not."""
        refused = self.place.type(who, time.monotonic(), self._binding())
        if refused is None:
            self.port.pulse()
        return refused

    def set_line(self, who: Writer, setting: Setting, value: int) -> None:
        """Set speed, break or signals for an RFC 2217 client, as far as it may. It is told yes in any case."""
        if setting is not Setting.BREAK and not self._clients_set_speed:
            return
        refused = self.place.type(who, time.monotonic(), self._binding())
        if refused is not None:
            log.info("console %s: %s wants %s %d and may not: %s", self.board, who.name, setting, value, refused)
            return
        if setting is Setting.SPEED:
            self.speed = value
        self.port.set(setting, value)
