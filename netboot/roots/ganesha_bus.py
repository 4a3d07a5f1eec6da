"""nfs-ganesha as a service that somebody else starts: told by D-Bus, and by a file for when it is started again.

`/etc/ganesha/ganesha.conf` has to `%include` that file, `exports.conf` in our folder. AddExport, RemoveExport and
UpdateExport answer at once with what is wrong; SIGHUP would only log it (ganesha's wiki, Dbusinterface).
"""

import asyncio
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from netboot.roots import nfs_checks
from netboot.roots.engine import Engine, Export, Finding, Trouble, say_nothing
from netboot.roots.errors import EngineError, RefusedExportError
from netboot.roots.ganesha_config import PROGRAM, block, numbered
from netboot.roots.nfs_ping import Watch, ping
from netboot.roots.program import Runner, run_program

_SEND = ("dbus-send", "--system", "--print-reply", "--reply-timeout=15000", "--dest=org.ganesha.nfsd",
         "/org/ganesha/nfsd/ExportMgr")  # fmt: skip
_MANAGER = "org.ganesha.nfsd.exportmgr"
_UNSURE = ""
_PACKAGE = "apt-get install --no-install-recommends dbus"


class GaneshaBus(Engine):
    """Exports by a ganesha that runs already. `folder` keeps what we have exported, over our restarts."""

    def __init__(
        self,
        folder: Path,
        runner: Runner = run_program,
        *,
        v3: bool = False,
        listens: tuple[str, int] | None = None,
        on_trouble: Trouble = say_nothing,
    ) -> None:
        self._folder = folder
        self._record = folder / "exported.json"
        self._runner = runner
        self._v3 = v3
        self._listens = listens
        self._watch = Watch(listens, on_trouble)
        self._numbers: dict[str, int] = {}
        self._now: dict[str, str] = {}
        """What it exports, by name: the block."""
        self._applying = asyncio.Lock()

    async def start(self, exports: Sequence[Export] = ()) -> None:
        await asyncio.to_thread(self._read)
        if self._listens is not None:
            await ping(*self._listens)
        for name in self._now:
            self._now[name] = _UNSURE  # whether it still has them, nobody knows: all is told again
        await self.apply(exports)
        self._watch.start()

    async def apply(self, exports: Sequence[Export]) -> None:
        async with self._applying:
            numbered(exports, self._numbers)
            wanted = {export.name: block(export, self._numbers[export.name], v3=self._v3) for export in exports}
            await asyncio.to_thread(self._write, wanted)
            for name in [name for name in self._now if name not in wanted]:
                await self._remove(name)
            refused, words = [], ""
            for name, text in wanted.items():
                try:
                    await self._tell(name, text)
                except EngineError as error:
                    refused.append(name)
                    words = str(error)
            for name in refused:
                self._now.pop(name, None)
            await asyncio.to_thread(self._write, {name: wanted[name] for name in wanted if name not in refused})
            if refused:
                raise RefusedExportError(f"{PROGRAM} refuses {', '.join(refused)}: {words}", refused)

    async def stop(self) -> None:
        """Watch it no more; it goes on, and so do boards that run from it."""
        await self._watch.stop()

    async def check(self) -> list[Finding]:
        there = await asyncio.to_thread(shutil.which, _SEND[0]) is not None
        found = [Finding(there, f"{_SEND[0]} is {'' if there else 'not '}installed", "" if there else _PACKAGE)]
        found += await asyncio.to_thread(nfs_checks.capabilities)
        found.append(await asyncio.to_thread(nfs_checks.kernel))
        try:
            await self._call("ShowExports")
            found.append(Finding(True, f"{PROGRAM} answers on D-Bus"))
        except EngineError as error:
            found.append(Finding(False, f"{PROGRAM} does not answer on D-Bus: {error}", "systemctl start nfs-ganesha"))
        return found

    def path_for_boards(self, export: Export) -> str:
        return str(export.path) if self._v3 else f"/{export.name}"

    async def _tell(self, name: str, text: str) -> None:
        if self._now.get(name) == text:
            return
        config, which = f"string:{self._config}", f"string:EXPORT(Export_Id={self._numbers[name]})"
        known = self._now.get(name)
        if known == _UNSURE and await self._updated(config, which):
            self._now[name] = text
            return
        if known:
            await self._remove(name)  # its folder may be another one now, and that no update changes
        await self._call("AddExport", config, which)
        self._now[name] = text

    async def _updated(self, config: str, which: str) -> bool:
        """Whether it had this export: a board that runs from it must not find it gone for a moment."""
        try:
            await self._call("UpdateExport", config, which)
        except EngineError:
            return False
        return True

    async def _remove(self, name: str) -> None:
        try:
            await self._call("RemoveExport", f"uint16:{self._numbers[name]}")
        except EngineError as error:
            if "Export id not found" not in str(error) and "lookup_export failed" not in str(error):
                raise
        self._now.pop(name, None)

    async def _call(self, method: str, *arguments: str) -> None:
        interface = f"{_MANAGER}.{method}"
        code, said = await self._runner((*_SEND, interface, *arguments))
        if code:
            raise EngineError(f"{method} {' '.join(arguments)}: {said or f'ended with {code}'}")

    @property
    def _config(self) -> Path:
        return self._folder / "exports.conf"

    def _write(self, wanted: dict[str, str]) -> None:
        record = {name: self._numbers[name] for name in {*wanted, *self._now}}
        lines = ["# Written by boardhand; changes are lost.", *wanted.values()]
        for path, text in ((self._config, "\n".join(lines) + "\n"), (self._record, json.dumps(record))):
            fresh = path.with_suffix(".new")
            try:
                fresh.write_text(text, encoding="utf-8")
                fresh.replace(path)
            except OSError as error:
                raise EngineError(f"{path}: cannot be written: {error.strerror}") from error

    def _read(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = json.loads(self._record.read_text(encoding="utf-8"))
            self._numbers = {str(name): int(number) for name, number in found.items()}
        except FileNotFoundError:
            return
        except (OSError, ValueError, AttributeError, TypeError) as error:
            raise EngineError(f"{self._record}: cannot be read ({error}); delete it, restart {PROGRAM}") from error
        self._now = dict.fromkeys(self._numbers, _UNSURE)
