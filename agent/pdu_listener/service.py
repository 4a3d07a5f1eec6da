"""The listener, wired: servers outside, the agent's command desk inside.

A request becomes a task of its own, so that a client which goes away does not stop a switch half-way. Per controller
a bounded number is under way at a time and the others wait here, so that a hanging controller delays nobody else's.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping

from agent.errors import AgentError
from agent.pdu_listener.desk import AgentDesk, Answer, PowerDesk, SwitchesBoards
from agent.pdu_listener.directory import Directory, Target, UnknownNameError
from agent.pdu_listener.http_server import HttpServer
from agent.pdu_listener.settings import Endpoint, ListenerError, PduListenerTable
from agent.pdu_listener.tcp_server import TcpServer
from agent.pdu_listener.words import Asked, Verb
from agent.power.service import PowerService
from agent.power.settings import BoardFeed, ControllerBase
from agent.settings import AgentSettings
from wire.payloads import ErrorInfo
from wire.phases import ErrorKind, Power, PowerAction

REBOOT_DELAY_S = 5.0
"""Between off and on of a reboot that gives no delay, as in pdudaemon."""
UNDER_WAY_PER_CONTROLLER = 32
"""Half of what a controller's queue takes, so that the agent's own commands and read-backs still find room."""
WAITING_PER_CONTROLLER = 256
"""Beyond that a script has gone wild, or the controller hangs: the next one is told so at once."""
STOP_GRACE_S = 12.0
"""As for commands from MQTT: a reboot that is cut short leaves a board off until somebody looks."""

ACTIONS = {Verb.ON: PowerAction.ON, Verb.OFF: PowerAction.OFF, Verb.REBOOT: PowerAction.CYCLE}

_log = logging.getLogger(__name__)


class _Lane:
    """The requests of one controller."""

    def __init__(self) -> None:
        self.free = asyncio.Semaphore(UNDER_WAY_PER_CONTROLLER)
        self.inside = 0


class PduListener:
    """pdudaemon's listeners of one agent.

    Args:
        controllers: of the agent's settings; their names and hosts are what clients call `hostname`.
        feeds: which outlets feed which board.
    """

    def __init__(
        self,
        table: PduListenerTable,
        controllers: Mapping[str, ControllerBase],
        feeds: Mapping[str, BoardFeed],
        desk: PowerDesk,
    ) -> None:
        self._table = table
        self._directory = Directory(controllers, feeds, table.aliases)
        self._desk = desk
        self._lanes: dict[str, _Lane] = {}
        self._tasks: set[asyncio.Task[Answer]] = set()
        self._stopping = asyncio.Event()
        self._http: HttpServer | None = None
        self._tcp: TcpServer | None = None
        self.http: Endpoint | None = None
        """Where HTTP is heard, once started."""
        self.tcp: Endpoint | None = None

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            ListenerError: the token cannot be read, or a port cannot be used.
        """
        token = await asyncio.to_thread(self._table.read_token)
        if self._table.http is not None:
            self._http = HttpServer(self.carry_out, token)
            self.http = await self._listen(self._http, "http", self._table.http)
        if self._table.tcp is not None:
            self._tcp = TcpServer(self.carry_out)
            self.tcp = await self._listen(self._tcp, "tcp", self._table.tcp)
        if self._table.anyone_may_switch:
            _log.warning("pdu_listener: anyone_may_switch: who reaches it may switch power, without a token")

    def follow(self, controllers: Mapping[str, ControllerBase], feeds: Mapping[str, BoardFeed]) -> None:
        """Other outlets and boards from now on; requests under way keep theirs."""
        self._directory = Directory(controllers, feeds, self._table.aliases)

    async def _listen(self, server: HttpServer | TcpServer, key: str, text: str) -> Endpoint:
        try:
            bound = await server.start(Endpoint.parse(text))
        except OSError as error:
            await self.stop()
            reason = error.strerror or str(error)
            raise ListenerError(
                f"pdu_listener: {key} = {text!r}: {reason}; is pdudaemon running, or the address not this host's?"
            ) from None
        _log.info("pdudaemon's clients are heard by %s on %s", key, bound)
        return bound

    async def stop(self) -> None:
        """Take nothing new, let what is under way come to its end, answer it, close."""
        self._stopping.set()
        servers = [server for server in (self._http, self._tcp) if server is not None]
        for server in servers:
            server.close()
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_GRACE_S)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        await asyncio.gather(*(server.stop() for server in servers))

    # --- one request -------------------------------------------------------------------------------------------------

    async def carry_out(self, asked: Asked, who: str) -> Answer:
        """Do what was asked, to the end even when the caller is cancelled. Never raises otherwise."""
        try:
            target = self._directory.find(asked)
        except UnknownNameError as error:
            return _failed(ErrorKind.NOT_FOUND, str(error))
        lane = self._lanes.setdefault(target.ref.controller, _Lane())
        if self._stopping.is_set():
            return _failed(ErrorKind.BUSY, f"{target}: the agent is being stopped; try again later")
        if lane.inside >= WAITING_PER_CONTROLLER:
            return _failed(
                ErrorKind.BUSY,
                f"{target}: {lane.inside} requests wait for {target.ref.controller} already; try later",
            )
        task = asyncio.create_task(self._carry_out(lane, asked, target, who), name=f"power-pdu-{target}")
        self._tasks.add(task)
        lane.inside += 1
        task.add_done_callback(lambda done: self._done(lane, done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                return _failed(ErrorKind.INTERRUPTED, f"{target}: the agent was stopped while this was under way")
            raise

    def _done(self, lane: _Lane, task: "asyncio.Task[Answer]") -> None:
        lane.inside -= 1
        self._tasks.discard(task)

    async def _carry_out(self, lane: _Lane, asked: Asked, target: Target, who: str) -> Answer:
        begun = time.monotonic()
        try:
            if asked.delay_s and asked.verb in {Verb.ON, Verb.OFF}:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(asked.delay_s):
                        await self._stopping.wait()
            async with lane.free:
                if self._stopping.is_set():
                    return _failed(ErrorKind.BUSY, f"{target}: the agent is being stopped; nothing was switched")
                answer = await self._ask_desk(asked, target)
        except Exception as defect:  # noqa: BLE001 - whatever a desk does, its client gets an answer
            _log.exception("%s, asked by %s: defect in the command desk", asked, who)
            return _failed(ErrorKind.INTERNAL, f"{target}: defect: {type(defect).__name__}; report it with the log")
        took_ms = (time.monotonic() - begun) * 1000
        if answer.error is not None:
            _log.warning("%s, asked by %s: %s", asked, who, answer.error.message)
        elif asked.verb is not Verb.STATE:
            _log.info("%s, asked by %s: %s is %s after %.0f ms", asked, who, target, answer.power, took_ms)
        return answer

    async def _ask_desk(self, asked: Asked, target: Target) -> Answer:
        desk, board = self._desk, target.board
        if asked.verb is Verb.STATE:
            return await (desk.read_outlet(target.ref) if board is None else desk.read_board(board))
        action = ACTIONS[asked.verb]
        min_off_s = None
        if action is PowerAction.CYCLE:
            min_off_s = REBOOT_DELAY_S if asked.delay_s is None else asked.delay_s
        if board is None:
            return await desk.switch_outlet(target.ref, action, min_off_s=min_off_s)
        return await desk.switch_board(board, action, min_off_s=min_off_s)


async def opened(settings: AgentSettings, commands: SwitchesBoards, power: PowerService) -> PduListener | None:
    """The agent's listener, started; None where its settings have none.

    Raises:
        AgentError: it cannot be started.
    """
    table = settings.pdu_listener
    if table is None:
        return None
    listener = PduListener(table, settings.controllers, settings.feeds(), AgentDesk(commands, power))
    try:
        await listener.start()
    except ListenerError as error:
        raise AgentError(str(error)) from error
    return listener


def _failed(kind: ErrorKind, message: str) -> Answer:
    return Answer(Power.UNKNOWN, ErrorInfo(kind=kind, message=message))
