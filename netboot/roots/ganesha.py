"""nfs-ganesha as a child of ours: one configuration file, written whole, then SIGHUP. NFSv4 over TCP, no rpcbind.

`Access_Type = NONE` on the export and a CLIENT block per export: with RO on the export, ganesha 4.3 lets any address
mount it over v4, whatever its CLIENT blocks say. On SIGHUP it adds, updates and removes exports.
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
from dataclasses import dataclass
from pathlib import Path

from netboot.roots.engine import MAX_EXPORTS, Engine, Export, Finding, overlay_is_exportable
from netboot.roots.errors import EngineError

log = logging.getLogger(__name__)

PROGRAM = "ganesha.nfsd"
PACKAGES = "apt-get install --no-install-recommends nfs-ganesha nfs-ganesha-vfs"
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
_OWN_EXPORT = re.compile(r"Export_Id = (\d+);.*?Pseudo = \"/([^\"]+)\";")
_PLUGIN_PLACES = ("/usr/lib/*/ganesha", "/usr/lib64/ganesha", "/usr/lib/ganesha")


@dataclass(frozen=True, slots=True)
class GaneshaSettings:
    """`folder` is ours: configuration, process id and what it needs to recover. `lease_s` is NFSv4's: how long a board
    that vanished keeps its locks, and half of how long one waits after a restart of the server."""

    folder: Path
    port: int = 2049
    lease_s: int = 10
    program: str = PROGRAM


def render(exports: Sequence[Export], numbers: dict[str, int], settings: GaneshaSettings, plugins: Path | None) -> str:
    """The configuration. Pure: the same input gives the same text (ganesha-config(8), ganesha-export-config(8))."""
    plugins_line = f' Plugins_Dir = "{plugins}";' if plugins is not None else ""
    core = (
        f"Protocols = 4; NFS_Port = {settings.port}; Enable_NLM = false; Enable_RQUOTA = false; Enable_UDP = false;"
        f"{plugins_line}"
    )
    # Graceless: a board that comes up must not wait for boards that were there before us.
    v4 = (
        f"Graceless = true; Grace_Period = {settings.lease_s}; Lease_Lifetime = {settings.lease_s}; "
        f'Minor_Versions = 1,2; RecoveryBackend = fs; RecoveryRoot = "{settings.folder}/recovery"; '
        "Only_Numeric_Owners = true;"
    )
    lines = ["# Written by boardhand; changes are lost.", f"NFS_CORE_PARAM {{ {core} }}", f"NFSv4 {{ {v4} }}"]
    for export in exports:
        number = numbers[export.name]
        access = "RW" if export.writable else "RO"
        clients = ", ".join(str(client) for client in export.clients)
        lines.append(
            f'EXPORT {{ Export_Id = {number}; Path = "{export.path}"; Pseudo = "/{export.name}"; Access_Type = NONE; '
            f"Squash = No_Root_Squash; SecType = sys; Protocols = 4; Transports = TCP; Filesystem_Id = 7007.{number}; "
            f"FSAL {{ Name = VFS; }} CLIENT {{ Clients = {clients}; Access_Type = {access}; Protocols = 4; }} }}"
        )
    return "\n".join(lines) + "\n"


class Ganesha(Engine):
    """Runs ganesha and keeps it running: when it dies it is started again with the same exports, and boards go on."""

    def __init__(self, settings: GaneshaSettings) -> None:
        self._settings = settings
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

    async def start(self) -> None:
        await asyncio.to_thread(self._prepare)
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
                raise EngineError(f"{PROGRAM} refuses an export: {'; '.join(self._complaints[:3])}")

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
        names = [export.name for export in exports]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None or len(names) > MAX_EXPORTS:
            raise EngineError(f"export {twice} stands twice" if twice else f"more than {MAX_EXPORTS} exports")
        taken = set(self._numbers.values())
        free = (number for number in range(1, MAX_EXPORTS + len(names)) if number not in taken)
        for name in names:
            if name not in self._numbers:
                self._numbers[name] = next(free)
        text = render(exports, self._numbers, self._settings, _plugins())
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
            if found is not None:
                log.warning("%s: %s", PROGRAM, found[2].strip(" :"))
                self._complaints.append(found[2].strip(" :"))
            elif _READY in line:
                self._ready.set()
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
                code = await process.wait()
                await self._reader
                self._ready.clear()
                log.error("%s ended with %d and is started again: %s", PROGRAM, code, self._words())
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

    def _words(self) -> str:
        telling = self._complaints[-2:] or [line.rpartition(" :")[2] for line in list(self._lines)[-2:]]
        return "; ".join(telling) or "it said nothing"

    # --- the doctor ---

    def _check(self) -> list[Finding]:
        installed = shutil.which(self._settings.program) is not None
        vfs = _plugins()
        findings = [
            Finding(installed, f"{PROGRAM} is {'' if installed else 'not '}installed", "" if installed else PACKAGES),
            Finding(vfs is not None, "ganesha can export local folders", "")
            if vfs is not None
            else Finding(False, "ganesha cannot export local folders", PACKAGES),
            kernel_finding(),
        ]
        running = self.pid is not None and self._ready.is_set()
        advice = "" if running else f"see the agent's log; is port {self._settings.port} taken by another NFS server?"
        findings.append(Finding(running, f"{PROGRAM} {'runs' if running else 'does not run'}", advice))
        return findings


def kernel_finding() -> Finding:
    """Whether overlays of the running kernel can be exported."""
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    version = (int(numbers[1]), int(numbers[2])) if numbers is not None else (0, 0)
    known = b"CONFIG_OVERLAY_FS=" if b"\toverlay\n" in Path("/proc/filesystems").read_bytes() else None
    return overlay_is_exportable(known, version)


def _plugins() -> Path | None:
    """The folder with ganesha's back ends. Debian's is not where its binary looks."""
    for place in _PLUGIN_PLACES:
        for folder in Path("/").glob(place.lstrip("/")):
            if any(folder.glob("libfsalvfs.so*")):
                return folder
    return None


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
