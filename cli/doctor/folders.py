"""Disk and files: room and inodes where the daemons write, and modes of files that hold secrets."""

import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from cli.doctor.finding import Finding, unseen, well, wrong
from cli.doctor.identity import READ, SEARCH, WRITE, Identity, mend_access, reached
from cli.doctor.wants import FolderWant, SecretWant

LEAST_FREE_BYTES = 200 * 1024 * 1024
"""Below it a night of consoles and events may fill the disk."""
LEAST_FREE_SHARE = 0.02
LEAST_FREE_INODES = 1000
_READ_ONLY = 1  # ST_RDONLY, statvfs(3)
_GiB = 1024**3


def check_folders(wants: Sequence[FolderWant], who: Mapping[str, Identity]) -> list[Finding]:
    """Each folder that a daemon writes into."""
    found = []
    for want in wants:
        subject = f"{want.purpose}: {want.path}"
        place = want.path.absolute()
        try:
            while not place.exists():
                place = place.parent
            said = folder(want, subject, place, place.stat(), os.statvfs(place), who[want.daemon])
            found.append(reached(said, place, who[want.daemon]))
        except OSError as error:
            found.append(unseen("disk", subject, f"{place}: {error.strerror}", "run it as root"))
    return found


def folder(
    want: FolderWant, subject: str, place: Path, status: os.stat_result, room: os.statvfs_result, who: Identity
) -> Finding:
    """One folder. `place` is itself, or the nearest above it that is there."""
    if not stat.S_ISDIR(status.st_mode):
        return wrong("disk", subject, f"{place} is no folder", f"mv {place} {place}.old")
    if room.f_flag & _READ_ONLY:
        return wrong(
            "disk",
            subject,
            "its file system is read-only",
            "dmesg | tail  # a disk with faults is made so by the kernel",
        )
    if not who.may(status, WRITE | SEARCH):
        make = f"install -d -o {who.name} -m 0750 {want.path}"
        give = f"chown {who.name} {place} && chmod u+rwx {place}"
        mend = make if place != want.path.absolute() else give
        return wrong("disk", subject, f"{who.name} may not write {place}", mend)
    free, whole = room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize
    if free < LEAST_FREE_BYTES or free < whole * LEAST_FREE_SHARE:
        mend = f"du -xh {place} | sort -h | tail  # see what takes the room"
        return wrong("disk", subject, f"{free / _GiB:.2f} GiB are free", mend)
    if room.f_files and room.f_favail < LEAST_FREE_INODES:
        return wrong("disk", subject, f"{room.f_favail} inodes are free", f"du -x --inodes {place} | sort -n | tail")
    return well("disk", subject, f"{free / _GiB:.1f} GiB are free")


def check_secrets(wants: Sequence[SecretWant], who: Mapping[str, Identity]) -> list[Finding]:
    """Each file with a secret."""
    found = []
    for want in wants:
        try:
            status = want.path.stat()
        except FileNotFoundError:
            mend = (
                f"boardhand token add NAME --file {want.path}  # NAME: who is to use it"
                if "tokens" in want.key
                else "write it, mode 0640"
            )
            found.append(wrong("secrets", f"{want.key}: {want.path}", "is not there", mend))
        except OSError as error:
            found.append(unseen("secrets", f"{want.key}: {want.path}", error.strerror or str(error), "run it as root"))
        else:
            found.append(reached(secret(want, status, who[want.daemon]), want.path, who[want.daemon]))
    return found


def secret(want: SecretWant, status: os.stat_result, who: Identity) -> Finding:
    """One file: for its daemon and for nobody else."""
    subject = f"{want.key}: {want.path}"
    if status.st_mode & stat.S_IRWXO:
        mode = stat.filemode(status.st_mode)
        return wrong("secrets", subject, f"everybody on this host may use it ({mode})", f"chmod o-rwx {want.path}")
    if not who.may(status, READ):
        mend = mend_access(want.path, status, who, READ)
        return wrong("secrets", subject, f"{who.name} may not read it", mend)
    return well("secrets", subject, f"{who.name} reads it, others do not")
