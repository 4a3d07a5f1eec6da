"""`boardhand console BOARD`: this terminal and the board's console. The bytes go straight to the agent's port."""

import contextlib
import getpass
import io
import os
import re
import select
import socket
import sys
import termios
import threading
import time
import tty
from collections.abc import Iterator
from dataclasses import dataclass

from cli.console_stream import ConsoleStream, Keys, Order
from cli.exits import CliError, Exit, usage
from cli.lease_tokens import token_for
from cli.plain_text import shown
from cli.session import Session
from cli.target import Target, check_id
from wire.payloads import BoardInfo, PayloadError, decode
from wire.topics import Topics

CONNECT_TIMEOUT_S = 5.0
INFO_TIMEOUT_S = 2.0
"""Retained info follows the subscription at once."""
READ_BYTES = 65536
HELP = """\
Ctrl-] and  .  leave                    b  send break           s  how the console is
            r  cycle the board's power  w  take the writer's place
            ?  this                     g  give the place up    Ctrl-]  Ctrl-] itself"""
_ADDRESS = re.compile(r"(?:telnet://)?(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})/?")


@dataclass(frozen=True, slots=True)
class Attach:
    """What to connect to, and how."""

    board: str
    address: str | None
    token: int | None
    watch: bool
    take: bool
    for_s: float | None


def attach(target: Target, how: Attach) -> int:
    """Connect until the person leaves, the time is over, or the agent ends.

    Raises:
        CliError: nobody knows the board, it has no console that can be reached, or the connection broke.
    """
    check_id("board", how.board)
    address = how.address if how.address is not None else _told(target, how.board)
    connection = _connected(address)
    with connection, _raw_terminal() as is_terminal:
        live = _Live(connection, target, how, is_terminal=is_terminal)
        return live.run()


def _told(target: Target, board: str) -> str:
    """Where the board's info says that its console is."""
    topic = Topics(target.prefix).board_info(board)
    with Session(target) as session:
        session.subscribe(topic)
        deadline_s = time.monotonic() + INFO_TIMEOUT_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            message = session.receive(left_s)
            if message is None or message.topic != topic or not message.payload:
                continue
            try:
                console = decode(BoardInfo, message.payload).console
            except PayloadError as error:
                text = f"the info of {board} cannot be read: {shown(error, 80)}"
                raise CliError(Exit.FAILED, text, "is its agent of the same version?") from None
            if console is None:
                raise CliError(Exit.NO_ANSWER, f"board {board} has no console", "give it one in its agent's settings")
            return console
    where = f"{target.host}:{target.port}"
    raise CliError(Exit.NO_ANSWER, f"unknown board {board}: no agent at {where} has it", "see 'boardhand boards'")


def _connected(address: str) -> socket.socket:
    try:
        if address.startswith("unix:/"):
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(CONNECT_TIMEOUT_S)
            connection.connect(address.removeprefix("unix:"))
        else:
            match = _ADDRESS.fullmatch(address)
            if match is None:
                raise usage(
                    f"{shown(address)!r} is no console that can be reached from here",
                    "give the board a telnet_port in its agent's settings",
                )
            connection = socket.create_connection((match[1] or match[2], int(match[3])), CONNECT_TIMEOUT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        why = "no answer in time" if isinstance(error, TimeoutError) else (error.strerror or str(error)).lower()
        raise CliError(
            Exit.UNREACHABLE, f"console at {shown(address)}: {why}", "is its agent up, and do you reach its host?"
        ) from None
    return connection


@contextlib.contextmanager
def _raw_terminal() -> Iterator[bool]:
    """The terminal hands every key through; whether there is one."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        yield False
        return
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield True
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


class _Live:
    """One connection with one terminal."""

    def __init__(self, connection: socket.socket, target: Target, how: Attach, *, is_terminal: bool) -> None:
        self._connection = connection
        self._target = target
        self._how = how
        self._is_terminal = is_terminal
        self._stream = ConsoleStream()
        self._keys = Keys()
        self._state: dict[str, object] | None = None
        self._hello: dict[str, object] = {"name": f"{_me()}@{socket.gethostname()}", "watch": how.watch}
        self._token = token_for(target, how.board, os.environ) if how.token is None else how.token
        if self._token is not None:
            self._hello["token"] = self._token
        if how.take:
            self._hello["take"] = True

    def run(self) -> int:
        self._stream.say(self._hello)
        self._flush()
        if self._is_terminal:
            self._say(f"{self._how.board}: Ctrl-] . leaves, Ctrl-] ? helps")
        deadline_s = None if self._how.for_s is None else time.monotonic() + self._how.for_s
        sources: list[int] = [self._connection.fileno(), 0]
        while deadline_s is None or time.monotonic() < deadline_s:
            left_s = None if deadline_s is None else max(0.0, deadline_s - time.monotonic())
            ready, _, _ = select.select(sources, [], [], left_s)
            if self._connection.fileno() in ready:
                self._from_board()
            if 0 in ready:
                data = os.read(0, READ_BYTES)
                if not data:
                    sources.remove(0)
                elif not self._from_keys(data):
                    return Exit.OK
        return Exit.OK

    def _from_board(self) -> None:
        try:
            data = self._connection.recv(READ_BYTES)
        except OSError as error:
            raise self._lost((error.strerror or str(error)).lower()) from None
        if not data:
            raise self._lost("the agent has ended it")
        shown_data = self._stream.feed(data)
        _write_all(shown_data)
        for message in self._stream.messages:
            self._message(message)
        self._stream.messages.clear()
        self._flush()

    def _lost(self, why: str) -> CliError:
        return CliError(Exit.UNREACHABLE, f"the console of {self._how.board}: {why}", "connect again")

    def _message(self, message: dict[str, object]) -> None:
        if "remark" in message:
            self._say(shown(str(message["remark"]), 200))
            return
        before, self._state = self._state, message
        if before is None:
            if message.get("open") is False:
                self._say(f"its port is away: {shown(str(message.get('why')), 120)}")
            return
        if before.get("open") != message.get("open"):
            why = f"away: {shown(str(message.get('why')), 120)}"
            self._say("its port is back" if message.get("open") else f"its port is {why}")
        if before.get("you") and not message.get("you") and message.get("writer"):
            self._say(f"{shown(str(message['writer']), 64)} writes now; Ctrl-] w takes the place back")

    def _from_keys(self, data: bytes) -> bool:
        """Whether to go on."""
        for item in self._keys.feed(data) if self._is_terminal else [data]:
            if item is Order.LEAVE:
                return False
            if isinstance(item, Order):
                self._order(item)
            else:
                self._stream.typed(item)
        self._flush()
        return True

    def _order(self, order: Order) -> None:
        if order is Order.CYCLE:
            self._say("cycling the power …")
            threading.Thread(target=self._cycle, name="cycle", daemon=True).start()
        elif order is Order.BREAK:
            self._stream.say({"break": True})
            self._say("break sent")
        elif order is Order.TAKE:
            self._stream.say({"take": True})
        elif order is Order.GIVE:
            self._stream.say({"give": True})
        elif order is Order.STATE:
            self._say(self._described())
        else:
            self._say("\r\n" + HELP.replace("\n", "\r\n"))

    def _described(self) -> str:
        state = self._state or {}
        where = "open" if state.get("open") else f"away: {state.get('why')}"
        writer = "you write" if state.get("you") else f"writer: {state.get('writer') or 'nobody'}"
        return shown(f"port {where}; {writer}; {state.get('readers')} readers", 200)

    def _cycle(self) -> None:
        from cli.power import PowerRequest, run

        request = PowerRequest(self._how.board, "cycle")
        request.token = self._token
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                run(request, self._target)
            text = said.getvalue().strip()
        except CliError as error:
            text = str(error)
        self._say(text)

    def _flush(self) -> None:
        out = self._stream.take()
        if out:
            try:
                self._connection.sendall(out)
            except OSError as error:
                raise self._lost((error.strerror or str(error)).lower()) from None

    def _say(self, text: str) -> None:
        """A word of ours: beside the console where standard output is a file, in it on a terminal."""
        if self._is_terminal:
            _write_all(f"\r\n[{text}]\r\n".encode())
        else:
            print(f"boardhand: {text}", file=sys.stderr, flush=True)


def _me() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody"


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]
