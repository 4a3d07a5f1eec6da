"""Which programs have a device open, as /proc shows it to us."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has the device open."""

    pid: int
    program: str

    def __str__(self) -> str:
        return f"{self.program} (process {self.pid})"


def holders(device: str, proc: Path = Path("/proc")) -> list[Holder]:
    """The other processes that have `device` open. Those of other users are seen by root alone. Blocks."""
    try:
        wanted = os.stat(device).st_rdev  # noqa: PTH116  # follows the links of /dev/serial
    except OSError:
        return []
    found = [
        Holder(int(folder.name), _name(folder))
        for folder in proc.iterdir()
        if folder.name.isdigit() and int(folder.name) != os.getpid() and _has(folder, wanted)
    ]
    return sorted(found, key=lambda holder: holder.pid)


def _has(process: Path, device: int) -> bool:
    try:
        entries = list((process / "fd").iterdir())
    except OSError:
        return False  # it has ended, or is not ours to look into
    for entry in entries:
        try:
            # Only what looks like a tty is asked: a stat of a file on a dead NFS server would never return.
            target = os.readlink(entry)  # noqa: PTH115
            if target.startswith("/dev/") and os.stat(target).st_rdev == device:  # noqa: PTH116
                return True
        except OSError:
            continue
    return False


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text(errors="replace").strip() or "a program"
    except OSError:
        return "a program"
