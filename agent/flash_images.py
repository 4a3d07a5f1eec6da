"""Finds the image that a request names: a file below an allowed folder of this host, or one by URL and checksum."""

import asyncio
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.boot_choice import ChosenFile
from agent.flash_settings import FlashesTable
from agent.requests import RequestError, text
from netboot.fetch_errors import (
    FetchChecksumError,
    FetchError,
    FetchNoRoomError,
    FetchTooLargeError,
    FetchUnreachableError,
    FetchUrlError,
)
from netboot.file_cache import FileCache
from wire.phases import ErrorKind

Tell = Callable[[float | None], None]
MAX_URL_CHARACTERS = 2048
MAX_PATH_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class Found:
    """An image. `sha256`: what it has to be, None where nobody said."""

    path: Path
    sha256: str | None
    source: str


class FlashImages:
    """The images of one agent."""

    def __init__(self, settings: FlashesTable, state_dir: Path) -> None:
        self._folders = settings.folders
        self._named = state_dir / "flash"
        fetch = settings.fetch
        self._cache = FileCache(
            state_dir / "flash-cache", fetch.cache_mib << 20, limits=fetch.limits, policy=fetch.policy
        )
        self._started = False
        self._starting = asyncio.Lock()

    async def stop(self) -> None:
        """Fetch nothing more."""
        if self._started:
            await self._cache.stop()

    async def find(self, board: str, data: Mapping[str, object], tell: Tell) -> Found:
        """What `image` (and `sha256`) of a request mean.

        Raises:
            RequestError: it is not there, or not allowed.
        """
        image, sha256 = text(data, "image"), data.get("sha256")
        if sha256 is not None and not (isinstance(sha256, str) and _is_sha256(sha256)):
            raise RequestError(ErrorKind.BAD_REQUEST, "sha256: 64 hexadecimal digits, as sha256sum prints", "sha256")
        wanted = None if sha256 is None else sha256.lower()
        if image.startswith(("http://", "https://")):
            return await self._fetched(board, image, wanted, tell)
        return Found(await asyncio.to_thread(allowed, image, self._folders), wanted, image)

    async def done(self, board: str) -> None:
        """The board's image is needed no more."""
        if self._started:
            self._cache.release(board)
            await asyncio.to_thread(shutil.rmtree, self._named / board, ignore_errors=True)

    async def _fetched(self, board: str, url: str, sha256: str | None, tell: Tell) -> Found:
        if len(url) > MAX_URL_CHARACTERS:
            raise RequestError(
                ErrorKind.BAD_REQUEST, f"image: a URL has at most {MAX_URL_CHARACTERS} characters", "image"
            )

        def on_progress(done: int, of: int | None) -> None:
            tell(100.0 * done / of if of else None)

        try:
            async with self._starting:  # two boards at once: a second start would remove what the first fetches
                if not self._started:
                    await self._cache.start()
                    self._started = True
            kept = await self._cache.fetch(url, sha256, holder=board, on_progress=on_progress)
            # Tools go by a file's ending.
            name = ChosenFile(url=url).file_name
            path = await asyncio.to_thread(_linked, kept, self._named / board / name)
        except FetchError as error:
            raise RequestError(_kind(error), f"board {board}: {error}", "image") from error
        except OSError as error:
            where = error.filename or self._named
            raise RequestError(ErrorKind.INTERNAL, f"{where}: {error.strerror}; mend the disk") from error
        return Found(path, sha256, url.partition("?")[0])


def allowed(image: str, folders: Sequence[Path]) -> Path:
    """The file that is meant, links resolved, if it lies below one of the folders.

    Raises:
        RequestError: it does not, or is not there.
    """
    if not folders:
        message = "image: this agent takes images by URL alone; name folders in [flash] for paths"
        raise RequestError(ErrorKind.NOT_ALLOWED, message, "image")
    if not image.isprintable() or len(image) > MAX_PATH_CHARACTERS:
        message = f"image: a path has at most {MAX_PATH_CHARACTERS} characters, all of them printable"
        raise RequestError(ErrorKind.BAD_REQUEST, message, "image")
    named = Path(image)
    candidates = [named] if named.is_absolute() else [folder / named for folder in folders]
    inside = False
    for candidate in candidates:
        real = Path(os.path.realpath(candidate))
        if any(real.is_relative_to(os.path.realpath(folder)) for folder in folders):
            inside = True
            if _is_file(real):
                return real
    where = ", ".join(map(str, folders))
    if inside:
        raise RequestError(ErrorKind.NOT_FOUND, f"image: {image} is not there; images are below {where}", "image")
    message = f"image: {image} is not below {where}; [flash] folders says what may be flashed"
    raise RequestError(ErrorKind.NOT_ALLOWED, message, "image")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # a name that is too long, a folder that may not be entered


def _is_sha256(word: str) -> bool:
    return len(word) == 64 and all(c in "0123456789abcdefABCDEF" for c in word)


def _linked(kept: Path, wanted: Path) -> Path:
    shutil.rmtree(wanted.parent, ignore_errors=True)
    wanted.parent.mkdir(mode=0o700, parents=True)
    os.link(kept, wanted)
    return wanted.absolute()


def _kind(error: FetchError) -> ErrorKind:
    if isinstance(error, FetchUrlError | FetchChecksumError | FetchTooLargeError):
        return ErrorKind.BAD_REQUEST
    if isinstance(error, FetchUnreachableError):
        return ErrorKind.UNREACHABLE
    return ErrorKind.BUSY if isinstance(error, FetchNoRoomError) else ErrorKind.REFUSED
