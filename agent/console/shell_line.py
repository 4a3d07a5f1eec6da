"""A board's shell on its console, for one who runs commands there: the dialogue, wired to the console and the clock."""

import asyncio
import logging
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from agent.console.console import Console
from agent.console.settings import ConsoleTable
from agent.console.shell_dialogue import ShellDialogue
from agent.console.shell_table import AT_WORK, Action, Ended, Found, Invited, Lost, Output, ShellWays, State, Type
from agent.console.writer_place import Writer

log = logging.getLogger(__name__)

Heard = Callable[[bytes], None]
T = TypeVar("T")
CANCEL_S = 15.0
"""For a shell to come back from a command that is cancelled."""


class ShellError(Exception):
    """There is no shell to be had; says why, as a clause."""


class ConsoleBusyError(ShellError):
    """Somebody else has the console, or the board's lease."""


def ways_of(table: ConsoleTable, password: str | None) -> ShellWays:
    """What the settings say of the shell, with the password that was read from its file."""
    prompt = None if table.prompt is None else re.compile(table.prompt.encode() + rb"\s*\Z")
    return ShellWays(
        user=table.user,
        password=password,
        prompt=prompt,
        line_characters=table.line_characters,
        char_delay_s=table.char_delay_ms / 1000,
    )


def password_of(path: Path | None) -> str | None:
    """The first line of the file. Blocks.

    Raises:
        ShellError: it cannot be read.
    """
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8").split("\n", 1)[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise ShellError(f"password_file {path} cannot be read: {error}") from error


class ConsoleShell:
    """The shell of one console, until `stop`. One at a time uses it, between `begin` and `end`."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.on_sight: Callable[[Invited], None] = lambda _sight: None
        """Something stands on the console that a person would answer, and nobody uses the shell."""
        self.on_gone: Callable[[str], None] = lambda _why: None
        """What ran on the board is gone."""
        self._watches = False
        self._listens_since = 0.0
        self._dialogue = self._new_dialogue()
        self._writer: Writer | None = None
        self._typing: asyncio.Queue[Type] = asyncio.Queue()
        self._typist: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._found: asyncio.Future[None] | None = None
        self._ended: asyncio.Future[Ended] | None = None
        self._heard: Heard = lambda _output: None

    def watch(self) -> None:
        """Listen from now on, also while nobody uses it; nothing is typed."""
        self._watches = True
        self._listen()

    def _listen(self) -> None:
        if self._typist is not None:
            return
        self._dialogue = self._new_dialogue()
        self._listens_since = _now()
        self.console.attach(self)
        self.console.on_boot.append(self._boot)
        self._typist = asyncio.create_task(self._type_for_ever(), name=f"typist {self.console.board}")

    def _deafen(self) -> None:
        typist, self._typist = self._typist, None
        if typist is not None:
            typist.cancel()
        self._typing = asyncio.Queue()
        self.console.detach(self)
        with suppress(ValueError):
            self.console.on_boot.remove(self._boot)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop(self) -> None:
        """Let go of the console."""
        self._watches = False
        self.end()
        self._deafen()

    def _new_dialogue(self) -> ShellDialogue:
        return ShellDialogue(ways_of(self.console.table, None), lambda: secrets.token_hex(4))

    # --- for whoever uses it --------------------------------------------------------------------------------------

    @property
    def user(self) -> str | None:
        """Who uses it now."""
        return None if self._writer is None else self._writer.name

    @property
    def quiet_s(self) -> float:
        """For how long the console has stood as it is, or the board's power."""
        return _now() - max(self._dialogue.heard_at, self.console.power_at, self._listens_since)

    @property
    def is_there(self) -> bool:
        """Whether the shell has answered, and nothing has been heard of its end."""
        return self._dialogue.state is State.SHELL

    def begin(self, name: str, token: int | None) -> None:
        """Use the shell, as `name`, under the lease of this token. Others read on, and cannot type until `end`.

        Raises:
            ConsoleBusyError: somebody else uses it, or has the lease.
        """
        if self._writer is not None:
            raise ConsoleBusyError(f"{self._writer.name} uses it")
        writer = Writer(name, token, keeps=True)
        refused = self.console.take_place(writer)
        if refused is not None:
            raise ConsoleBusyError(refused)
        self._writer = writer
        self._listen()

    def end(self) -> None:
        """Give the console back."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self.console.leave_place(writer)
        for future in (self._found, self._ended):
            if future is not None and not future.done():
                future.cancel()
        if writer is not None and not self._watches:
            self._deafen()

    async def approach(self) -> None:
        """Have a shell that has answered.

        Raises:
            ShellError: there is none; says why.
        """
        if not self.console.port.state.is_open:
            raise ShellError(f"its console's port is away: {self.console.port.state.why}")
        password = await asyncio.to_thread(password_of, self.console.table.password_file)
        self._dialogue.ways = ways_of(self.console.table, password)
        self._found = asyncio.get_running_loop().create_future()
        try:
            self._dialogue.approach(_now())
            self._pump()
            await self._found
        finally:
            self._found = None

    async def run(self, script: str, timeout_s: float, heard: Heard) -> Ended:
        """Run `script` in the shell that `approach` found; `heard` gets its output as it comes."""
        self._heard = heard
        self._ended = asyncio.get_running_loop().create_future()
        try:
            if self._dialogue.state is not State.SHELL:
                return Ended(None, "the shell is gone")
            self._dialogue.run(script, timeout_s, _now())
            self._pump()
            return await self._ended
        except asyncio.CancelledError:
            ended = self._ended = asyncio.get_running_loop().create_future()
            self.interrupt("cancelled")
            # Whoever comes next finds a shell, and not what we have left running.
            if self._writer is not None and self._dialogue.state in AT_WORK:
                await asyncio.wait({ended}, timeout=CANCEL_S)
            raise
        finally:
            self._ended = None
            self._heard = lambda _output: None

    def interrupt(self, why: str) -> None:
        """End what runs; `run` returns with `why` as its problem."""
        self._dialogue.interrupt(why, _now())
        self._pump()

    def type_line(self, line: str) -> None:
        """Type a line whose end is not waited for, as `reboot`."""
        self._typing.put_nowait(Type(line.encode() + b"\r"))

    # --- the console's words --------------------------------------------------------------------------------------

    def said(self, data: bytes) -> None:
        self._dialogue.feed(data, _now())
        self._pump()

    def changed(self) -> None:
        self._dialogue.port(is_open=self.console.port.state.is_open, now=_now())
        self._pump()

    def _boot(self, why: str) -> None:
        self._dialogue.boot(why, _now())
        self._pump()
        self.on_gone(why)

    def _tick(self) -> None:
        self._timer = None
        self._dialogue.tick(_now())
        self._pump()

    def _pump(self) -> None:
        """Do what the dialogue wants, and be back when it is due."""
        for action in self._dialogue.take():
            self._do(action)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._dialogue.deadline()
        if due is not None:
            self._timer = asyncio.get_running_loop().call_later(max(0.005, due - _now()), self._tick)

    def _do(self, action: Action) -> None:
        match action:
            case Type():
                self._typing.put_nowait(action)
            case Output(data):
                if data:
                    self._heard(data)
            case Ended():
                _settle(self._ended, action)
            case Found():
                _settle(self._found, None)
            case Lost(why):
                if self._found is not None and not self._found.done():
                    self._found.set_exception(ShellError(why))
            case Invited():
                if self._writer is None:
                    self.on_sight(action)

    # --- typing ---------------------------------------------------------------------------------------------------

    async def _type_for_ever(self) -> None:
        delay_s = self.console.table.char_delay_ms / 1000
        while True:
            wanted = await self._typing.get()
            pieces = [wanted.data] if not delay_s else [bytes([byte]) for byte in wanted.data]
            for piece in pieces:
                await self._type(piece)
                if delay_s:
                    await asyncio.sleep(delay_s)
            if wanted.rest_s:
                await asyncio.sleep(wanted.rest_s)

    async def _type(self, data: bytes) -> None:
        while self.console.port.is_full:
            drained = asyncio.Event()
            self.console.port.when_drained(drained.set)
            await drained.wait()
        if self._writer is None:
            return  # what is left of a dialogue that was ended
        refused = self.console.type(self._writer, data)
        if refused is not None and self.console.port.state.is_open:
            log.warning("console %s: %s typed in vain: %s", self.console.board, self._writer.name, refused)
            self._dialogue.refuse(refused, _now())
            self._pump()


def _settle(future: asyncio.Future[T] | None, value: T) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _now() -> float:
    return asyncio.get_running_loop().time()
