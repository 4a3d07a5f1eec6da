"""The kernel's own NFS server, told by exportfs(8): one call per export that comes or goes, nothing in /etc/exports."""

import asyncio
import json
import os
import shutil
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import IPv6Address
from pathlib import Path

from netboot.roots.engine import Engine, Export, Finding
from netboot.roots.errors import EngineError
from netboot.roots.ganesha import kernel_finding

PROGRAM = "exportfs"
PACKAGE = "apt-get install --no-install-recommends nfs-kernel-server"
CALL_TIMEOUT_S = 20.0
_FSIDS = uuid.UUID("1f0a9e51-5a0c-4b53-9a52-6e2c9a6f5c0d")
_THREADS = Path("/proc/fs/nfsd/threads")

Runner = Callable[[Sequence[str]], Awaitable[tuple[int, str]]]
"""Runs a program without a shell; gives its exit code and what it said on standard error."""


async def run_program(command: Sequence[str]) -> tuple[int, str]:
    """The real `Runner`.

    Raises:
        EngineError: the program is missing or takes over 20 s.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},
        )
    except OSError as error:
        raise EngineError(f"{command[0]} cannot be started: {error.strerror}; {PACKAGE}") from error
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            _, said = await process.communicate()
    except TimeoutError as error:
        process.kill()
        await process.wait()
        raise EngineError(f"{' '.join(command)} takes over {CALL_TIMEOUT_S:g} s") from error
    return process.returncode or 0, said.decode("utf-8", "replace").strip()


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

    def __init__(self, folder: Path, runner: Runner = run_program, *, threads: Path = _THREADS) -> None:
        self._record = folder / "exported.json"
        self._runner = runner
        self._threads = threads
        self._now: dict[str, str] = {}
        self._applying = asyncio.Lock()

    async def start(self) -> None:
        """As `Engine.start`. What an agent that was killed has exported stays for boards that run, until `apply`."""
        self._now = await asyncio.to_thread(self._read)

    async def apply(self, exports: Sequence[Export]) -> None:
        async with self._applying:
            wanted = {place: options(export) for export in exports for place in places(export)}
            # What goes is taken back first: a client must never have two boards' views.
            for place in [place for place in self._now if wanted.get(place) != self._now[place]]:
                await self._call(PROGRAM, "-u", place)
                del self._now[place]
                await self._store()
            for place, how in wanted.items():
                if place not in self._now:
                    await self._call(PROGRAM, "-o", how, place)
                    self._now[place] = how
                    await self._store()

    async def stop(self) -> None:
        with suppress(EngineError):  # what cannot be taken back now is taken back at the next start
            await self.apply(())

    async def check(self) -> list[Finding]:
        return await asyncio.to_thread(self._check)

    def path_for_boards(self, export: Export) -> str:
        return str(export.path)

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
            kernel_finding(),
        ]
