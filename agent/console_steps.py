"""The agent stands in for a board that has no client: it finds the shell on its console, says that the board is there,
and runs its jobs' steps.

Each boot has a connection of its own to the MQTT server, as a client would have, so that its will says `offline` for
the board when the agent is killed.
"""

import asyncio
import logging
import re
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from agent.console.milestones import Kind
from agent.console.shell_line import ConsoleBusyError, ConsoleShell, ShellError
from agent.console.shell_table import Ended, Invited
from agent.console.shell_text import MAX_SCRIPT_BYTES
from agent.console.steps_session import StepsSession
from agent.console.steps_table import Announce, JobOver, Keep, KillStep, Obey, RunStep, Work
from daemon.mqtt_link import LinkError, Message, MqttLink, NotConnectedError, Will
from wire.payloads import BoardSelf, PayloadError, WorkMessage, WorkOffer, WorkOutcome, decode, encode
from wire.phases import Presence
from wire.topics import Topics

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
"""How often a board that is not there is looked at, beside what its console shows by itself."""
SILENT_S = 20.0
"""A board that is on and prints nothing, but what a kernel says, for so long has perhaps asked something before we
listened: a line end shows it. Boot loaders count down for less, and one whose banner was seen is left alone."""
AGAIN_S = 60.0
"""After a shell that was not found."""
ACK_S = 20.0
"""For the broker to take a job's outcome, when the board's shell is gone with it."""
REFUSED_PAUSE_S = 30.0
"""A server that refuses our messages (ACL) is asked again after this."""
STOP_S = 4.0
"""For a step to be ended when the agent stops."""
FOLDER_S = 60.0
FOLDERS = "/tmp /run /dev/shm /var/tmp"  # noqa: S108  # looked for on the board
_FOLDER = (
    f"for d in {FOLDERS}; do rm -rf $d/boardhand; "
    "mkdir -p $d/boardhand/work $d/boardhand/bin 2>/dev/null && echo folder:$d/boardhand && exit 0; done; "
    f"echo no folder can be made in any of {FOLDERS}; exit 1"
)
_FOUND_FOLDER = re.compile(r"folder:(/[a-z/]+)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class StandInCalls:
    """What a stand-in needs of its agent. None of the calls blocks.

    Attributes:
        is_on: whether the board may have a system running: its power is not off, and nobody has taken it out.
        was_up: whether the board was at work when the agent was stopped.
        person_holds: whether a person's lease holds it: nobody else types then.
        token: of the lease that holds it.
        register: the board's shell is there; the boot gets this id.
        keep: store what is to be said of its job after a kill -9; None forgets it.
        link: a connection for `board`, with a client id, a will, and who is told of messages and connections.
    """

    is_on: Callable[[str], bool]
    was_up: Callable[[str], bool]
    person_holds: Callable[[str], bool]
    token: Callable[[str], int | None]
    register: Callable[[str, str], Awaitable[None]]
    keep: Callable[[str, WorkOutcome | None], Awaitable[None]]
    link: Callable[[str, Will, Callable[[Message], None], Callable[[], Awaitable[None]]], MqttLink]


def step_script(offer: WorkOffer, run: str, board: str, folder: str) -> str:
    """A step as the shell gets it: in its folder, with the job's environment.

    Raises:
        ShellError: it cannot be brought to the board so.
    """
    own = {"BOARDHAND_JOB": offer.job, "BOARDHAND_BOARD": board, "BOARDHAND_BIN": f"{folder}/bin"}
    exports = [f'export PATH="{folder}/bin:$PATH"']
    for name, value in (offer.env | own).items():
        if _NAME.fullmatch(name) is None:
            raise ShellError(f"env: {name!r} is no name that a shell takes")
        exports.append(f"export {name}={quoted(value)}")
    script = "\n".join([f"cd {folder}/work || exit 1", *exports, run])
    size = len(script.encode())
    if size > MAX_SCRIPT_BYTES or "\0" in script:
        raise ShellError(f"with its environment it has {size} bytes; {MAX_SCRIPT_BYTES} fit through a console")
    return script


def quoted(text: str) -> str:
    """`text` as one word of a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


class StandIn:
    """For one board, as long as `run` runs."""

    def __init__(self, shell: ConsoleShell, agent: str, topics: Topics, calls: StandInCalls) -> None:
        self.board = shell.console.board
        self._shell = shell
        self._agent = agent
        self._topics = topics
        self._calls = calls
        self._wake = asyncio.Event()
        self._sighted = False
        self._boot: _Boot | None = None
        self._not_before = 0.0
        shell.on_sight = self._sight
        shell.on_gone = self._went
        shell.watch()

    def _sight(self, _sight: Invited) -> None:
        self._sighted = True
        self._wake.set()

    def _went(self, why: str) -> None:
        self._sighted, self._not_before = False, 0.0
        if self._boot is not None:
            self._boot.gone = why
            self._boot.wake.set()
        self._wake.set()

    async def run(self) -> None:
        """Stand in, boot after boot; ends by cancellation, and says offline then."""
        if self._calls.was_up(self.board):
            self._sighted = True
        while True:
            await self._until_there()
            self._boot = _Boot(self._shell, self._agent, self._topics, self._calls)
            await self._boot.run()
            log.info("board %s: its shell is gone: %s", self.board, self._boot.gone)
            self._boot = None

    async def _until_there(self) -> None:
        while not await self._is_there():
            self._wake.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()

    async def _is_there(self) -> bool:
        console, calls, now = self._shell.console, self._calls, _now()
        if not calls.is_on(self.board) or not console.port.state.is_open or console.place.is_used(now):
            return False
        if calls.person_holds(self.board):
            # He logs in himself; that somebody can is enough.
            found, self._sighted = self._sighted, False
            return found
        is_silent = self._shell.quiet_s >= SILENT_S and console.story.reached is not Kind.BOOTLOADER
        if now < self._not_before or not (self._sighted or is_silent):
            return False
        self._sighted = False
        try:
            self._shell.begin(f"agent {self._agent}", calls.token(self.board))
            try:
                await self._shell.approach()
            finally:
                self._shell.end()
        except ShellError as error:
            self._not_before = _now() + AGAIN_S
            log.info("board %s: no shell on its console: %s", self.board, error)
            return False
        return True


class _Boot:
    """One boot of a board that is there."""

    def __init__(self, shell: ConsoleShell, agent: str, topics: Topics, calls: StandInCalls) -> None:
        self.gone: str | None = None
        """Why it is over; `wake` after it was set."""
        self.wake = asyncio.Event()
        self._shell = shell
        self._board = shell.console.board
        self._agent = agent
        self._topics = topics
        self._calls = calls
        self._boot_id = f"console-{uuid.uuid4().hex[:16]}"
        self._session = StepsSession(self._boot_id)
        self._to_say = asyncio.Event()
        self._announced: bytes | None = None
        self._folder = ""
        self._step: asyncio.Task[None] | None = None
        self._no_shell: float | None = None
        will = Will(topics.board_self(self._board), self._presence(Presence.OFFLINE, None))
        self._link = calls.link(self._board, will, self._message, self._connected)

    def _presence(self, state: Literal[Presence.ONLINE, Presence.OFFLINE], work: str | None) -> bytes:
        client = f"agent {self._agent}, on its console"
        return encode(BoardSelf(state=state, boot_id=self._boot_id, work=work, client=client))

    async def run(self) -> None:
        """Until the board is gone."""
        await self._calls.register(self._board, self._boot_id)
        await self._link.start()
        sender = asyncio.create_task(self._say_for_ever(), name=f"steps {self._board} says")
        try:
            while self.gone is None:
                self.wake.clear()
                self._session.tick(_now())
                await self._do()
                await self._rest()
        finally:
            await self._end(self.gone or "the agent was stopped")
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    async def _rest(self) -> None:
        if self._no_shell is not None and (self._session.work is Work.IDLE or _now() >= self._no_shell):
            self.gone = "its shell did not answer"
            return
        due = [at for at in (self._session.deadline(), self._no_shell) if at is not None]
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(due, default=None)):
                await self.wake.wait()

    async def _end(self, why: str) -> None:
        if self._step is not None and not self._step.done():
            self._shell.interrupt(why)
            await asyncio.wait({self._step}, timeout=STOP_S)
            self._shell.end()
            self._step.cancel()
            await asyncio.gather(self._step, return_exceptions=True)
        self._shell.end()
        words = []
        outcome = self._session.end(why, _now())
        if outcome is not None:
            await self._calls.keep(self._board, outcome)
            words.append(Message(self._topics.work_result(self._board), encode(outcome), retain=False))
        offline = self._presence(Presence.OFFLINE, None)
        words.append(Message(self._topics.board_self(self._board), offline, retain=True))
        await self._link.stop(words)

    # --- MQTT -----------------------------------------------------------------------------------------------------

    def _message(self, message: Message) -> None:
        if message.retain:
            log.warning("board %s: retained work is never taken: clear it", self._board)
            return
        try:
            work: WorkMessage = decode(WorkMessage, message.payload)  # type: ignore[arg-type]  # a union
        except PayloadError as error:
            log.warning("board %s: work: %s", self._board, error)
            return
        self._session.heard(work, _now())
        self.wake.set()

    async def _connected(self) -> None:
        self._session.connected(_now())
        self.wake.set()

    async def _say_for_ever(self) -> None:
        while True:
            await self._to_say.wait()
            self._to_say.clear()
            try:
                while await self._say_one():
                    pass
            except NotConnectedError as error:
                log.debug("board %s: waiting for the connection: %s", self._board, error)
            except LinkError as error:
                log.error("board %s: %s", self._board, error)  # noqa: TRY400  # no fault of our code
                await asyncio.sleep(REFUSED_PAUSE_S)
                self._to_say.set()

    async def _say_one(self) -> bool:
        if self._announced is not None:
            payload = self._announced
            await self._link.publish(self._topics.board_self(self._board), payload, retain=True)
            if self._announced == payload:
                self._announced = None
            return True
        report = self._session.outgoing()
        if report is None:
            return False
        await self._link.publish(self._topics.work_result(self._board), encode(report))
        self._session.sent(report)
        return True

    # --- what the session wants -----------------------------------------------------------------------------------

    async def _do(self) -> None:
        for action in self._session.take():
            match action:
                case Announce(work):
                    self._announced = self._presence(Presence.ONLINE, work)
                case Keep(outcome):
                    await self._calls.keep(self._board, outcome)
                case RunStep():
                    self._step = asyncio.create_task(self._run(action), name=f"step {self._board}")
                case KillStep(why):
                    self._shell.interrupt(why)
                case JobOver():
                    self._shell.end()
                case Obey(order):
                    await self._obey(order.kind)
        self._to_say.set()

    async def _run(self, wanted: RunStep) -> None:
        """One step. Whatever comes of it, the session is told."""
        began, code, problem, timed_out = _now(), None, "", False
        try:
            if wanted.first:
                await self._prepare(wanted.offer)
                began = _now()
            script = step_script(wanted.offer, wanted.step.run, self._board, self._folder)
            if self._session.work is Work.RUNNING:
                ended = await self._shell.run(script, wanted.step.timeout_s, self._output)
            else:
                ended = Ended(None, "stopped before it began")
            code, problem, timed_out = ended.exit_code, ended.problem or "", ended.timed_out
            if not self._shell.is_there:
                self._no_shell = _now() + ACK_S
        except ConsoleBusyError as error:
            problem = f"the console cannot be used: {error}"
        except ShellError as error:
            problem = str(error)
        took_s = _now() - began
        self._session.step_ended(code, problem, took_s, _now(), timed_out=timed_out)
        self.wake.set()

    async def _prepare(self, offer: WorkOffer) -> None:
        """The console is ours, its shell answers, and there is an empty folder."""
        self._shell.begin(offer.job, offer.token)
        try:
            await self._shell.approach()
        except ShellError:
            self._no_shell = _now() + ACK_S
            raise
        heard: list[bytes] = []
        ended = await self._shell.run(_FOLDER, FOLDER_S, heard.append)
        text = b"".join(heard).decode(errors="replace")
        found = _FOUND_FOLDER.search(text)
        if ended.exit_code != 0 or found is None:
            raise ShellError(ended.problem or f"no folder for its steps: {text.strip()[:200]}")
        self._folder = found[1]

    def _output(self, data: bytes) -> None:
        self._session.output(data, _now())
        self.wake.set()

    async def _obey(self, kind: str) -> None:
        try:
            if self._shell.user is None:
                self._shell.begin(f"agent {self._agent}", self._calls.token(self._board))
                await self._shell.approach()
                self._shell.type_line(kind)
                await asyncio.sleep(1.0)  # for the line to be typed before the console is given back
        except ShellError as error:
            log.warning("board %s: could not be told to %s: %s", self._board, kind, error)
        finally:
            self._shell.end()
        self.gone = f"it was told to {kind}"


def _now() -> float:
    return asyncio.get_running_loop().time()
