"""An image of a whole disk around a file system, with its map of blocks for bmaptool.

One partition behind an MBR, marked to boot from, begins at 1 MiB + 15 MiB: boards whose ROM reads U-Boot from fixed
sectors (8 KiB to 8 MiB) have room for it there. U-Boot's distro boot finds `/boot/boot.scr` in it by itself.

The map is of format 2.0, as bmap-tools' bmapcreate.py writes it: data is what is not all zero, hole by hole of blocks.
"""

import hashlib
import struct
import uuid
from collections.abc import Iterator
from pathlib import Path

SECTOR_BYTES = 512
START_BYTES = 16 * 1024 * 1024
BLOCK_BYTES = 4096
_LINUX = 0x83
_ACTIVE = 0x80
_SIGNATURE_AT, _TABLE_AT, _END_AT = 440, 446, 510
# Beyond what heads and sectors can say, as every writer of MBRs fills them in for LBA.
_CHS_BEYOND = b"\xfe\xff\xff"
_COPY_BYTES = 1 << 20


def disk_signature(identifier: uuid.UUID) -> int:
    """The number by which Linux knows the disk: `root=PARTUUID=<8 hexadecimal digits>-01`."""
    return int.from_bytes(identifier.bytes[:4], "big") or 1


def master_boot_record(signature: int, start_bytes: int, size_bytes: int) -> bytes:
    """The first sector of a disk with one Linux partition."""
    sector = bytearray(SECTOR_BYTES)
    struct.pack_into("<I", sector, _SIGNATURE_AT, signature)
    struct.pack_into(
        "<B3sB3sII", sector, _TABLE_AT, _ACTIVE, _CHS_BEYOND, _LINUX, _CHS_BEYOND,
        start_bytes // SECTOR_BYTES, size_bytes // SECTOR_BYTES,
    )  # fmt: skip
    sector[_END_AT:] = b"\x55\xaa"
    return bytes(sector)


def write(file_system: Path, target: Path, identifier: uuid.UUID) -> None:
    """Write the disk's image, sparse, and beside it `target.bmap`.

    Raises:
        OSError: it cannot be written.
    """
    size = file_system.stat().st_size
    with target.open("wb") as out, file_system.open("rb") as source:
        out.write(master_boot_record(disk_signature(identifier), START_BYTES, size))
        at = START_BYTES
        while piece := source.read(_COPY_BYTES):
            if piece.strip(b"\0"):
                out.seek(at)
                out.write(piece)
            at += len(piece)
        out.truncate(START_BYTES + size)
    target.with_name(f"{target.name}.bmap").write_text(block_map(target), encoding="utf-8")


def _ranges(image: Path) -> Iterator[tuple[int, int, str]]:
    """Runs of blocks that are not all zero: first, last, SHA-256."""
    first, number, digest = -1, 0, hashlib.sha256()
    with image.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            if block.strip(b"\0"):
                if first < 0:
                    first, digest = number, hashlib.sha256()
                digest.update(block)
            elif first >= 0:
                yield first, number - 1, digest.hexdigest()
                first = -1
            number += 1
    if first >= 0:
        yield first, number - 1, digest.hexdigest()


def block_map(image: Path) -> str:
    """The map of an image's blocks, with checksums, its own among them."""
    found = list(_ranges(image))
    size = image.stat().st_size
    mapped = sum(last - first + 1 for first, last, _ in found)
    lines = "".join(
        f'        <Range chksum="{chksum}"> {first}{"" if first == last else f"-{last}"} </Range>\n'
        for first, last, chksum in found
    )
    text = f"""<?xml version="1.0" ?>
<bmap version="2.0">
    <ImageSize> {size} </ImageSize>
    <BlockSize> {BLOCK_BYTES} </BlockSize>
    <BlocksCount> {-(-size // BLOCK_BYTES)} </BlocksCount>
    <MappedBlocksCount> {mapped} </MappedBlocksCount>
    <ChecksumType> sha256 </ChecksumType>
    <BmapFileChecksum> {"0" * 64} </BmapFileChecksum>
    <BlockMap>
{lines}    </BlockMap>
</bmap>
"""
    # The map's own checksum is over itself with zeros in its place.
    return text.replace("0" * 64, hashlib.sha256(text.encode()).hexdigest(), 1)
