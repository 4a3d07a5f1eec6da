"""What virtual boards boot: Debian's arm64 kernel, an initramfs with our board client, the machine's device tree.

Fetched and built once, into `lab_tools.cache_folder()`, under locks, so that two farms may start at once. The kernel
stays until the cache is removed, so a lab starts without network from then on; the initramfs is rebuilt when
the board client or its builder changed; the device tree when QEMU or U-Boot changed.

The kernel is served gzipped: 11 MB over TFTP and 1 s to unpack beat 33 MB over TFTP.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from firmware_tools import debian_packages
from firmware_tools.debian_packages import KernelTree, PackageError
from virtual_lab.initrd_recipe import build_initrd
from virtual_lab.lab_tools import LabTools
from virtual_lab.namespace import LabError
from virtual_lab.qemu_board import dump_device_tree

ARCH = "arm64"
# A lab that has been running longer than this would lose its image when another one starts with a newer client.
KEEP_INITRD_S = 30 * 24 * 3600.0
Client = Literal["busybox", "python"]
Progress = Callable[[str, int, int | None], None]
"""Takes what is being done, how much of it is done, and how much there is (None when that is not known)."""


class ArtifactError(LabError):
    """A boot file cannot be fetched or built; the message says what to do."""


@dataclass(frozen=True, slots=True)
class BootArtifacts:
    """Files in the cache. `kernel_version` is as `uname -r` will say it."""

    kernel: Path
    kernel_version: str
    initrd: Path
    device_tree: Path


def get(cache: Path, tools: LabTools, progress: Progress, client: Client = "busybox") -> BootArtifacts:
    """The boot files, from `cache` where they are there. The first time takes a minute and 80 MB of download.

    Raises:
        ArtifactError: no kernel in the cache and none to be fetched, or the initramfs cannot be built.
        LabError: QEMU does not give its device tree.
    """
    try:
        kernel = debian_packages.fetch_kernel(ARCH, cache, progress)
        with _locked(cache / "virtual-lab.lock", progress):
            initrd = _initrd(cache, kernel, client, progress)
            tree = _device_tree(cache, tools, progress)
    except PackageError as error:
        raise ArtifactError(f"the kernel for virtual boards cannot be had: {error}") from error
    except OSError as error:
        raise ArtifactError(f"the boot files cannot be kept in {cache}: {error}") from error
    return BootArtifacts(kernel.image_gz, kernel.version, initrd, tree)


@contextmanager
def _locked(path: Path, progress: Progress) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("waiting for another lab that prepares the same files", 0, None)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _initrd(cache: Path, kernel: KernelTree, client: Client, progress: Progress) -> Path:
    key = _digest([*_room_files("board"), *_room_files("firmware_tools")], kernel.version)
    target = cache / f"initrd-{ARCH}-{client}-{key}.img"
    if not target.is_file():
        progress(f"build the initramfs with the {client} client", 0, 1)
        part = target.with_suffix(".part")
        part.unlink(missing_ok=True)
        build_initrd(part, kernel, client, cache, progress)
        part.replace(target)
        _forget_old(cache, time.time() - KEEP_INITRD_S)
        progress(f"build the initramfs with the {client} client", 1, 1)
    os.utime(target)
    return target


def _forget_old(cache: Path, before: float) -> None:
    """Remove initramfs images that no lab has started with since `before`."""
    for old in cache.glob(f"initrd-{ARCH}-*.img"):
        if old.stat().st_mtime < before:
            old.unlink(missing_ok=True)


def _device_tree(cache: Path, tools: LabTools, progress: Progress) -> Path:
    key = _digest([tools.uboot, tools.qemu.resolve()])
    target = cache / f"virt-{ARCH}-{key}.dtb"
    if not target.is_file():
        progress("ask QEMU for its device tree", 0, 1)
        dump_device_tree(tools, target)
    return target


def _room_files(room: str) -> list[Path]:
    folder = Path(__file__).resolve().parent.parent / room
    return sorted(path for path in folder.iterdir() if path.suffix in {".py", ".sh"})


def _digest(files: list[Path], *more: str) -> str:
    digest = hashlib.sha256()
    for text in more:
        digest.update(text.encode() + b"\0")
    for path in files:
        with path.open("rb") as file:
            digest.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
