"""All consoles of one agent: begun before any power is switched, and asked over MQTT."""

import asyncio
import functools
import logging
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from socket import gethostname

from agent.console.console import Console, Sight, Surroundings
from agent.console.listeners import ConsoleListeners
from agent.console.milestones import readable
from agent.console.path_watch import PathWatch
from agent.console.port import PortState
from agent.console.recorder import Recorder
from agent.console.recording import LINE_BYTES, Cursor, Page, Query, RecordedBoot, parts_of, wall
from agent.console.settings import ConsolesTable, ConsoleTable, PlaceKind, socket_path
from agent.console.shell_line import ConsoleShell
from agent.console.writer_place import Binding, Writer
from agent.errors import AgentError
from agent.requests import Answer, RequestError, text
from wire.phases import ErrorKind, Power

log = logging.getLogger(__name__)

MIB = 1 << 20
MAX_TYPED_CHARACTERS = 4096
"""Of one request; a longer text goes through a console port."""
SHOWN_CHARACTERS = 4 * LINE_BYTES
"""Of a recorded line: noise takes four for each byte."""
_ANY = {IPv4Address("0.0.0.0"), IPv6Address("::")}  # only compared with


@dataclass(frozen=True, slots=True)
class ConsoleCalls:
    """What the desk tells its agent, in the event loop.

    Attributes:
        on_sight: a milestone was passed.
        on_state: a board's port opened or went away.
        on_trouble: recordings cannot be written, and why; None when they can again.
        lease: the lease that holds a board now.
    """

    on_sight: Callable[[Sight], None]
    on_state: Callable[[str, PortState], None]
    on_trouble: Callable[[str | None], None]
    lease: Callable[[str], Binding | None]


class ConsoleDesk:
    """The consoles between `start` and `stop`; without a console in the settings both do nothing."""

    def __init__(
        self,
        boards: Mapping[str, ConsoleTable | None],
        consoles: ConsolesTable,
        state_dir: Path,
        calls: ConsoleCalls,
    ) -> None:
        self._tables = {board: table for board, table in boards.items() if table is not None}
        self._settings = consoles
        self._state_dir = state_dir
        self._calls = calls
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._listeners: dict[str, ConsoleListeners] = {}
        self._recorder: Recorder | None = None
        self._watch: PathWatch | None = None
        self._recording: asyncio.Task[None] | None = None
        self._known: set[str] = set(boards)
        self.consoles: dict[str, Console] = {}
        self.shells: dict[str, ConsoleShell] = {}

    async def start(self) -> None:
        """Open every port and listen. A port that cannot be opened is tried again for ever; an address is not.

        Raises:
            AgentError: an address or port of ours is taken.
        """
        if self._tables:
            await self._record()
        for board, table in self._tables.items():
            await self._begin(board, table)

    async def follow(self, boards: Mapping[str, ConsoleTable | None]) -> None:
        """Other boards and consoles from now on. One that is the same goes on, with everybody who looks at it.

        Raises:
            AgentError: an address or port of ours is taken; everything is as before, but that who was connected to a
                console which is another now has to connect again.
        """
        before, wanted = self._tables, {board: table for board, table in boards.items() if table is not None}
        if wanted and self._recorder is None:
            await self._record()
        changed = [board for board in {*before, *wanted} if before.get(board) != wanted.get(board)]
        begun: list[str] = []
        try:
            await self._end([board for board in changed if board in before])
            for board in changed:
                if board in wanted:
                    begun.append(board)
                    await self._begin(board, wanted[board])
        except AgentError:
            await self._end(begun)
            for board in changed:
                if board in before:
                    await self._begin(board, before[board])
            raise
        self._tables, self._known = wanted, set(boards)

    async def _record(self) -> None:
        folder = self._state_dir / "consoles"
        try:
            await asyncio.to_thread(folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise AgentError(f"{folder}: cannot be made: {error.strerror}") from error
        self._recorder = Recorder(folder, self._settings.keep_mb * MIB, self._calls.on_trouble)
        self._recording = asyncio.create_task(self._recorder.run(), name="console recorder")
        self._watch = PathWatch()

    async def _begin(self, board: str, table: ConsoleTable) -> None:
        if self._recorder is None or self._watch is None:
            raise RuntimeError(f"console of {board}: nothing records it yet")
        on_state = functools.partial(self._said_state, table)
        around = Surroundings(self._recorder, self._watch, self._calls.on_sight, on_state, self._calls.lease)
        console = Console(board, table, self._settings, around)
        self.consoles[board] = console
        self.shells[board] = ConsoleShell(console)
        self._tasks[board] = asyncio.create_task(console.run(), name=f"console {board}")
        await self._listen(console, table)

    async def _end(self, boards: Collection[str]) -> None:
        """Let go of these consoles' ports, and end their connections."""
        for board in boards:
            self._listeners.pop(board).stop()
            self.shells.pop(board).stop()
            self.consoles.pop(board)
        tasks = [self._tasks.pop(board) for board in boards]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, console: Console, table: ConsoleTable) -> None:
        listeners = ConsoleListeners(console)
        self._listeners[console.board] = listeners
        path = socket_path(self._state_dir, console.board)
        if path is not None:
            await listeners.listen_here(path)
        for port, raw in ((table.telnet_port, False), (table.raw_port, True)):
            for address in self._settings.listen if port is not None else ():
                await listeners.listen(str(address), port or 0, raw=raw)

    async def stop(self) -> None:
        """Let go of all ports, end all connections, and write what is not written."""
        await self._end(list(self._tasks))
        if self._watch is not None:
            self._watch.close()
        if self._recording is not None and self._recorder is not None:
            self._recording.cancel()
            with suppress(asyncio.CancelledError):
                await self._recording
            await self._recorder.close()

    def _said_state(self, table: ConsoleTable, board: str, state: PortState) -> None:
        if state.is_open:
            log.info("console of %s: open", board)
        else:
            log.warning("console of %s (%s): %s", board, table.device, state.why)
        self._calls.on_state(board, state)

    def power(self, board: str, power: Power) -> None:
        """The board's power was read back, after a change. Unknown says nothing of its boot."""
        if board in self.consoles and power is not Power.UNKNOWN:
            self.consoles[board].power(on=power is Power.ON)

    def placing(self, otherwise: Callable[[str], str | None]) -> Callable[[str], str | None]:
        """Tells where a boot is stuck: what `otherwise` says of it, with the last word of its console."""

        def placed(board: str) -> str | None:
            place, console = otherwise(board), self.consoles.get(board)
            line = None if console is None else console.last_line()
            if line is None:
                return place
            said = f"the last on its console: {line}"
            return said if place is None else f"{place}; {said}"

        return placed

    # --- requests ------------------------------------------------------------------------------------------------

    async def answer(self, data: dict[str, object]) -> Answer:
        """`agent/<agent>/request/console`: `{"board", "do": "status" | "boots" | "read" | "write" | "break", …}`.

        Raises:
            RequestError: the request is wrong, or cannot be done.
        """
        board = text(data, "board")
        console, recorder = self.consoles.get(board), self._recorder
        if console is None or recorder is None:
            kind = ErrorKind.NOT_FOUND if board in self._known else ErrorKind.UNKNOWN_BOARD
            raise RequestError(kind, f"board {board} has no console here", "board")
        do = data.get("do", "status")
        console.look()
        try:
            if do == "status":
                return _status(console)
            if do == "boots":
                return {"board": board, "boots": [_boot(boot) for boot in await recorder.boots(board)]}
            if do == "read":
                return await _read(recorder, board, data)
        except OSError as error:
            raise RequestError(ErrorKind.INTERNAL, f"the recording of {board}: {error.strerror or error}") from error
        if do in {"write", "break"}:
            return self._write(console, data, is_break=do == "break")
        raise RequestError(ErrorKind.BAD_REQUEST, "do: status, boots, read, write or break", "do")

    def _write(self, console: Console, data: dict[str, object], *, is_break: bool) -> Answer:
        """Over MQTT a lease binds always: it is how boards are asked for there."""
        lease, token = self._calls.lease(console.board), data.get("token")
        if lease is not None and token != lease.token:
            message = f"board {console.board}: leased by {lease.holder}; send the lease's token"
            raise RequestError(ErrorKind.NOT_ALLOWED, message, "token")
        writer = Writer("a request over MQTT", lease.token if lease is not None else None)
        if is_break:
            refused = console.pulse(writer)
        else:
            typed = text(data, "text")
            if len(typed) > MAX_TYPED_CHARACTERS:
                message = f"text: at most {MAX_TYPED_CHARACTERS} characters at once"
                raise RequestError(ErrorKind.BAD_REQUEST, message, "text")
            refused = console.type(writer, typed.encode())
        # It is one word: the place is for the next.
        console.leave_place(writer)
        if refused is not None:
            raise RequestError(ErrorKind.BUSY, f"board {console.board}: not typed: {refused}")
        return {"board": console.board}


def _status(console: Console) -> Answer:
    state, holder = console.port.state, console.place.holder
    return {
        "board": console.board,
        "device": console.table.device,
        "open": state.is_open,
        "why": state.why,
        "speed": console.speed if console.port.place.kind is PlaceKind.TTY else None,
        "readers": console.readers,
        "writer": None if holder is None else holder.name,
        "bytes": console.bytes_seen,
        "reached": console.story.reached,
        "last_lines": console.last_lines(),
    }


def _boot(boot: RecordedBoot) -> dict[str, object]:
    return {"number": boot.number, "began": _time(boot.began), "bytes": boot.size_bytes}


def _time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds")


async def _read(recorder: Recorder, board: str, data: dict[str, object]) -> Answer:
    query = await _query(recorder, board, data)
    page: Page = await recorder.search(board, query)
    lines = [
        [_time(wall(line.at_us)), readable(line.data, SHOWN_CHARACTERS)] + (["note"] if line.is_note else [])
        for line in page.lines
    ]
    return {
        "board": board,
        "boot": query.boot,
        "lines": lines,
        "next": None if page.next is None else str(page.next),
    }


async def _query(recorder: Recorder, board: str, data: dict[str, object]) -> Query:
    since, grep, after, boot = data.get("since"), data.get("grep", ""), data.get("after"), data.get("boot")
    try:
        since_us = 0 if since is None else _since_us(since)
    except (ValueError, OverflowError):
        message = "since: a time as 2026-11-21T07:00:00Z, or seconds back"
        raise RequestError(ErrorKind.BAD_REQUEST, message, "since") from None
    if not isinstance(grep, str) or len(grep) > 256:
        raise RequestError(ErrorKind.BAD_REQUEST, "grep: a text of at most 256 characters", "grep")
    try:
        cursor = None if after is None else Cursor.parse(str(after))
    except ValueError as error:
        raise RequestError(ErrorKind.BAD_REQUEST, f"after: {error}", "after") from None
    number = None
    if boot is not None:
        if isinstance(boot, bool) or not isinstance(boot, int):
            raise RequestError(ErrorKind.BAD_REQUEST, "boot: its number, 0 for the last, -1 for the one before", "boot")
        number = _number_of(await recorder.boots(board), boot, board)
    return Query(number, since_us, parts_of(grep), cursor)


def _since_us(since: object) -> int:
    if isinstance(since, int | float) and not isinstance(since, bool):
        return max(0, int((datetime.now(UTC).timestamp() - since) * 1e6))
    at = datetime.fromisoformat(str(since))
    return max(0, int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1e6))


def _number_of(boots: list[RecordedBoot], boot: int, board: str) -> int:
    """A boot's own number; 0 and below count back from the last."""
    if boot > 0 and any(known.number == boot for known in boots):
        return boot
    if boot <= 0 and -boot < len(boots):
        return boots[boot - 1].number
    known = f"{len(boots)} are recorded, the last is number {boots[-1].number}" if boots else "none is recorded"
    raise RequestError(ErrorKind.NOT_FOUND, f"board {board}: there is no boot {boot}; {known}", "boot")


def address_of(board: str, table: ConsoleTable, consoles: ConsolesTable, state_dir: Path) -> str:
    """Where others find the console, as told in the board's info: `telnet://HOST:PORT`, `unix:/PATH` on the agent's
    host, or the device where neither is served."""
    if table.telnet_port is not None and consoles.listen:
        return f"telnet://{_host(consoles)}:{table.telnet_port}"
    path = socket_path(state_dir, board)
    return table.device if path is None else f"unix:{path}"


def _host(consoles: ConsolesTable) -> str:
    if consoles.host is not None:
        return consoles.host
    outside = [address for address in consoles.listen if not address.is_loopback]
    if not outside:
        return "127.0.0.1"
    named = [address for address in outside if address not in _ANY]
    if not named:
        return gethostname()
    return f"[{named[0]}]" if isinstance(named[0], IPv6Address) else str(named[0])
