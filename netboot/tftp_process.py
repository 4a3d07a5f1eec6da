"""The TFTP worker as seen by its parent: starts it, answers its questions, starts it again when it dies.

The worker gets its settings and answers through pipes and inherits nothing else: no sockets, no environment, no
terminal. It ends when its stdin closes, so it cannot outlive us.
"""

import asyncio
import base64
import contextlib
import json
import logging
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from netboot.errors import NetbootStartError
from netboot.tftp_limits import NO_LIMITS, Limits
from netboot.tftp_packet import MAX_BLOCK_NUMBER

log = logging.getLogger(__name__)

START_TIMEOUT_S = 15.0  # a cold Python on a loaded host
STOP_TIMEOUT_S = 3.0
MIN_BACKOFF_S = 0.1
MAX_BACKOFF_S = 5.0
STEADY_S = 30.0  # a worker that lived so long starts again without delay
_LINE_LIMIT_BYTES = 1 << 20
MAX_WARNED = 256  # files and clients; each is warned of once

Line = dict[str, Any]


class TftpStartError(NetbootStartError):
    """The worker could not be started or could not serve its port; the message names it."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """What a worker is told. `interface` None: all of them. `mtu_bytes` caps the route's MTU, because a jumbo frame
    host may have boards on a 1500 segment.

    `address6` is served beside `address`, on the same port; a link-local one bears its interface (`fe80::1%eth1`).
    `max_transfers` and `max_per_client` count transfers of one worker; what goes beyond waits, or is asked again.
    `requests_per_s` is for each client, 0 for no limit. `cache_bytes` bounds the packets of one worker that no transfer
    is just sending. `workers` None: one for two cores, at most four; they share the port (SO_REUSEPORT), and the
    kernel gives every client to one of them. `pump`: `auto` is the compiled one where it is, else `python`; `native`
    fails without it."""

    address: str
    port: int
    interface: str | None = None
    mtu_bytes: int = 1500
    max_window: int = 16
    max_transfers: int = 256
    max_per_client: int = 8
    address6: str | None = None
    requests_per_s: int = 100
    cache_bytes: int = 128 << 20
    workers: int | None = 1
    shared_port: bool = False
    pump: str = "auto"
    claim_port: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A client wants a file."""

    number: int
    client: str
    port: int
    path: str


@dataclass(frozen=True, slots=True)
class SendFile:
    """Send this file; links in it are followed only below `root`, which is its own folder where it is None."""

    path: Path
    limits: Limits = NO_LIMITS
    root: Path | None = None


@dataclass(frozen=True, slots=True)
class SendBytes:
    """Send these octets."""

    data: bytes
    limits: Limits = NO_LIMITS


@dataclass(frozen=True, slots=True)
class SendError:
    """Refuse, with a TFTP error code (RFC 1350 appendix: 1 not found, 2 access violation)."""

    code: int
    message: str


Answer = SendFile | SendBytes | SendError


@dataclass(frozen=True, slots=True)
class Done:
    """An answered question has ended. `begun` is false when nothing was sent."""

    number: int
    ok: bool
    begun: bool
    size_bytes: int
    seconds: float
    reason: str
    resent: int = 0
    """Packets that were sent again."""


@dataclass(frozen=True, slots=True)
class WorkerRefusal:
    """The worker refused by itself, without a question: a write request, an unknown mode."""

    client: str
    path: str
    reason: str


def _answer_line(number: int, answer: Answer) -> Line:
    match answer:
        case SendFile(path, limits, root=root):
            folder = root or path.parent
            name = str(path.relative_to(folder))
            return {"answer": number, "root": str(folder), "file": name, **_limit_keys(limits)}
        case SendBytes(data, limits):
            return {"answer": number, "data": base64.b64encode(data).decode(), **_limit_keys(limits)}
        case SendError(code, message):
            return {"answer": number, "error": code, "message": message}


def _limit_keys(limits: Limits) -> Line:
    keys = {
        "max_window": limits.max_window,
        "max_block": limits.max_block_bytes,
        "rollover": -1 if limits.rollover is None else limits.rollover or None,
        "requests_per_s": limits.requests_per_s,
    }
    return {key: value for key, value in keys.items() if value is not None}


def worker_command() -> tuple[list[str], dict[str, str]]:
    """Arguments and environment of the worker: no site packages, and our own copy of the package."""
    home = str(Path(__file__).resolve().parent.parent)
    return [sys.executable, "-P", "-S", "-m", "netboot.tftp_worker"], {"PYTHONPATH": home}


class TftpProcess:
    """Keeps one worker alive from `start` to `stop`.

    `answer` is awaited for each question, several at a time. `on_done` is called for each answered one and
    `on_refusal` for what the worker refused; both run in the event loop and must not block. `lane` tells the questions
    of several workers apart.
    """

    def __init__(
        self,
        config: WorkerConfig,
        *,
        answer: Callable[[Question], Awaitable[Answer]],
        on_done: Callable[[Done], None],
        on_refusal: Callable[[WorkerRefusal], None],
        lane: int = 0,
    ) -> None:
        self._config = config
        self._answer = answer
        self._on_done = on_done
        self._on_refusal = on_refusal
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[int] | None = None
        self._answering: set[asyncio.Task[None]] = set()
        self._open: set[int] = set()
        self._lane = lane
        self._warned: set[tuple[str, str]] = set()
        self._stopping = False
        self._base: Counter[str] = Counter()
        self._current: Counter[str] = Counter()
        self.restarts = 0
        self.pump = ""
        self.pid: int | None = None

    @property
    def counters(self) -> Counter[str]:
        """What the workers counted, over all restarts."""
        return self._base + self._current

    async def start(self) -> int:
        """Start the worker; returns the port it serves (of use when the settings say 0).

        Raises:
            TftpStartError: it did not come up.
        """
        self._stopping = False
        self._ready = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._supervise(), name="netboot-tftp-worker")
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                return await asyncio.shield(self._ready)
        except TimeoutError:
            await self.stop()
            raise TftpStartError(f"the TFTP worker did not come up within {START_TIMEOUT_S:.0f} s") from None
        except TftpStartError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """End the worker and wait for it. May be called twice."""
        self._stopping = True
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        for answering in list(self._answering):
            answering.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    async def _supervise(self) -> None:
        delay_s = MIN_BACKOFF_S
        while not self._stopping:
            began = time.monotonic()
            problem = await self._run_once()
            if self._ready is not None and not self._ready.done():
                self._ready.set_exception(TftpStartError(problem))
                return
            delay_s = MIN_BACKOFF_S if time.monotonic() - began > STEADY_S else min(2 * delay_s, MAX_BACKOFF_S)
            self.restarts += 1
            log.error("%s; starting it again in %.1f s", problem, delay_s)
            await asyncio.sleep(delay_s)

    async def _run_once(self) -> str:
        """One worker from start to end; returns why it ended."""
        command, environment = worker_command()
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                cwd="/",
                start_new_session=True,  # Ctrl-C is for us; the worker ends when we do
                limit=_LINE_LIMIT_BYTES,
            )
        except OSError as error:
            return f"the TFTP worker cannot be started: {error}"
        self.pid = process.pid
        errors = asyncio.create_task(self._log_errors(process), name="netboot-tftp-stderr")
        try:
            return await self._converse(process)
        finally:
            self.pid = None
            await self._end(process)
            await errors
            for answering in self._answering:
                answering.cancel()  # nobody is left to take the answers
            self._base, self._current = self.counters, Counter()
            self._fail_open()

    async def _converse(self, process: asyncio.subprocess.Process) -> str:
        stdin, stdout = process.stdin, process.stdout
        if stdin is None or stdout is None:
            return "the TFTP worker has no pipes"
        config = replace(self._config, claim_port=self._config.claim_port and not self.restarts)
        stdin.write(json.dumps({"config": asdict(config), "first": self._first_number()}).encode() + b"\n")
        problem = ""
        with contextlib.suppress(ConnectionError):  # a worker that died is seen below, at the end of its stdout
            await stdin.drain()
        while True:
            try:
                line = await stdout.readline()
                if not line:
                    break
                message = json.loads(line)
                if "fatal" in message:
                    problem = str(message["fatal"])
                else:
                    self._take(message, stdin)
            except (ValueError, KeyError, TypeError) as error:
                return f"the TFTP worker wrote something that we cannot read: {error!r}"
        code = await process.wait()
        return problem or f"the TFTP worker ended with exit code {code}"

    def _first_number(self) -> int:
        """Where a worker's questions begin: far from those of the one before it, and of others."""
        return 1 + (self.restarts << 32) + (self._lane << 56)

    def _take(self, message: Line, stdin: asyncio.StreamWriter) -> None:
        if not isinstance(message, dict):
            raise TypeError("no JSON object")
        if "ask" in message:
            question = Question(message["ask"], message["client"], message["port"], message["path"])
            self._open.add(question.number)
            self._keep(self._reply(question, stdin))
        elif "done" in message:
            self._current = Counter(message.get("counters") or self._current)
            self._open.discard(message["done"])
            self._on_done(
                Done(
                    number=message["done"],
                    ok=bool(message.get("ok")),
                    begun=bool(message.get("begun")),
                    size_bytes=int(message.get("bytes", 0)),
                    seconds=float(message.get("seconds", 0.0)),
                    reason=str(message.get("why", "")),
                    resent=int(message.get("resent", 0)),
                )
            )
        elif "refused" in message:
            self._on_refusal(WorkerRefusal(message["client"], message["path"], message["refused"]))
        elif "too_long" in message:
            self._warn_too_long(message["client"], message["path"], int(message["too_long"]), int(message["block"]))
        elif "ready" in message and self._ready is not None and not self._ready.done():
            port = int(message["ready"])
            self.pump = str(message.get("pump", ""))
            why = str(message.get("pump_why", ""))
            log.info("TFTP port %d, pump: %s%s", port, self.pump, f" ({why})" if why else "")
            self._config = replace(self._config, port=port)  # a restart serves the port that clients know
            self._ready.set_result(port)

    def _warn_too_long(self, client: str, path: str, blocks: int, block_bytes: int) -> None:
        if len(self._warned) < MAX_WARNED and (client, path) not in self._warned:
            self._warned.add((client, path))
            log.warning(
                "TFTP: %s to %s needs %d blocks of %d octets, and this board counts no further than %d: it will stop"
                " there; make the file smaller, ask for larger blocks, or start it by a boot loader that can",
                path, client, blocks, block_bytes, MAX_BLOCK_NUMBER,
            )  # fmt: skip

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="netboot-tftp-answer")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _reply(self, question: Question, stdin: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answer(question)
        except Exception:  # whatever our owner did wrong, the client must hear something and others go on
            log.exception("cannot decide on %s for %s", question.path, question.client)
            answer = SendError(0, "internal error, try again")
        if stdin.is_closing():
            return
        stdin.write(json.dumps(_answer_line(question.number, answer)).encode() + b"\n")
        with contextlib.suppress(ConnectionError):  # the worker died: its restart is under way, the client asks again
            await stdin.drain()

    def _fail_open(self) -> None:
        for number in sorted(self._open):
            self._on_done(Done(number, ok=False, begun=True, size_bytes=0, seconds=0.0, reason="the TFTP worker ended"))
        self._open.clear()

    @staticmethod
    async def _log_errors(process: asyncio.subprocess.Process) -> None:
        if process.stderr is None:
            return
        while line := await process.stderr.readline():
            log.error("TFTP worker: %s", line.decode("utf-8", "replace").rstrip())

    @staticmethod
    async def _end(process: asyncio.subprocess.Process) -> None:
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
