"""Files of jobs and profiles that are given by URL: fetched once, kept on disk, the least used dropped first.

A file is named by its SHA-256, so what is kept can be trusted and never gets old. It appears under its name only when
it is whole and checked. Who may boot from it is the caller's to decide: the cache knows no boards.
"""

import asyncio
import hashlib
import itertools
import logging
import os
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
from yarl import URL

from netboot.fetch_download import SHA256, Download, FetchLimits, OnProgress, checked_url, shown
from netboot.fetch_errors import FetchError, FetchNoRoomError, FetchTooLargeError, FetchUnreachableError, FetchUrlError
from netboot.fetch_policy import ANYWHERE, FetchPolicy, GuardedResolver

log = logging.getLogger(__name__)

PART_PREFIX = ".part-"
"""Of files that are not whole: removed at the start."""
DISK_RESERVE_BYTES = 64 << 20
"""Left free on the disk: the agent's own state lives there too."""
_READ_BYTES = 1 << 20


@dataclass(slots=True)
class _Kept:
    """A file in the cache. `checked`: its octets were seen to be right since the start."""

    size_bytes: int
    checked: bool


@dataclass(slots=True, eq=False)
class _Job:
    """A file that is being fetched, for all who ask for it. `sha256` None: not known before it is here."""

    url: URL
    sha256: str | None
    listeners: list[OnProgress] = field(default_factory=list)
    askers: int = 0
    reserved_bytes: int = 0
    task: "asyncio.Task[Path] | None" = None


class FileCache:
    """The cache in one folder, between `start` and `stop`. Only one process may use the folder.

    Args:
        folder: made if it is missing; nothing else may be kept there.
        limit_bytes: of all files together, those under way included.
        policy: from where may be fetched, and whether without a checksum.
    """

    def __init__(
        self,
        folder: Path,
        limit_bytes: int,
        *,
        limits: FetchLimits | None = None,
        policy: FetchPolicy = ANYWHERE,
    ) -> None:
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._limits = limits or FetchLimits()
        self._policy = policy
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._jobs: dict[str, _Job] = {}
        self._held: dict[str, set[str]] = {}
        self._asked_for: list[str] = []
        self._waited_for: set[_Job] = set()
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[Path]] = set()
        self._session: aiohttp.ClientSession | None = None

    @property
    def size_bytes(self) -> int:
        """Octets kept, and reserved for what is under way."""
        return sum(kept.size_bytes for kept in self._kept.values()) + sum(
            job.reserved_bytes for job in self._jobs.values()
        )

    async def start(self) -> None:
        """Find what is kept from before, and remove what is not whole.

        Raises:
            OSError: the folder cannot be used.
        """
        found = await asyncio.to_thread(self._scan)
        self._kept = OrderedDict((name, _Kept(size, checked=False)) for name, size in found)
        resolver = GuardedResolver(aiohttp.DefaultResolver()) if self._policy.judges_addresses else None
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(resolver=resolver),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        await self._make_room(0)

    async def stop(self) -> None:
        """End what is under way. May be called twice."""
        session, self._session = self._session, None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if session is not None:
            await session.close()

    async def fetch(
        self, url: str, sha256: str | None, *, holder: str | None = None, on_progress: OnProgress | None = None
    ) -> Path:
        """The file with this checksum, from the cache or from `url`; its name is the checksum. Several who ask at once
        cause one download, which ends when none of them waits any longer.

        With `sha256` None it is whatever `url` has now, where the policy permits that. Without `holder` the file may be
        dropped as soon as another is fetched; with it, not before `release(holder)`.

        Raises:
            FetchError: it cannot be had; the subclass says what to do.
        """
        wanted, sha256 = checked_url(url), None if sha256 is None else sha256.lower()
        if sha256 is not None and SHA256.fullmatch(sha256) is None:
            raise FetchUrlError(f"{shown(wanted)}: the checksum must be a SHA-256, 64 hexadecimal digits")
        self._policy.check_checksum(wanted, sha256)
        self._policy.check(wanted)
        with self._asking(sha256 or ""):
            path = await self._shared(wanted, sha256, on_progress)
            if holder is not None:
                self._held.setdefault(holder, set()).add(path.name)
            return path

    def release(self, holder: str) -> None:
        """A boot that held files needs them no longer. Unknown holders are nothing special."""
        self._held.pop(holder, None)

    @contextmanager
    def _asking(self, sha256: str) -> Iterator[None]:
        self._asked_for.append(sha256)
        try:
            yield
        finally:
            self._asked_for.remove(sha256)

    # --- one download for all who ask ---

    async def _shared(self, url: URL, sha256: str | None, on_progress: OnProgress | None) -> Path:
        key = str(url) if sha256 is None else sha256
        while True:
            kept = None if sha256 is None else self._kept.get(sha256)
            if sha256 is not None and kept is not None and kept.checked:
                self._kept.move_to_end(sha256)
                path = self._folder / sha256
                if await asyncio.to_thread(_touch, path):
                    return path
                self._kept.pop(sha256, None)  # somebody removed it
            job = self._jobs.get(key) or self._begin(key, url, sha256)
            try:
                return await self._wait(job, key, on_progress)
            except FetchError:
                if job.url == url:
                    raise  # else it was another's URL that failed: try ours

    def _begin(self, key: str, url: URL, sha256: str | None) -> _Job:
        job = _Job(url, sha256)
        job.task = asyncio.create_task(self._provide(job, sha256), name="netboot-fetch")
        self._tasks.add(job.task)
        self._jobs[key] = job

        def ended(task: asyncio.Task[Path]) -> None:
            self._tasks.discard(task)
            self._forget(job, key)
            if not task.cancelled():
                task.exception()  # those who ask have heard it; nobody else needs to

        job.task.add_done_callback(ended)
        return job

    def _forget(self, job: _Job, key: str) -> None:
        if self._jobs.get(key) is job:
            del self._jobs[key]

    async def _wait(self, job: _Job, key: str, on_progress: OnProgress | None) -> Path:
        if job.task is None:
            raise RuntimeError("a job without its task")
        if on_progress is not None:
            job.listeners.append(on_progress)
        job.askers += 1
        self._waited_for.add(job)
        try:
            return await asyncio.shield(job.task)
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if job.task.cancelled() and (own is None or not own.cancelling()):
                raise FetchUnreachableError(f"{shown(job.url)}: the cache was stopped") from None
            raise
        finally:
            job.askers -= 1
            if on_progress is not None:
                job.listeners.remove(on_progress)
            if not job.askers:
                self._waited_for.discard(job)
            if not job.askers and not job.task.done():
                self._forget(job, key)
                job.task.cancel()

    async def _provide(self, job: _Job, sha256: str | None) -> Path:
        if sha256 is not None and await self._is_good(sha256):
            return self._folder / sha256
        if self._session is None:
            raise FetchUnreachableError(f"{shown(job.url)}: the cache is not running")
        part = self._folder / f"{PART_PREFIX}{next(self._numbers)}"
        try:
            download = Download(
                self._session,
                job.url,
                sha256,
                part,
                limits=self._limits,
                policy=self._policy,
                reserve=lambda need: self._reserve(job, need),
                on_progress=lambda done, total: _tell(job, done, total),
            )
            size = await download.run()
            job.sha256 = download.sha256  # from now on nobody drops it before those who ask have it
            path = self._folder / download.sha256
            await asyncio.shield(asyncio.to_thread(_publish, part, path))
        except BaseException:
            await asyncio.shield(asyncio.to_thread(part.unlink, missing_ok=True))
            raise
        job.reserved_bytes = 0
        self._kept[path.name] = _Kept(size, checked=True)
        return path

    async def _is_good(self, sha256: str) -> bool:
        """Whether the file is kept, and is what it was when it was fetched."""
        kept = self._kept.get(sha256)
        if kept is None:
            return False
        if await asyncio.to_thread(_has_checksum, self._folder / sha256, sha256):
            kept.checked = True
            return True
        log.warning("file %s in %s is damaged or gone; it is fetched again", sha256, self._folder)
        self._kept.pop(sha256, None)
        return False

    # --- room ---

    async def _reserve(self, job: _Job, need: int) -> None:
        """Make room for a download that will have `need` octets in all.

        Raises:
            FetchTooLargeError: more than the cache may hold.
            FetchNoRoomError: held files or the disk leave no room.
        """
        if need > self._limit_bytes:
            raise FetchTooLargeError(f"{shown(job.url)}: {need} octets, and the cache holds {self._limit_bytes}")
        more = need - job.reserved_bytes
        if more <= 0:
            return
        job.reserved_bytes = need
        await self._make_room(0, for_url=job.url)
        free = (await asyncio.to_thread(shutil.disk_usage, self._folder)).free
        if more + DISK_RESERVE_BYTES > free:
            raise FetchNoRoomError(
                f"{shown(job.url)}: needs {more} octets in {self._folder}, and {free} are free on that disk,"
                f" of which {DISK_RESERVE_BYTES} stay free"
            )

    async def _make_room(self, need: int, *, for_url: URL | None = None) -> None:
        waited = {job.sha256 for job in self._waited_for}
        held = set(self._asked_for).union(waited, *self._held.values())
        dropped = []
        for name in list(self._kept):
            if self.size_bytes + need <= self._limit_bytes:
                break
            if name not in held:
                del self._kept[name]
                dropped.append(self._folder / name)
        for path in dropped:
            await asyncio.shield(asyncio.to_thread(path.unlink, missing_ok=True))
        if for_url is not None and self.size_bytes + need > self._limit_bytes:
            raise FetchNoRoomError(
                f"{shown(for_url)}: the cache of {self._limit_bytes} octets is full of files that boots under way need"
            )

    def _scan(self) -> list[tuple[str, int]]:
        """Name and size of what is kept, least used first."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = []
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.startswith(PART_PREFIX):
                    Path(entry.path).unlink(missing_ok=True)
                elif SHA256.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    status = entry.stat(follow_symlinks=False)
                    found.append((status.st_mtime, entry.name, status.st_size))
        return [(name, size) for _, name, size in sorted(found)]


def _tell(job: _Job, done: int, total: int | None) -> None:
    for listener in list(job.listeners):
        try:
            listener(done, total)
        except Exception:  # one asker's fault must not end the download of the others
            log.exception("a listener failed on the progress of %s", shown(job.url))


def _touch(path: Path) -> bool:
    """Note the use, for the order after the next start. False: the file is gone."""
    try:
        os.utime(path)
    except OSError:
        return False
    return True


def _has_checksum(path: Path, sha256: str) -> bool:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while data := file.read(_READ_BYTES):
                digest.update(data)
    except OSError:
        return False
    return digest.hexdigest() == sha256


def _publish(part: Path, path: Path) -> None:
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
