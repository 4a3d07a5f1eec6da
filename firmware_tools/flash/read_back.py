"""Compares what lies in a device with the image that was written. It reads a lot: call it in a thread."""

import hashlib
import os
import threading
from pathlib import Path

from firmware_tools.flash import block_map
from firmware_tools.flash.errors import ImageDiskError, NotVerifiedError
from firmware_tools.flash.image_check import Image

BLOCK_BYTES = 1 << 20


def compare_disk(image: Image, disk: Path, given_up: threading.Event) -> str:
    """Whether an image is on a disk: by its map's checksums, else octet by octet; how it is known is returned. Ends
    soon when `given_up` is set: the agent's own end waits for its threads.

    bmaptool compares what it reads of the image with the map, and not what arrives; a bad card is found only here.

    Raises:
        NotVerifiedError: the disk holds something else.
        ImageDiskError: one cannot be read.
    """
    try:
        forget_cached(disk)
        if image.bmap is not None:
            mapped = block_map.ranges(image.bmap)
            for part in mapped:
                if part.digest is not None and _digest(disk, part, given_up) != part.digest.lower():
                    raise NotVerifiedError(
                        f"{disk}: octets {part.at} to {part.at + part.length} are not the image's; is the card bad?"
                    )
            if any(part.digest is not None for part in mapped):
                return f"read back, {sum(part.length for part in mapped)} octets agree with the map's checksums"
        if image.path.suffix in block_map.COMPRESSED:
            return "bmaptool says so; a compressed image without a map cannot be compared"
    except OSError as error:
        raise ImageDiskError(f"{error.filename or disk}: cannot be read: {error.strerror}; look at it") from error
    at = first_difference(image.path, disk, image.size_bytes, given_up)
    if at is not None:
        raise NotVerifiedError(f"{disk}: differs from the image from octet {at} on; is the card bad?")
    return f"read back, {image.size_bytes} octets are the same"


def forget_cached(disk: Path) -> None:
    """Have the kernel forget what it remembers of the disk, so that it is the disk that is read.

    Raises:
        OSError: it cannot be opened, or written out.
    """
    handle = os.open(disk, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def _go_on(disk: Path, given_up: threading.Event) -> None:
    if given_up.is_set():
        raise NotVerifiedError(f"{disk}: was not read back to its end")


def _digest(disk: Path, part: block_map.Range, given_up: threading.Event) -> str:
    digest, left = hashlib.new(part.algorithm, usedforsecurity=False), part.length
    with disk.open("rb") as file:
        file.seek(part.at)
        while left and (block := file.read(min(BLOCK_BYTES, left))):
            _go_on(disk, given_up)
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def first_difference(one: Path, other: Path, size: int, given_up: threading.Event) -> int | None:
    """The first of `size` octets in which two files differ; None where none does. A shorter one differs at its end.

    Raises:
        NotVerifiedError: `given_up` was set.
        ImageDiskError: one cannot be read.
    """
    at = 0
    try:
        with one.open("rb") as first, other.open("rb") as second:
            while at < size:
                _go_on(other, given_up)
                wanted = min(BLOCK_BYTES, size - at)
                a, b = first.read(wanted), second.read(wanted)
                if a != b or len(a) < wanted:
                    pairs = enumerate(zip(a, b, strict=False))
                    return at + next((number for number, (x, y) in pairs if x != y), min(len(a), len(b)))
                at += wanted
    except OSError as error:
        raise ImageDiskError(f"{error.filename}: cannot be read: {error.strerror}; mend the disk") from error
    return None
