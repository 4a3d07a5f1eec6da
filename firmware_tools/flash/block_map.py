"""bmap files: which blocks of a disk's image hold data (docs.yoctoproject.org, bmaptool; format 1.2 to 2.0)."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as Xml

from firmware_tools.flash.errors import ImageError

MAX_BYTES = 32 << 20
"""A map has a line for each range; one of a fragmented 64 GB card has some megabytes."""
COMPRESSED = frozenset({".gz", ".bz2", ".xz", ".zst", ".lz4", ".lzo", ".zip"})
"""Endings that bmaptool unpacks by itself: the map then tells the size of what is inside."""


def beside(path: Path) -> Path | None:
    """The map that belongs to an image, by its name: `image.wic.bmap` for `image.wic` and for `image.wic.gz`."""
    names = [path.name, path.stem if path.suffix in COMPRESSED else path.name, path.stem]
    found = (path.with_name(f"{name}.bmap") for name in names)
    return next((candidate for candidate in found if candidate.is_file()), None)


@dataclass(frozen=True, slots=True)
class Range:
    """Mapped octets of the disk. `digest`: their checksum by the map's `algorithm`, None where it has none."""

    at: int
    length: int
    digest: str | None
    algorithm: str


def ranges(bmap: Path) -> list[Range]:
    """What of the disk has to be as the image says.

    Raises:
        ImageError: it is no map.
        OSError: it cannot be read.
    """
    root = _parse(bmap)
    algorithm = root.findtext("ChecksumType", "sha256").strip().lower()
    if algorithm not in hashlib.algorithms_guaranteed or algorithm.startswith("shake"):
        raise ImageError(f"{bmap}: has checksums of the unknown kind {algorithm!r}; make it again with bmaptool create")
    try:
        block, size = int(root.findtext("BlockSize", "").strip()), int(root.findtext("ImageSize", "").strip())
        found = []
        for element in root.iterfind("BlockMap/Range"):
            first, _, last = (element.text or "").strip().partition("-")
            begin, end = int(first) * block, min((int(last or first) + 1) * block, size)
            if not 0 <= begin < end:
                raise ImageError(f"{bmap}: has a range that is none: {element.text!r}; make it again")
            found.append(Range(begin, end - begin, element.get("chksum") or element.get("sha1"), algorithm))
    except ValueError as error:
        raise ImageError(f"{bmap}: is no block map ({error}); make it again with bmaptool create") from None
    return found


def check(bmap: Path, image: Path, size: int) -> str:
    """Whether the map is whole and the image's. Checksums of blocks are bmaptool's to compare, as it copies.

    Returns:
        What it says, for people.

    Raises:
        ImageError: it is neither.
        OSError: it cannot be read.
    """
    root = _parse(bmap)
    try:
        image_size = int(root.findtext("ImageSize", "").strip())
        mapped = int(root.findtext("MappedBlocksCount", "").strip())
        blocks = int(root.findtext("BlocksCount", "").strip())
    except ValueError as error:
        raise ImageError(f"{bmap}: is no block map ({error}); make it again with bmaptool create") from None
    if image.suffix not in COMPRESSED and image_size != size:
        raise ImageError(
            f"{bmap}: is for an image of {image_size} octets, and {image.name} has {size}; make it again with"
            " bmaptool create"
        )
    return f"with a map, {mapped} of {blocks} blocks"


def _parse(bmap: Path) -> Xml.Element:
    with bmap.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ImageError(f"{bmap}: is larger than {MAX_BYTES} octets; make it again with bmaptool create")
    # Expat expands entities; a map has none, so one that declares any is not looked at further.
    if re.search(rb"<!(DOCTYPE|ENTITY)", data):
        raise ImageError(f"{bmap}: declares entities, and a block map has none; make it again with bmaptool create")
    try:
        root = Xml.fromstring(data)  # noqa: S314  # without entities, and bounded above
    except Xml.ParseError as error:
        raise ImageError(f"{bmap}: is no block map ({error}); make it again with bmaptool create") from None
    if root.tag != "bmap" or root.get("version", "").partition(".")[0] not in {"1", "2"}:
        raise ImageError(f"{bmap}: is no block map of version 1 or 2; make it again with bmaptool create")
    return root
