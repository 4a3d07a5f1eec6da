"""The boot loaders of one agent's boards: caught, asked and told to boot, as actions; and by itself for boards whose
own environment does not boot from the net."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from agent import bootloader_requests
from agent.actions import Progress
from agent.bootloader_catching import BootloaderCalls, Catching, Wanted
from agent.bootloader_line import BootloaderLine, TakenError
from agent.bootloader_requests import BootloaderRequest, parsed
from agent.bootloader_settings import BootloaderTable
from agent.console.writer_place import Writer
from agent.requests import Answer, RequestError
from firmware_tools.bootloader import shell as on
from firmware_tools.bootloader.command import Command, CommandResult, Ended
from firmware_tools.bootloader.dialect import DIALECTS
from firmware_tools.bootloader.environment import check_name, check_value
from firmware_tools.bootloader.errors import DialogueError, LeftError, NotAtPromptError, WordsError
from firmware_tools.bootloader.exchange import AnyExchange
from firmware_tools.bootloader.netboot import netboot
from firmware_tools.bootloader.shell import Line, Shell
from wire.phases import ErrorKind, Power

log = logging.getLogger(__name__)

TOLD_CHARACTERS = 80
"""Of a command, as progress."""
ANSWER_CHARACTERS = 200_000
"""Of all output of one request together: an MQTT server takes no more than some 256 kB as it comes."""
SHOWN_LINES = 12
"""Of the console, in an error."""


def marker() -> str:
    """8 letters and digits that stand nowhere else."""
    return secrets.token_hex(4)


@dataclass(frozen=True, slots=True)
class Seat:
    """One board's console, taken for a dialogue."""

    board: str
    line: BootloaderLine
    catching: Catching
    speaks: Line


class BootloaderDesk:
    """The dialogues of one agent, one at a time per board."""

    def __init__(self, tables: Mapping[str, BootloaderTable], calls: BootloaderCalls) -> None:
        """`tables` has every board with a console."""
        self._tables = tables
        self._calls = calls
        self._catching = {board: self._new(board, table) for board, table in tables.items()}
        self._busy: set[str] = set()

    def _new(self, board: str, table: BootloaderTable) -> Catching:
        return Catching(board, table, self._calls, DIALECTS[table.kind], marker)

    async def follow(self, tables: Mapping[str, BootloaderTable], touched: Collection[str]) -> None:
        """Other boards from now on; what is under way by itself on those `touched` is ended."""
        catching = dict(self._catching)
        for board in touched:
            if (old := catching.pop(board, None)) is not None:
                await old.by_itself.stop()
            if board in tables:
                catching[board] = self._new(board, tables[board])
                catching[board].last_on = None if old is None else old.last_on
        self._tables, self._catching = tables, catching

    # --- the actions ---------------------------------------------------------------------------------------------

    async def catch(self, board: str, data: dict[str, object], progress: Progress) -> Answer:
        """`bootloader-catch`: leaves the board at its prompt."""
        request = parsed(bootloader_requests.CatchRequest, data)
        began_s = time.monotonic()
        async with self._seat(board, request) as seat:
            shell = await seat.catching.caught(seat.line, seat.speaks, Wanted.of(request, patient=True), progress)
            return {**self._described(board, shell), "took_ms": _ms_since(began_s)}

    async def run(self, board: str, data: dict[str, object], progress: Progress) -> Answer:
        """`bootloader-run`: commands with their outcome and output."""
        request = parsed(bootloader_requests.RunRequest, data)
        async with self._seat(board, request) as seat:
            for command in request.commands:
                on.checked_command(command)
            shell = await seat.catching.caught(seat.line, seat.speaks, Wanted.of(request), progress)
            results: list[dict[str, object]] = []
            room = ANSWER_CHARACTERS
            for number, command in enumerate(request.commands):
                progress("command", 100 * number / len(request.commands), command[:TOLD_CHARACTERS])
                result = await seat.line.follow(on.run(shell, command, within_s=request.command_s))
                results.append(_result(result, room))
                room -= len(result.output)
                left = result.ended not in {Ended.DONE, Ended.TIMEOUT}
                if left:
                    self._calls.release(board)
                if left or (result.ok is False and not request.go_on):
                    break
            # None where nothing tells, as in U-Boot's simple parser.
            outcomes = [result["ok"] for result in results]
            ok = False if False in outcomes else None if None in outcomes else True
            return {**self._described(board, shell), "ok": ok, "results": results}

    async def env(self, board: str, data: dict[str, object], progress: Progress) -> Answer:
        """`bootloader-env`: variables set, saved and read."""
        request = parsed(bootloader_requests.EnvRequest, data)
        async with self._seat(board, request) as seat:
            for name, value in request.set.items():
                check_value(check_name(name), value or "")
            for name in request.get or ():
                check_name(name)
            shell = await seat.catching.caught(seat.line, seat.speaks, Wanted.of(request), progress)
            for number, (name, value) in enumerate(request.set.items()):
                progress("set", 100 * number / len(request.set), name)
                await seat.line.follow(on.write(shell, name, value))
            if request.save:
                progress("save")
                await seat.line.follow(on.save(shell))
            found: dict[str, str | None] = {}
            if request.get is None and not request.set and not request.save:
                progress("read")
                found |= await seat.line.follow(on.read_all(shell))
            for number, name in enumerate(request.get or ()):
                progress("read", 100 * number / len(request.get or ()), name)
                found[name] = await seat.line.follow(on.read(shell, name))
            return {**self._described(board, shell), "environment": found, "saved": request.save}

    async def boot(self, board: str, data: dict[str, object], progress: Progress) -> Answer:
        """`bootloader-boot`: a boot from the net by dialogue, to the kernel's first word."""
        request = parsed(bootloader_requests.BootRequest, data)
        began_s = time.monotonic()
        order = self._calls.order(board)
        async with self._seat(board, request) as seat:
            shell = await seat.catching.caught(seat.line, seat.speaks, Wanted.of(request), progress)
            booted = await seat.line.follow(netboot(shell, order), _telling(progress))
            self._calls.release(board)
            return {**self._described(board, shell), "kernel": booted.line, "took_ms": _ms_since(began_s)}

    # --- what all of them have in common -------------------------------------------------------------------------

    @asynccontextmanager
    async def _seat(self, board: str, request: BootloaderRequest) -> AsyncIterator[Seat]:
        table, console = self._tables.get(board), self._calls.console(board)
        if table is None or console is None:
            raise RequestError(ErrorKind.CONFIGURATION, f"board {board}: has no console, by which to speak", "board")
        if board in self._busy:
            raise RequestError(ErrorKind.BUSY, f"board {board}: its boot loader is being spoken to")
        self._busy.add(board)
        catching = self._catching[board]
        try:
            await catching.by_itself.stop()
            writer = Writer("the agent's boot loader dialogue", request.token)
            with BootloaderLine(console, writer, table.pace) as line:
                seat = Seat(board, line, catching, _speaks(table))
                try:
                    if request.take or request.token is not None:
                        line.take()
                    yield seat
                except TakenError as error:
                    raise RequestError(ErrorKind.BUSY, f"board {board}: not typed: {error}") from error
                except WordsError as error:
                    raise RequestError(ErrorKind.BAD_REQUEST, f"board {board}: {error}") from error
                except LeftError as error:
                    raise await self._left(seat, error) from error
                except NotAtPromptError as error:
                    self._calls.release(board)
                    message = f"its boot loader is not at its prompt: {error}; catch it first"
                    raise _refused(board, message, error) from error
                except DialogueError as error:
                    raise _refused(board, f"{error}; it stands at its prompt", error) from error
                except asyncio.CancelledError:
                    # Nobody waits for it at its prompt: if it does not come up by itself, its power is cycled.
                    self._calls.release(board)
                    raise
        finally:
            self._busy.discard(board)

    async def _left(self, seat: Seat, error: LeftError) -> RequestError:
        """The error for a board that left its boot loader. One that began anew is stopped again: else it would try for
        ever, or boot something that nobody asked for."""
        message = str(error)
        if error.again:
            shell = await seat.catching.again(seat.line, seat.speaks)
            message += "; it was caught again" if shell is not None else "; it could not be caught again"
        else:
            self._calls.release(seat.board)
        return _refused(seat.board, message, error)

    def _described(self, board: str, shell: Shell) -> Answer:
        return {
            "board": board,
            "kind": shell.dialect.kind.value,
            "version": shell.version,
            "prompt": shell.prompt,
        }

    # --- what the agent tells ------------------------------------------------------------------------------------

    def power_begins(self, board: str, *, cycles: bool) -> None:
        """The board's power is about to be switched on; `cycles`: it goes off before."""
        self._by_itself(board, after_off=cycles and self._calls.power(board) is not Power.OFF)

    def found(self, board: str, *, on: bool) -> None:
        """The board's power at the agent's start."""
        if board in self._catching:
            self._catching[board].last_on = on

    def power(self, board: str, *, on: bool) -> None:
        """The board's power was read back, after a change. One that was unknown for a while has not come."""
        catching = self._catching.get(board)
        if catching is None:
            return
        came = on and catching.last_on is False
        catching.power(on=on)
        if came:
            self._by_itself(board, after_off=False)

    def restarted(self, board: str) -> None:
        """The board's boot loader began without the power's doing."""
        if board in self._catching and board not in self._busy:
            self._catching[board].by_itself.begin_anew()
            self._by_itself(board, after_off=False, steady=False)

    def _by_itself(self, board: str, *, after_off: bool, steady: bool = True) -> None:
        console = self._calls.console(board)
        if board in self._busy or console is None or not self._calls.by_dialogue(board):
            return
        catching = self._catching[board]
        catching.by_itself.start(lambda: self._boot_by_itself(board, after_off=after_off, steady=steady))

    async def _boot_by_itself(self, board: str, *, after_off: bool, steady: bool) -> None:
        table, console = self._tables[board], self._calls.console(board)
        if console is None:
            return
        self._calls.on_own(board, "begun", "")
        try:
            with BootloaderLine(console, Writer("the agent's boot loader dialogue"), table.pace) as line:
                catching = self._catching[board]
                shell = await catching.caught_by_itself(line, _speaks(table), after_off=after_off, steady=steady)
                booted = await line.follow(netboot(shell, self._calls.order(board)))
        except (DialogueError, TakenError, RequestError) as error:
            log.warning("board %s: the boot by dialogue failed: %s", board, error)
            self._calls.on_own(board, "failed", str(error))
            return
        self._calls.on_own(board, "done", booted.line)

    async def stop(self) -> None:
        """End what goes on by itself."""
        for catching in self._catching.values():
            await catching.by_itself.stop()


def _speaks(table: BootloaderTable) -> Line:
    return Line(DIALECTS[table.kind], table.pace, marker, table.line_most)


def _result(result: CommandResult, room: int) -> dict[str, object]:
    output = result.output if len(result.output) <= room else result.output[len(result.output) - max(0, room) :]
    return {
        "command": result.command,
        "ended": result.ended.value,
        "ok": result.ok,
        "status": result.status,
        "output": output,
        "took_ms": round(result.took_s * 1000, 1),
    }


def _telling(progress: Progress) -> Callable[[AnyExchange], None]:
    def told(exchange: AnyExchange) -> None:
        if isinstance(exchange, Command):
            progress("netboot", None, exchange.command[:TOLD_CHARACTERS])

    return told


def _refused(board: str, message: str, error: DialogueError) -> RequestError:
    shown = " | ".join(line[:160] for line in error.lines[-SHOWN_LINES:] if line.strip())
    tail = f"; the last on its console: {shown}" if shown else ""
    return RequestError(ErrorKind.REFUSED, f"board {board}: {message}{tail}"[:4096])


def _ms_since(began_s: float) -> float:
    return round((time.monotonic() - began_s) * 1000, 1)
