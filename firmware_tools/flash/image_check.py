"""Looks at an image before anything is touched: is it whole, does the tool take it, is it this board's?"""

import hashlib
import stat
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from firmware_tools.flash import block_map, formats
from firmware_tools.flash.errors import ImageDiskError, ImageError

BLOCK_BYTES = 1 << 20
MAX_DECLARATION_BYTES = 64 * 1024
DECLARATION = ".boardhand.toml"
"""What stands behind an image's name for the file that says which boards it is for."""

Tell = Callable[[float], None]
"""Is told per cent."""


class Format(StrEnum):
    """What a tool asks of an image."""

    ANY = "any"
    DFU = "dfu"
    """Raw, or with a DFU suffix; the suffix must fit the device."""
    FASTBOOT = "fastboot"
    """Raw, sparse or an Android boot image; a sparse one must be whole."""
    DISK = "disk"
    """A disk's image, maybe compressed, maybe with a bmap beside it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of one image. None and empty: nothing.

    Attributes:
        board: the board's name.
        compatible: what the board says it is (device tree), or its settings do.
        device: vendor and product of its USB device in flash mode, `1209:db42`.
        declared: an image that does not say which boards it is for is refused.
    """

    board: str
    format: Format = Format.ANY
    compatible: frozenset[str] = frozenset()
    device: str | None = None
    sha256: str | None = None
    max_bytes: int | None = None
    declared: bool = False
    bmap: bool = True


@dataclass(frozen=True, slots=True)
class Image:
    """An image that was looked at.

    Attributes:
        payload_bytes: what of it reaches the device; less than the file where a DFU suffix is behind it.
        bmap: the block map that belongs to it.
        what: its kind in one clause, for people.
    """

    path: Path
    size_bytes: int
    sha256: str
    payload_bytes: int
    bmap: Path | None
    what: str


@dataclass(frozen=True, slots=True)
class Declaration:
    """`IMAGE.boardhand.toml`: `boards = [...]`, `compatible = [...]`, `sha256 = "..."`; each may be left out."""

    boards: frozenset[str] = frozenset()
    compatible: frozenset[str] = frozenset()
    sha256: str | None = None


def look(path: Path, wanted: Wanted, tell: Tell = lambda _percent: None) -> Image:
    """Check the image whole; reads all of it, so call it in a thread.

    Raises:
        ImageError: it is not what is wanted; nothing was touched.
        ImageDiskError: it cannot be read.
    """
    try:
        size = _size(path, wanted)
        sha256 = _sha256(path, size, tell)
        declaration = declaration_of(path)
        _is_for(path, wanted, declaration)
        for name, expected in (("the request", wanted.sha256), (f"{path.name}{DECLARATION}", declaration.sha256)):
            if expected is not None and expected.lower() != sha256:
                raise ImageError(
                    f"{path}: has the SHA-256 {sha256}, and {name} says {expected.lower()}; fetch the image again, or"
                    " mend the checksum"
                )
        return _formatted(path, size, sha256, wanted)
    except OSError as error:
        raise ImageDiskError(f"{path}: cannot be read: {error.strerror}; mend the disk") from error


def _size(path: Path, wanted: Wanted) -> int:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise ImageError(f"{path}: is not there; write the path as the agent's host has it") from None
    if not stat.S_ISREG(found.st_mode):
        raise ImageError(f"{path}: is no file; an image is one")
    if found.st_size == 0:
        raise ImageError(f"{path}: is empty; build or fetch it again")
    if wanted.max_bytes is not None and found.st_size > wanted.max_bytes:
        raise ImageError(f"{path}: has {found.st_size} octets, and max_bytes of this flash is {wanted.max_bytes}")
    return found.st_size


def _sha256(path: Path, size: int, tell: Tell) -> str:
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
            done += len(block)
            tell(100.0 * done / size)
    if done != size:
        raise ImageError(
            f"{path}: has changed while it was read ({size} octets, then {done}); wait until it is written"
        )
    return digest.hexdigest()


def declaration_of(path: Path) -> Declaration:
    """What stands beside the image.

    Raises:
        ImageError: it cannot be understood.
        OSError: it cannot be read.
    """
    beside = path.with_name(path.name + DECLARATION)
    try:
        with beside.open("rb") as file:
            data = file.read(MAX_DECLARATION_BYTES + 1)
    except FileNotFoundError:
        return Declaration()
    if len(data) > MAX_DECLARATION_BYTES:
        raise ImageError(f"{beside}: is larger than {MAX_DECLARATION_BYTES} octets")
    try:
        said = tomllib.loads(data.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ImageError(f"{beside}: is no TOML: {error}") from None
    unknown = said.keys() - {"boards", "compatible", "sha256"}
    if unknown:
        raise ImageError(f"{beside}: {min(unknown)}: is not known; boards, compatible and sha256 are")
    sha256 = said.get("sha256")
    if sha256 is not None and not isinstance(sha256, str):
        raise ImageError(f"{beside}: sha256: a text is needed")
    return Declaration(_texts(beside, said, "boards"), _texts(beside, said, "compatible"), sha256)


def _texts(path: Path, said: dict[str, object], key: str) -> frozenset[str]:
    found = said.get(key, [])
    if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
        raise ImageError(f"{path}: {key}: a list of texts is needed")
    return frozenset(found)


def _is_for(path: Path, wanted: Wanted, said: Declaration) -> None:
    """A wrong image for the board is the mistake that no tool notices."""
    if said.boards and wanted.board not in said.boards:
        raise ImageError(f"{path}: is for {_list(said.boards)}, and not for {wanted.board}; take the one of this board")
    if said.compatible and wanted.compatible and not said.compatible & wanted.compatible:
        raise ImageError(
            f"{path}: is for {_list(said.compatible)}, and {wanted.board} is {_list(wanted.compatible)}; take the one"
            " of this board"
        )
    if said.compatible and not wanted.compatible and wanted.board not in said.boards:
        raise ImageError(
            f"{path}: is for {_list(said.compatible)}, and what {wanted.board} is nobody knows; say `compatible` in"
            " its flash settings"
        )
    if wanted.declared and not (said.boards or said.compatible):
        raise ImageError(
            f"{path}: does not say which boards it is for, and this flash wants that (declared = true); write"
            f" {path.name}{DECLARATION} with boards or compatible"
        )


def _list(names: Sequence[str] | frozenset[str]) -> str:
    return ", ".join(sorted(names))


def _formatted(path: Path, size: int, sha256: str, wanted: Wanted) -> Image:
    payload, bmap, what = size, None, "raw"
    if wanted.format is Format.DFU:
        suffix = formats.dfu_suffix(path, size)
        if suffix is not None:
            formats.check_dfu(path, suffix, wanted.device)
            payload, what = size - suffix.length, f"for USB device {suffix.names}"
    elif wanted.format is Format.FASTBOOT:
        what = formats.check_fastboot(path, size)
    elif wanted.format is Format.DISK:
        bmap = block_map.beside(path) if wanted.bmap else None
        if bmap is not None:
            what = block_map.check(bmap, path, size)
    return Image(path, size, sha256, payload, bmap, what)
