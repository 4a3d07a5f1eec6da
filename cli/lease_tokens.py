"""The tokens of one's own leases, kept for `boardhand power`: a file per board that only its user can read.

It is read on the fast path of `boardhand power`: nothing heavy is imported here.
"""

import contextlib
import os
import stat

from cli.target import Target

_MAX_BYTES = 32
_DIGITS = 16  # a token is at most 2**53


def folder(target: Target, environment: "os._Environ[str] | dict[str, str]") -> str:
    """Where the tokens for this farm are: below XDG_STATE_HOME, else ~/.local/state."""
    home = environment.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")  # noqa: PTH111 -- fast path
    farm = "".join(c if c.isalnum() or c in ".-" else "_" for c in f"{target.host}_{target.port}_{target.prefix}")
    return f"{home}/boardhand/leases/{farm}"


def token_for(target: Target, board: str, environment: "os._Environ[str] | dict[str, str]") -> int | None:
    """The token that was kept for the board, or None. A file of somebody else, or open to others, is not believed."""
    try:
        handle = os.open(f"{folder(target, environment)}/{board}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            return None
        text = os.read(handle, _MAX_BYTES).strip()
    finally:
        os.close(handle)
    return int(text) if text.isdigit() and len(text) <= _DIGITS and int(text) >= 1 else None


def keep(target: Target, board: str, token: int, environment: "os._Environ[str] | dict[str, str]") -> str | None:
    """Keep a token. Returns why that could not be done, or None: the lease holds all the same."""
    where = folder(target, environment)
    new = f"{where}/.{board}.{os.getpid()}"
    try:
        os.makedirs(where, mode=0o700, exist_ok=True)  # noqa: PTH103 -- fast path
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(handle, b"%d\n" % token)
        finally:
            os.close(handle)
        os.replace(new, f"{where}/{board}")  # noqa: PTH105 -- fast path
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(new)  # noqa: PTH108 -- fast path
        return f"{where}: {error.strerror}"
    return None


def forget(target: Target, board: str, environment: "os._Environ[str] | dict[str, str]") -> None:
    """The lease is over."""
    with contextlib.suppress(OSError):
        os.unlink(f"{folder(target, environment)}/{board}")  # noqa: PTH108 -- fast path
