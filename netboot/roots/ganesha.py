"""nfs-ganesha as a child of ours: one configuration file, written whole, then SIGHUP, on which it adds, updates and
removes exports. It is asked whether it answers, and started again when it does not or dies; boards wait and go on.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import re
import shutil
import signal
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from netboot.roots import nfs_checks
from netboot.roots.engine import Engine, Export, Finding, Trouble, say_nothing
from netboot.roots.errors import EngineError, RefusedExportError
from netboot.roots.ganesha_config import PACKAGES, PROGRAM, GaneshaSettings, numbered, plugins, render
from netboot.roots.nfs_ping import ping

log = logging.getLogger(__name__)

START_TIMEOUT_S = 30.0
APPLY_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 10.0
FIRST_BACK_OFF_S = 0.2
LAST_BACK_OFF_S = 10.0
HEALTHY_S = 60.0
LAST_LINES = 20
_READY = "NFS SERVER INITIALIZED"
_REREAD = "Reread exports complete"
_COMPLAINT = re.compile(r" :(CRIT|FATAL|MAJ) :(.*)")
_IDLE = re.compile(r"dbus|krb5|principal nfs|Cannot register NFS V4 on TCP", re.IGNORECASE)
"""It starts without D-Bus, Kerberos and rpcbind, which NFSv4 for named addresses does not need."""
_REFUSED = re.compile(r"Could not create export for \(/(\S+)\)")
PING_EVERY_S = 10.0
PINGS_IN_VAIN = 3
_OWN_EXPORT = re.compile(r"Export_Id = (\d+);.*?Pseudo = \"/([^\"]+)\";")


class Ganesha(Engine):
    """Runs ganesha and keeps it running: when it dies it is started again with the same exports, and boards go on."""

    def __init__(self, settings: GaneshaSettings, on_trouble: Trouble = say_nothing) -> None:
        self._settings = settings
        self._on_trouble = on_trouble
        self._troubled = False
        self._config = settings.folder / "ganesha.conf"
        self._exports: tuple[Export, ...] = ()
        self._numbers: dict[str, int] = {}
        self._lines: deque[str] = deque(maxlen=LAST_LINES)
        self._complaints: list[str] = []
        self._ready = asyncio.Event()
        self._reread = asyncio.Event()
        self._applying = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        """Its process id, None while it does not run."""
        return None if self._process is None or self._process.returncode is not None else self._process.pid

    async def start(self, exports: Sequence[Export] = ()) -> None:
        await asyncio.to_thread(self._prepare)
        self._exports = tuple(sorted(exports, key=lambda export: export.name))
        await self._write(self._exports)
        await self._spawn()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._until_ready()
        except TimeoutError as error:
            await self.stop()
            raise EngineError(f"{PROGRAM} does not come up in {START_TIMEOUT_S:g} s: {self._words()}") from error
        except EngineError:
            await self.stop()
            raise
        self._keeper = asyncio.get_running_loop().create_task(self._keep_running(), name="ganesha")

    async def apply(self, exports: Sequence[Export]) -> None:
        async with self._applying:
            wanted = tuple(sorted(exports, key=lambda export: export.name))
            await self._write(wanted)
            self._exports = wanted
            try:
                async with asyncio.timeout(APPLY_TIMEOUT_S):
                    await self._until_ready()
                    await self._hang_up()
            except TimeoutError as error:
                raise EngineError(f"{PROGRAM} does not take its exports: {self._words()}") from error
            if self._complaints:
                refused = _REFUSED.findall("\n".join(self._complaints))
                raise RefusedExportError(f"{PROGRAM} refuses an export: {'; '.join(self._complaints[:3])}", refused)

    async def stop(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def check(self) -> list[Finding]:
        return await asyncio.to_thread(self._check)

    def path_for_boards(self, export: Export) -> str:
        return f"/{export.name}"

    # --- the configuration ---

    def _prepare(self) -> None:
        if shutil.which(self._settings.program) is None:
            raise EngineError(f"{self._settings.program} is not installed: {PACKAGES}")
        try:
            (self._settings.folder / "recovery").mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._config.exists():
                # Boards that run from an export have its number in their file handles.
                found = _OWN_EXPORT.findall(self._config.read_text(encoding="utf-8"))
                self._numbers = {name: int(number) for number, name in found}
        except OSError as error:
            raise EngineError(f"{self._settings.folder}: cannot be used: {error.strerror}") from error

    async def _write(self, exports: Sequence[Export]) -> None:
        numbered(exports, self._numbers)
        text = render(exports, self._numbers, self._settings, plugins())
        await asyncio.to_thread(_replace, self._config, text)

    # --- the process ---

    async def _spawn(self) -> None:
        self._ready.clear()
        settings = self._settings
        try:
            self._process = await asyncio.create_subprocess_exec(
                settings.program, "-F", "-f", str(self._config), "-L", "STDERR",
                "-p", str(settings.folder / "ganesha.pid"), "-N", "NIV_EVENT",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                preexec_fn=_die_with_parent,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise EngineError(f"{settings.program} cannot be started: {error.strerror}; {PACKAGES}") from error
        self._reader = asyncio.get_running_loop().create_task(self._listen(self._process), name="ganesha log")

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        if process.stderr is None:
            return
        async for raw in process.stderr:
            line = raw.decode("utf-8", "replace").rstrip()
            self._lines.append(line)
            found = _COMPLAINT.search(line)
            if found is not None and _IDLE.search(line) is None:
                log.warning("%s: %s", PROGRAM, found[2].strip(" :"))
                self._complaints.append(found[2].strip(" :"))
            elif _READY in line:
                self._ready.set()
                self._tell(None)
            elif _REREAD in line:
                self._reread.set()

    async def _until_ready(self) -> None:
        ready = asyncio.create_task(self._ready.wait(), name="ganesha ready")
        try:
            await asyncio.wait({ready, self._reader}, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done() and self._keeper is not None:
                await ready  # it died and is being started again
            elif not ready.done():
                port = self._settings.port
                raise EngineError(f"{PROGRAM} ended at once: {self._words()}; is port {port} another NFS server's?")
        finally:
            ready.cancel()

    async def _hang_up(self) -> None:
        self._reread.clear()
        self._complaints.clear()
        process = self._process
        if process is None or process.returncode is not None:
            raise EngineError(f"{PROGRAM} does not run: {self._words()}")
        process.send_signal(signal.SIGHUP)
        await self._reread.wait()

    async def _keep_running(self) -> None:
        back_off_s = FIRST_BACK_OFF_S
        while True:
            began = time.monotonic()
            process = self._process
            if process is not None:
                code = await self._ended(process)
                await self._reader
                self._ready.clear()
                log.error("%s ended with %d and is started again: %s", PROGRAM, code, self._words())
                self._tell(f"{PROGRAM} ended with {code} and is being started again: {self._words()}")
            if time.monotonic() - began > HEALTHY_S:
                back_off_s = FIRST_BACK_OFF_S
            await asyncio.sleep(back_off_s)
            back_off_s = min(2 * back_off_s, LAST_BACK_OFF_S)
            self.restarts += 1
            try:
                await self._spawn()
            except EngineError:
                log.exception("%s cannot be started again", PROGRAM)
                self._process = None

    async def _ended(self, process: asyncio.subprocess.Process) -> int:
        """Its exit code, when it has one: because it died, or does not answer any more."""
        waiting = asyncio.create_task(process.wait(), name="ganesha's end")
        in_vain = 0
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=PING_EVERY_S)
                if waiting.done() or self._settings.listens is None or not self._ready.is_set():
                    continue
                try:
                    await ping(*self._settings.listens)
                    in_vain = 0
                except EngineError as error:
                    in_vain += 1
                    log.warning("%s: %s", PROGRAM, error)
                if in_vain == PINGS_IN_VAIN:
                    process.kill()
            return waiting.result()
        finally:
            waiting.cancel()

    def _tell(self, trouble: str | None) -> None:
        if trouble is not None or self._troubled:
            self._troubled = trouble is not None
            self._on_trouble(trouble)

    def _words(self) -> str:
        telling = self._complaints[-2:] or [line.rpartition(" :")[2] for line in list(self._lines)[-2:]]
        return "; ".join(telling) or "it said nothing"

    # --- the doctor ---

    def _check(self) -> list[Finding]:
        running = self.pid is not None and self._ready.is_set()
        advice = "" if running else f"see the agent's log; is port {self._settings.port} taken by another NFS server?"
        return [
            *nfs_checks.ganesha_installed(self._settings.program, v3=self._settings.v3),
            *nfs_checks.capabilities(),
            nfs_checks.kernel(),
            Finding(running, f"{PROGRAM} {'runs' if running else 'does not run'}", advice),
        ]


def _replace(path: Path, text: str) -> None:
    descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(fresh).replace(path)
    except OSError as error:
        raise EngineError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(fresh).unlink()


_libc = ctypes.CDLL(None)


def _die_with_parent() -> None:
    _libc.prctl(1, signal.SIGTERM, 0, 0, 0)  # PR_SET_PDEATHSIG
