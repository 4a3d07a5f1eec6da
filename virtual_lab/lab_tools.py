"""The programs and files from Debian's packages that virtual boards need, found or asked for in plain words."""

import os
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from virtual_lab.namespace import LabError

QEMU = "qemu-system-aarch64"
UBOOT_VARIABLE = "BOARDHAND_UBOOT_ARM64"
CACHE_VARIABLE = "BOARDHAND_CACHE"
# Where Debian's and Ubuntu's u-boot-qemu puts it.
_UBOOT_PLACES = (Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin"),)
# sockaddr_un holds 108 bytes with the final NUL.
MAX_SOCKET_PATH_BYTES = 107
# A chatty board fills this in a day; two of them are kept.
LOG_MAX_BYTES = 16 * 1024 * 1024


class MissingToolError(LabError):
    """A program or file is not installed; the message names the package."""


@dataclass(frozen=True, slots=True)
class LabTools:
    """Paths of what QEMU boards are made of."""

    qemu: Path
    uboot: Path


def find_tools(environment: Mapping[str, str] = os.environ) -> LabTools:
    """QEMU for arm64 and a U-Boot for its `virt` machine. `BOARDHAND_UBOOT_ARM64` names another U-Boot.

    Raises:
        MissingToolError: one is not there; says what to install.
    """
    qemu = shutil.which(QEMU, path=environment.get("PATH"))
    named = environment.get(UBOOT_VARIABLE)
    places = (Path(named),) if named else _UBOOT_PLACES
    uboot = next((place for place in places if place.is_file()), None)
    missing = [] if qemu else [QEMU]
    if uboot is None:
        if named:
            raise MissingToolError(f"{UBOOT_VARIABLE}={named} is not there, or is no file")
        missing.append("U-Boot for QEMU arm64")
    if qemu is None or uboot is None:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingToolError(
            f"{' and '.join(missing)} {verb} not installed: apt-get install --no-install-recommends "
            "qemu-system-arm u-boot-qemu"
        )
    return LabTools(Path(qemu), uboot)


def cache_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where downloaded and built boot files are kept: `BOARDHAND_CACHE`, else `boardhand` in the user's cache."""
    if named := environment.get(CACHE_VARIABLE):
        return Path(named)
    base = environment.get("XDG_CACHE_HOME") or str(Path(environment.get("HOME", "~")).expanduser() / ".cache")
    return Path(base) / "boardhand"


def check_socket_path(path: Path) -> Path:
    """`path`, if a unix socket can have it.

    Raises:
        LabError: it is too long.
    """
    length = len(os.fsencode(path))
    if length > MAX_SOCKET_PATH_BYTES:
        raise LabError(
            f"{path}: a unix socket's path has at most {MAX_SOCKET_PATH_BYTES} bytes, this one {length}: "
            "choose a shorter --dir"
        )
    return path


def keep_log_small(log: Path) -> None:
    """Move a log of more than 16 MB aside, over the one that was moved before.

    Raises:
        OSError: it cannot be moved.
    """
    with suppress(FileNotFoundError):
        if log.stat().st_size > LOG_MAX_BYTES:
            log.replace(log.with_name(log.name + ".1"))


def remove_stale_socket(path: Path) -> None:
    """Remove what an earlier run left at `path`, if it is a socket.

    Raises:
        LabError: something else is there.
    """
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise LabError(f"{path} is in the way: it is no socket; move it, or choose another --dir")
    path.unlink()
