"""Downloads one file by HTTP or HTTPS: bounded, checked by its SHA-256, and resumed where a connection was cut."""

import asyncio
import errno
import hashlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import aiohttp
from aiohttp import hdrs
from yarl import URL

from netboot.fetch_errors import (
    FetchChecksumError,
    FetchForbiddenError,
    FetchNoRoomError,
    FetchRefusedError,
    FetchTooLargeError,
    FetchUnreachableError,
    FetchUrlError,
)
from netboot.fetch_policy import FetchPolicy, ForbiddenAddressError

SHA256 = re.compile(r"[0-9a-f]{64}")
WRITE_BYTES = 1 << 20
"""Written and hashed at a time, in a thread."""
MAX_URL_CHARACTERS = 2048
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRY_AGAIN = frozenset({408, 425, 429})
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-\d{1,19}/(?:\d{1,19}|\*)")
_Result = TypeVar("_Result")
OnProgress = Callable[[int, int | None], None]
"""Octets here, and octets in all (None while unknown). Called in the event loop."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """Bounds of one download. `read_s`: silence of the origin. `total_s`: all tries together. `pause_s`: after the
    first failed try; each next pause is twice as long, up to `max_pause_s`."""

    max_file_bytes: int = 8 << 30
    connect_s: float = 15.0
    read_s: float = 30.0
    total_s: float = 3600.0
    tries: int = 5
    pause_s: float = 0.5
    max_pause_s: float = 10.0
    max_redirects: int = 5


class _TryAgainError(Exception):
    """One try failed; the next may not. `afresh`: what is here is of no use."""

    def __init__(self, reason: str, *, afresh: bool = False) -> None:
        super().__init__(reason)
        self.afresh = afresh


def checked_url(text: str) -> URL:
    """A URL that may be fetched.

    Raises:
        FetchUrlError: another scheme than http and https, no host, or no URL at all.
    """
    try:
        url = URL(text)
    except ValueError as error:
        raise FetchUrlError("this is no URL that can be fetched") from error
    if len(text) > MAX_URL_CHARACTERS or url.scheme not in {"http", "https"} or not url.host:
        raise FetchUrlError(f"{shown(url)}: only http:// and https:// URLs with a host are fetched")
    return url


def shown(url: URL) -> str:
    """A URL for messages, without user, password, query and fragment."""
    try:
        return str(url.with_user(None).with_query(None).with_fragment(None))[:200]
    except ValueError:  # a URL without host
        return f"{url.scheme}:{url.path}"[:200]


class Download:
    """One file on its way to `target`, which is removed by the caller if `run` raises.

    Args:
        session: with `auto_decompress` off, or compressed files would be unpacked.
        sha256: None takes what the origin sends, if that is whole for certain.
        policy: asked for each redirect too. The session's resolver judges the addresses.
        reserve: awaited with the octets that will be needed in all, before they are written; raises for too many.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: URL,
        sha256: str | None,
        target: Path,
        *,
        limits: FetchLimits,
        policy: FetchPolicy,
        reserve: Callable[[int], Awaitable[None]],
        on_progress: OnProgress,
    ) -> None:
        self._session, self._url, self._sha256, self._target = session, url, sha256, target
        self._limits, self._reserve, self._on_progress = limits, reserve, on_progress
        self._policy = policy
        self._fd = -1
        self._hash = hashlib.sha256()
        self._etag: str | None = None
        self._whole_try = True  # all octets come from one answer whose length was told
        self.done_bytes = 0

    @property
    def sha256(self) -> str:
        """Of what is here."""
        return self._hash.hexdigest()

    async def run(self) -> int:
        """Download; returns the size in octets. The file is then on the disk, not only in memory.

        Raises:
            FetchError: it could not be had.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = await self._in_thread(lambda: os.open(self._target, flags, 0o600))
        try:
            async with asyncio.timeout(self._limits.total_s):
                await self._tries()
            await self._in_thread(lambda: os.fsync(self._fd))
        except TimeoutError:
            raise FetchUnreachableError(f"{shown(self._url)}: not here after {self._limits.total_s:.0f} s") from None
        finally:
            os.close(self._fd)
        return self.done_bytes

    async def _tries(self) -> None:
        pause_s, left = self._limits.pause_s, self._limits.tries
        while True:
            try:
                await self._try()
            except _TryAgainError as error:
                left -= 1
                if left <= 0:
                    raise FetchUnreachableError(
                        f"{shown(self._url)}: {error}, and so {self._limits.tries} times; try again later"
                    ) from error
                if error.afresh:
                    await self._forget()
            else:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._limits.max_pause_s)

    async def _try(self) -> None:
        headers: dict[str, str] = {hdrs.ACCEPT_ENCODING: "identity"}
        if self.done_bytes:
            headers[hdrs.RANGE] = f"bytes={self.done_bytes}-"
            if self._etag is not None:
                headers[hdrs.IF_RANGE] = self._etag
        try:
            async with self._opened(headers) as response:
                await self._take(response)
        except TimeoutError as error:
            raise _TryAgainError("the origin fell silent") from error
        except (aiohttp.ClientConnectorCertificateError, aiohttp.InvalidURL) as error:
            raise FetchRefusedError(
                f"{shown(self._url)}: {type(error).__name__}: certificate or URL not good"
            ) from error
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, ForbiddenAddressError):
                raise FetchForbiddenError(
                    f"{shown(self._url)}: {error.host} is {error.os_error}; [netboot.fetch] allow can permit it"
                ) from error
            raise _TryAgainError(f"{type(error).__name__}") from error
        except aiohttp.ClientError as error:
            raise _TryAgainError(f"{type(error).__name__}", afresh=self._unsure) from error
        if self._sha256 is None or self.sha256 == self._sha256:
            return
        if self._whole_try:
            raise FetchChecksumError(
                f"{shown(self._url)}: the file there has SHA-256 {self.sha256}, not {self._sha256}"
            )
        raise _TryAgainError("cut short, or changed between two tries", afresh=True)

    @property
    def _unsure(self) -> bool:
        """Whether the rest might be another file's, and nobody would notice."""
        return self._sha256 is None and self._etag is None

    @asynccontextmanager
    async def _opened(self, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer behind all redirects; each is checked, for an origin may send us anywhere."""
        url = self._url
        for _ in range(self._limits.max_redirects + 1):
            self._policy.check(url)
            response = await self._session.get(url, headers=headers, allow_redirects=False, timeout=self._timeout())
            async with response:
                if response.status not in _REDIRECTS:
                    yield response
                    return
                try:
                    url = checked_url(str(url.join(URL(response.headers.get(hdrs.LOCATION, "")))))
                except (FetchUrlError, ValueError) as error:
                    raise FetchRefusedError(f"{shown(self._url)}: redirected to what is no http(s) URL") from error
        raise FetchRefusedError(f"{shown(self._url)}: redirected more than {self._limits.max_redirects} times")

    def _timeout(self) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(
            total=None,
            sock_connect=self._limits.connect_s,
            sock_read=self._limits.read_s,
            connect=self._limits.connect_s,
        )

    async def _take(self, response: aiohttp.ClientResponse) -> None:
        if response.status == 416:
            raise _TryAgainError("the origin has less than it had", afresh=True)
        if response.status >= 500 or response.status in _TRY_AGAIN:
            raise _TryAgainError(f"HTTP status {response.status}")
        if response.status not in {200, 206}:
            raise FetchRefusedError(f"{shown(self._url)}: HTTP status {response.status} {response.reason}")
        if response.status == 206:
            place = _CONTENT_RANGE.fullmatch(response.headers.get(hdrs.CONTENT_RANGE, ""))
            if place is None or int(place[1]) != self.done_bytes or not self.done_bytes:
                raise _TryAgainError("the origin sent another range", afresh=True)
            self._whole_try = False
        elif self.done_bytes:
            await self._forget()  # it knows no ranges, or has another file now
        etag = response.headers.get(hdrs.ETAG)
        self._etag = etag if etag is not None and etag.startswith('"') else None
        total = None if response.content_length is None else self.done_bytes + response.content_length
        if self._sha256 is None and total is None and "chunked" not in response.headers.get(hdrs.TRANSFER_ENCODING, ""):
            raise FetchRefusedError(f"{shown(self._url)}: the origin tells no length, so a SHA-256 is needed")
        self._whole_try = self._whole_try and total is not None
        await self._bounded(total or 0)
        buffer = bytearray()
        try:
            async for piece in response.content.iter_any():
                buffer += piece
                if len(buffer) >= WRITE_BYTES:
                    await self._keep(buffer, total)
        finally:
            if buffer:  # also what came before a cut: the next try goes on after it
                await self._keep(buffer, total)

    async def _keep(self, buffer: bytearray, total: int | None) -> None:
        data = bytes(buffer)
        buffer.clear()
        await self._bounded(self.done_bytes + len(data))
        await self._in_thread(lambda: self._write(data))
        self.done_bytes += len(data)
        self._on_progress(self.done_bytes, total)

    async def _bounded(self, size: int) -> None:
        if size > self._limits.max_file_bytes:
            raise FetchTooLargeError(f"{shown(self._url)}: larger than {self._limits.max_file_bytes} octets")
        await self._reserve(size)

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
        self._hash.update(data)

    async def _forget(self) -> None:
        await self._in_thread(self._empty)
        self._hash = hashlib.sha256()
        self._etag, self._whole_try, self.done_bytes = None, True, 0

    def _empty(self) -> None:
        os.ftruncate(self._fd, 0)
        os.lseek(self._fd, 0, os.SEEK_SET)

    async def _in_thread(self, work: Callable[[], _Result]) -> _Result:
        """File work; a caller that is cancelled waits for its end, so that nobody closes what it uses."""
        job = asyncio.get_running_loop().run_in_executor(None, work)
        try:
            return await asyncio.shield(job)
        except asyncio.CancelledError:
            await asyncio.wait([job])
            raise
        except OSError as error:
            what = "no room" if error.errno in _NO_ROOM else "cannot write"
            raise FetchNoRoomError(f"{shown(self._url)}: {what} in {self._target.parent}: {error.strerror}") from error
