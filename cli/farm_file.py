"""The small file by which other commands of the same user find the farm that `boardhand up` runs on this machine.

It is read on the fast path of `boardhand power`: nothing heavy is imported here.
"""

import os
import stat

_MAX_BYTES = 4096  # ours has about 200; a longer file is not ours
_PRIVATE = 0o077  # no bit of these may be set: others could point our power commands at their server


class FarmFileError(Exception):
    """The file is there and must not be believed; the text names it and says why."""


def folder(environment: "os._Environ[str] | dict[str, str]") -> str:
    """The folder of the file: XDG_RUNTIME_DIR, else /run/user/UID, else a folder of this user in the temporary one."""
    uid = os.geteuid()
    runtime = environment.get("XDG_RUNTIME_DIR") or f"/run/user/{uid}"
    if os.path.isdir(runtime):  # noqa: PTH112 -- pathlib costs 4 ms on the fast path
        return runtime + "/boardhand"
    return f"{environment.get('TMPDIR') or '/tmp'}/boardhand-{uid}"  # noqa: S108 -- ownership is checked below


def path(environment: "os._Environ[str] | dict[str, str]") -> str:
    """Where the file is, whether it exists or not."""
    return folder(environment) + "/farm.json"


def read(environment: "os._Environ[str] | dict[str, str]") -> dict[str, str] | None:
    """What a running `boardhand up` wrote (`url`, `prefix`, `state_dir`), or None when none runs.

    `up` holds a lock on the file as long as it lives, so a file that a kill -9 left behind counts as absent.

    Raises:
        FarmFileError: the file belongs to somebody else, is open to others, or cannot be read as ours.
    """
    name = path(environment)
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FarmFileError(f"{name} cannot be read: {error.strerror}") from None
    try:
        _check_owner(name, os.fstat(handle))
        if not _held_by_somebody(handle):
            return None
        return _parse(name, os.read(handle, _MAX_BYTES))
    finally:
        os.close(handle)


def _check_owner(name: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise FarmFileError(f"{name} is no plain file")
    if found.st_uid != os.geteuid():
        raise FarmFileError(f"{name} belongs to user {found.st_uid}, not to you")
    if found.st_mode & _PRIVATE:
        raise FarmFileError(f"{name} is open to other users (mode {stat.S_IMODE(found.st_mode):o})")


def _held_by_somebody(handle: int) -> bool:
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _parse(name: str, text: bytes) -> dict[str, str]:
    import json

    try:
        data = json.loads(text)
    except ValueError:
        raise FarmFileError(f"{name} is no JSON") from None
    if not isinstance(data, dict) or not isinstance(data.get("url"), str):
        raise FarmFileError(f"{name} names no MQTT server")
    return {str(key): value for key, value in data.items() if isinstance(value, str)}
