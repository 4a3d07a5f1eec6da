"""The formats of images that carry something to check: DFU suffixes, Android's sparse and boot images."""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

from firmware_tools.flash.errors import ImageError

DFU_SUFFIX = struct.Struct("<HHHH3sBI")
"""DFU 1.1, annex B: bcdDevice, idProduct, idVendor, bcdDFU, "UFD", bLength, dwCRC; at the end of the file."""
DFU_SIGNATURE = b"UFD"
DFU_ANY = 0xFFFF
"""A suffix with this vendor or product is for any."""
CRC_BYTES = 4
BLOCK_BYTES = 1 << 20
SPARSE_MAGIC = 0xED26FF3A
SPARSE_HEADER = struct.Struct("<IHHHHIIII")
"""AOSP system/core/libsparse/sparse_format.h: magic, major, minor, header size, chunk header size, block size, blocks,
chunks, checksum."""
SPARSE_CHUNK = struct.Struct("<HHII")
"""Type, reserved, blocks in the output, octets in the file with this header."""
RAW, FILL, SKIP, CRC32 = 0xCAC1, 0xCAC2, 0xCAC3, 0xCAC4
MAX_CHUNKS = 1 << 20
ANDROID_MAGIC = b"ANDROID!"


@dataclass(frozen=True, slots=True)
class DfuSuffix:
    """The end of a DFU file. `length` octets of it are no firmware."""

    vendor: int
    product: int
    length: int
    crc: int

    @property
    def names(self) -> str:
        """As lsusb writes it, `*` for any."""
        return ":".join("*" if number == DFU_ANY else f"{number:04x}" for number in (self.vendor, self.product))


def dfu_suffix(path: Path, size: int) -> DfuSuffix | None:
    """The suffix of the file; None where it has none, as a raw image.

    Raises:
        ImageError: it has one that is not whole.
        OSError: the file cannot be read.
    """
    if size < DFU_SUFFIX.size:
        return None
    with path.open("rb") as file:
        file.seek(size - DFU_SUFFIX.size)
        _, product, vendor, _, signature, length, crc = DFU_SUFFIX.unpack(file.read(DFU_SUFFIX.size))
        if signature != DFU_SIGNATURE:
            return None
        if not DFU_SUFFIX.size <= length <= size:
            raise ImageError(f"{path}: its DFU suffix says that it has {length} octets; build the image again")
        if _crc(path, size - CRC_BYTES) != crc:
            raise ImageError(f"{path}: is damaged: the checksum in its DFU suffix is another one; fetch it again")
    return DfuSuffix(vendor, product, length, crc)


def _crc(path: Path, size: int) -> int:
    """Annex B: CRC-32 without the final inversion, over all but itself."""
    crc, left = 0, size
    with path.open("rb") as file:
        while left and (block := file.read(min(BLOCK_BYTES, left))):
            crc = zlib.crc32(block, crc)
            left -= len(block)
    return crc ^ 0xFFFFFFFF


def check_dfu(path: Path, suffix: DfuSuffix, device: str | None) -> None:
    """Whether the image is for the device `1209:db42`.

    Raises:
        ImageError: it is for another one.
    """
    if device is None:
        return
    vendor, product = (int(part, 16) for part in device.split(":"))
    if suffix.vendor not in {DFU_ANY, vendor} or suffix.product not in {DFU_ANY, product}:
        raise ImageError(
            f"{path}: is for the USB device {suffix.names}, and this board is {device}; take the one of this board"
        )


def check_fastboot(path: Path, size: int) -> str:
    """What kind of image it is.

    Raises:
        ImageError: it is cut off or damaged.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(SPARSE_HEADER.size)
        if head.startswith(ANDROID_MAGIC):
            return "an Android boot image"
        if len(head) < SPARSE_HEADER.size or struct.unpack_from("<I", head)[0] != SPARSE_MAGIC:
            return "raw"
        _, major, minor, header, chunk_header, block, blocks, chunks, _ = SPARSE_HEADER.unpack(head)
        right = major == 1 and header >= SPARSE_HEADER.size and chunk_header >= SPARSE_CHUNK.size
        if not right or block == 0 or block % 4 or chunks > MAX_CHUNKS:
            raise ImageError(
                f"{path}: is a sparse image of version {major}.{minor} that makes no sense; build it again"
            )
        at, seen = header, 0
        for number in range(chunks):
            file.seek(at)
            words = file.read(SPARSE_CHUNK.size)
            if len(words) < SPARSE_CHUNK.size:
                raise ImageError(f"{path}: is cut off: of {chunks} chunks {number} are there; fetch it again")
            kind, _, out, length = SPARSE_CHUNK.unpack(words)
            data = {RAW: out * block, FILL: 4, SKIP: 0, CRC32: 4}.get(kind)
            if data is None or length != chunk_header + data:
                raise ImageError(f"{path}: chunk {number} of {chunks} is damaged; fetch it again")
            at += length
            seen += out
    if at > size or seen != blocks:
        raise ImageError(f"{path}: is cut off: it has {size} octets of {at}, {seen} blocks of {blocks}; fetch it again")
    return f"sparse, {blocks * block} octets when unpacked"
