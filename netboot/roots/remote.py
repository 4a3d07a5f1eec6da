"""Imports from a URL: what is fetched is whole and checked before anything of it is read."""

import asyncio
from pathlib import Path

from netboot.fetch_download import FetchLimits, checked_url, shown
from netboot.fetch_errors import FetchChecksumError, FetchError, FetchNoRoomError, FetchTooLargeError
from netboot.file_cache import FileCache
from netboot.roots.errors import SourceError, StoreFullError
from netboot.roots.import_errors import ChecksumError, SourceTooLargeError
from netboot.roots.importing import FETCHED, ImportOptions, RootImport, say_nothing
from netboot.roots.store import Progress, RootInfo, RootStore

TOTAL_S = 6 * 3600.0
"""For a large image over a slow line; that nothing comes at all is noticed much earlier."""


def is_url(source: str) -> bool:
    """Whether a source is to be fetched, and not a path."""
    return source.startswith(("http://", "https://"))


def import_url(
    store: RootStore, options: ImportOptions, name: str, url: str, progress: Progress = say_nothing
) -> RootInfo:
    """Fetch `url` and import it as the root `name`. What was fetched takes room beside the root until that is done.

    Raises:
        RootError: as `RootImport.run`; SourceError also if the options have no checksum of the file.
    """
    if options.sha256 is None:
        raise SourceError(f"{_shown(url)}: say with --sha256 what it has to be; nothing is fetched without a checksum")
    with store.incoming(name) as made:
        path = _fetch(url, options.sha256, made.folder / FETCHED, max_bytes=options.max_bytes, progress=progress)
        return RootImport(store, options, progress=progress).into(made, path, _shown(url), None)


def _shown(url: str) -> str:
    try:
        return shown(checked_url(url))
    except FetchError as error:
        raise SourceError(str(error)) from error


def _fetch(url: str, sha256: str, folder: Path, *, max_bytes: int, progress: Progress) -> Path:
    def tell(done: int, of: int | None) -> None:
        progress("fetch", done, of)

    async def run() -> Path:
        cache = FileCache(folder, max_bytes, limits=FetchLimits(max_file_bytes=max_bytes, total_s=TOTAL_S))
        await cache.start()
        try:
            return await cache.fetch(url, sha256, on_progress=tell)
        finally:
            await cache.stop()

    try:
        return asyncio.run(run())
    except FetchChecksumError as error:
        raise ChecksumError(str(error)) from error
    except FetchTooLargeError as error:
        raise SourceTooLargeError(f"{error}: if you trust the source, allow more with --max-size") from error
    except FetchNoRoomError as error:
        raise StoreFullError(str(error), needed_bytes=None, free_bytes=0) from error
    except FetchError as error:
        raise SourceError(str(error)) from error
