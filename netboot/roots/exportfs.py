"""The kernel's own NFS server, told by exportfs(8): one call per export that comes or goes, nothing in /etc/exports."""

import asyncio
import json
import shutil
import uuid
from collections.abc import Sequence
from ipaddress import IPv6Address
from pathlib import Path

from netboot.roots import nfs_checks
from netboot.roots.engine import Engine, Export, Finding, Trouble, say_nothing
from netboot.roots.errors import EngineError, RefusedExportError
from netboot.roots.nfs_ping import Watch
from netboot.roots.program import Runner, run_program

PROGRAM = "exportfs"
PACKAGE = "apt-get install --no-install-recommends nfs-kernel-server"
_UNSURE = ""
_FSIDS = uuid.UUID("1f0a9e51-5a0c-4b53-9a52-6e2c9a6f5c0d")
_THREADS = Path("/proc/fs/nfsd/threads")


def options(export: Export) -> str:
    """The options of exports(5). `fsid`: an overlay has no device of its own by which the kernel could name it."""
    access = "rw" if export.writable else "ro"
    fsid = uuid.uuid5(_FSIDS, export.name)
    return f"{access},sync,no_subtree_check,no_root_squash,sec=sys,fsid={fsid}"


def places(export: Export) -> list[str]:
    """`CLIENT:PATH` for each client; an IPv6 address stands in brackets."""
    return [f"{f'[{c}]' if isinstance(c, IPv6Address) else c}:{export.path}" for c in export.clients]


class Exportfs(Engine):
    """Exports by the kernel. `folder` keeps what we have exported, so that a killed agent's exports can go."""

    def __init__(
        self,
        folder: Path,
        runner: Runner = run_program,
        *,
        threads: Path = _THREADS,
        listens: tuple[str, int] | None = None,
        on_trouble: Trouble = say_nothing,
    ) -> None:
        self._watch = Watch(listens, on_trouble)
        self._record = folder / "exported.json"
        self._runner = runner
        self._threads = threads
        self._now: dict[str, str] = {}
        self._applying = asyncio.Lock()
        self._last = ""

    async def start(self, exports: Sequence[Export] = ()) -> None:
        """As `Engine.start`. What an agent before us has exported goes, unless it is wanted again."""
        self._now = await asyncio.to_thread(self._read)
        for place in self._now:
            self._now[place] = _UNSURE  # after the host's restart nothing of it is exported: all is told again
        await self.apply(exports)
        self._watch.start()

    async def apply(self, exports: Sequence[Export]) -> None:
        async with self._applying:
            wanted = {place: options(export) for export in exports for place in places(export)}
            # What goes is taken back first: a client must never have two boards' views.
            for place in [place for place, how in self._now.items() if not self._may_stay(how, wanted.get(place))]:
                await self._call(PROGRAM, "-u", place)
                del self._now[place]
                await self._store()
            refused = [export.name for export in exports if not await self._export(export)]
            if refused:
                raise RefusedExportError(f"{PROGRAM} refuses {', '.join(refused)}: {self._last}", refused)

    async def stop(self) -> None:
        """Watch it no more; the kernel goes on, and so do boards that run from it."""
        await self._watch.stop()

    async def check(self) -> list[Finding]:
        return await asyncio.to_thread(self._check)

    def path_for_boards(self, export: Export) -> str:
        return str(export.path)

    @staticmethod
    def _may_stay(how: str, wanted: str | None) -> bool:
        """Whether an export need not go first. One of an agent before us is told again over itself: a board runs."""
        return wanted is not None and how in {wanted, _UNSURE}

    async def _export(self, export: Export) -> bool:
        for place in places(export):
            if self._now.get(place) == options(export):
                continue
            try:
                await self._call(PROGRAM, "-o", options(export), place)
            except EngineError as error:
                self._last = str(error)
                return False
            self._now[place] = options(export)
            await self._store()
        return True

    async def _call(self, *command: str) -> None:
        code, said = await self._runner(command)
        gone = "Could not find" in said and "-u" in command  # after a reboot nothing is exported any more
        if code and not gone:
            raise EngineError(f"{' '.join(command)}: {said or f'ended with {code}'}")

    async def _store(self) -> None:
        await asyncio.to_thread(self._write, json.dumps(self._now))

    def _write(self, text: str) -> None:
        fresh = self._record.with_suffix(".new")
        try:
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(self._record)
        except OSError as error:
            raise EngineError(f"{self._record}: cannot be written: {error.strerror}") from error

    def _read(self) -> dict[str, str]:
        try:
            self._record.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = json.loads(self._record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise EngineError(f"{self._record}: cannot be read ({error}); run 'exportfs -au' and delete it") from error
        return {str(place): str(how) for place, how in found.items()}

    def _check(self) -> list[Finding]:
        installed = shutil.which(PROGRAM) is not None
        try:
            running = int(self._threads.read_text(encoding="ascii")) > 0
        except (OSError, ValueError):
            running = False
        return [
            Finding(installed, f"{PROGRAM} is {'' if installed else 'not '}installed", "" if installed else PACKAGE),
            Finding(
                running,
                f"the kernel's NFS server {'runs' if running else 'does not run'}",
                "" if running else "systemctl enable --now nfs-server; in a container it cannot run: use ganesha",
            ),
            *nfs_checks.capabilities(),
            nfs_checks.kernel(),
            nfs_checks.same_mounts(),
        ]
