"""Mounts overlays by the kernel's own calls: mount(2), umount2(2). Needs CAP_SYS_ADMIN, here or in a user namespace."""

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from netboot.roots.errors import ViewError

_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
_MNT_DETACH = 2
_WHOLE_UID_MAP = ["0", "0", "4294967295"]
_MAX_OPTIONS_BYTES = 4095  # mount(2) takes one page
_libc = ctypes.CDLL(None, use_errno=True)


class Mounter(Protocol):
    """What views need of the kernel. All calls are quick, unless the disk hangs: not for the event loop.

    Raises:
        ViewError: the kernel refuses; the message has its reason.
    """

    def mount(self, target: Path, lowers: Sequence[Path], upper: Path | None, work: Path | None) -> None:
        """Mount an overlay, the first of `lowers` on top; read only without `upper`."""

    def unmount(self, target: Path, *, now: bool = False) -> None:
        """Take the mount at `target` away, also where somebody still has files of it open; with `now` only where nobody
        has, so that its folders are free on return. Nothing mounted is good."""

    def is_mounted(self, target: Path) -> bool:
        """Whether something is mounted at `target`."""


class KernelMounter:
    """The real one."""

    def mount(self, target: Path, lowers: Sequence[Path], upper: Path | None, work: Path | None) -> None:
        options = overlay_options(lowers, upper, work, in_user_namespace=in_user_namespace())
        flags = 0 if upper is not None else _MS_RDONLY | _MS_NOSUID | _MS_NODEV
        if len(os.fsencode(options)) > _MAX_OPTIONS_BYTES:
            raise ViewError(f"{target}: the paths are too long for an overlay: choose a shorter folder for the store")
        if _libc.mount(b"overlay", os.fsencode(target), b"overlay", flags, os.fsencode(options)):
            raise ViewError(f"{target}: the overlay cannot be mounted: {_reason()}")

    def unmount(self, target: Path, *, now: bool = False) -> None:
        while self.is_mounted(target):
            # Lazily: an NFS server that has not let go yet must not keep a board from its next boot.
            if _libc.umount2(os.fsencode(target), 0 if now else _MNT_DETACH):
                raise ViewError(f"{target}: cannot be unmounted: {_reason()}")

    def is_mounted(self, target: Path) -> bool:
        wanted = str(target)
        with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as table:
            return any(_unescaped(line.split(" ", 5)[4]) == wanted for line in table)


def overlay_options(lowers: Sequence[Path], upper: Path | None, work: Path | None, *, in_user_namespace: bool) -> str:
    """The options of an overlay (Documentation/filesystems/overlayfs.rst).

    index and nfs_export: without them an NFS server gets no file handles. userxattr: in a user namespace the kernel
    keeps overlay's marks in `user.` attributes, because `trusted.` ones are not to be had.
    """
    options = ["lowerdir=" + ":".join(str(lower) for lower in lowers)]
    if upper is not None and work is not None:
        options += [f"upperdir={upper}", f"workdir={work}", "index=on", "nfs_export=on"]
    else:
        options.append("index=off")  # what another overlay writes to may then be looked at
    if in_user_namespace:
        options.append("userxattr")
    return ",".join(options)


def in_user_namespace() -> bool:
    """Whether this process is root only in a namespace of its own."""
    return Path("/proc/self/uid_map").read_text(encoding="ascii").split() != _WHOLE_UID_MAP


def _reason() -> str:
    number = ctypes.get_errno()
    hint = " (it needs CAP_SYS_ADMIN)" if number == 1 else ""
    return os.strerror(number) + hint


def _unescaped(path: str) -> str:
    """proc(5): space, tab, newline and backslash stand there in octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, character)
    return path
