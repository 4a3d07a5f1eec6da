"""What is exported to whom, and has the engine told of it: once for all who change it at one moment."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from netboot.roots.engine import Engine, Export
from netboot.roots.errors import EngineError, RefusedExportError


class ExportBook:
    """The exports of all boards. One export may be several boards': each brings its address."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._wanted: dict[str, tuple[Export, ...]] = {}
        self._telling = asyncio.Lock()
        self._asked = 0
        self._told = 0
        self._failed: EngineError | None = None

    def owns(self, board: str) -> bool:
        """Whether the board has any."""
        return bool(self._wanted.get(board))

    async def start(self, wanted: dict[str, tuple[Export, ...]]) -> None:
        """Start the engine with these.

        Raises:
            EngineError: it does not come up; the exports are remembered.
        """
        self._wanted = dict(wanted)
        await self._engine.start(merged(self._wanted))

    async def put(self, board: str, exports: Sequence[Export]) -> None:
        """Have a board's exports replaced; on return they can be mounted, and its old ones cannot.

        Raises:
            EngineError: the engine refuses one of the board's, or does not answer; the board then has none.
        """
        before = self._wanted.pop(board, ())
        if exports:
            self._wanted[board] = tuple(exports)
        elif not before:
            return
        self._asked += 1
        number = self._asked
        async with self._telling:
            if self._told < number:
                await self._tell()
            failed = self._failed
        if failed is not None and _concerns(failed, exports):
            self._wanted.pop(board, None)
            raise failed

    async def _tell(self) -> None:
        number = self._asked
        self._failed = None
        try:
            await self._engine.apply(merged(self._wanted))
        except EngineError as error:
            self._failed = error
        self._told = number


def _concerns(error: EngineError, exports: Sequence[Export]) -> bool:
    if not isinstance(error, RefusedExportError) or not error.names:
        return True
    return any(export.name in error.names for export in exports)


def merged(wanted: dict[str, tuple[Export, ...]]) -> list[Export]:
    """One export for each name, for all who want it."""
    found: dict[str, Export] = {}
    for exports in wanted.values():
        for export in exports:
            known = found.get(export.name)
            if known is None:
                found[export.name] = export
            else:
                clients = tuple(sorted({*known.clients, *export.clients}, key=lambda a: (a.version, int(a))))
                found[export.name] = replace(known, clients=clients)
    return [found[name] for name in sorted(found)]
