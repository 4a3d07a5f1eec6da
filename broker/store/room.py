"""Whether the folder of the store can take more jobs. It is asked before a job is accepted, because afterwards it must
not be lost."""

import os
from pathlib import Path

# A job, its log and its answers need a few MiB; what was accepted goes on down to the last byte.
MIN_FREE_BYTES = 48 << 20


def why_no_room(folder: Path, min_free_bytes: int = MIN_FREE_BYTES) -> str | None:
    """Why no new job can be stored there, or None. Blocks."""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return f"the broker's folder {folder} cannot be read: {error.strerror}"
    if found.f_flag & os.ST_RDONLY or not os.access(folder, os.W_OK):
        return f"the broker's folder {folder} is read-only: no job can be stored; make it writable"
    free = found.f_bavail * found.f_frsize
    if free < min_free_bytes:
        return (
            f"the broker's disk is full: {free >> 20} MiB are free for {folder}, and {min_free_bytes >> 20} MiB are"
            " kept for the jobs it has; make room there"
        )
    return None
