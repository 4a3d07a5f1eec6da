"""Opens a regular file below a directory, and nothing else: no `..`, no absolute path, no link that leads out.

The kernel decides (openat2 with RESOLVE_BENEATH, Linux 5.6), so there is no race between check and use. Where the
call is missing or forbidden (old kernel, seccomp), every component is opened with O_NOFOLLOW: then links are refused
altogether.
"""

import ctypes
import errno
import os
import stat

_SYS_OPENAT2 = 437  # the same on every architecture, since it is newer than the unified table
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_BENEATH = 0x08
# O_NONBLOCK: opening a FIFO must not hang the worker.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_EAGAIN_TRIES = 5  # openat2 gives EAGAIN when a rename races with the walk
_MISSING = frozenset({errno.ENOSYS, errno.EPERM, errno.E2BIG})


class UnsafePathError(PermissionError):
    """The path leads out of its root, or is no regular file."""


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_libc = ctypes.CDLL(None, use_errno=True)


def _openat2(root_fd: int, path: str) -> int:
    how = _OpenHow(_FLAGS, 0, _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS)
    for _ in range(_EAGAIN_TRIES):
        fd: int = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(root_fd),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if fd >= 0:
            return fd
        if ctypes.get_errno() not in {errno.EAGAIN, errno.EINTR}:
            break
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), path)


def open_by_components(root_fd: int, path: str) -> int:
    """The way without openat2.

    Raises:
        OSError: as `open_beneath`.
    """
    folder = os.dup(root_fd)
    try:
        *parents, name = path.split("/")
        for part in parents:
            inner = os.open(part, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
            os.close(folder)
            folder = inner
        return os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=folder)
    finally:
        os.close(folder)


def open_beneath(root_fd: int, path: str) -> int:
    """A file descriptor, read only, of the regular file `path` below the directory `root_fd`.

    Raises:
        UnsafePathError: the path leads out, is absolute or empty, or names something else than a regular file.
        OSError: it is missing or may not be read.
    """
    parts = path.split("/")
    if "\0" in path or any(part in {"", ".", ".."} for part in parts):
        raise UnsafePathError(errno.EACCES, "not a plain path below its root", path)
    try:
        try:
            fd = _openat2(root_fd, path)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            fd = open_by_components(root_fd, path)
    except OSError as error:
        if error.errno in {errno.EXDEV, errno.ELOOP}:
            raise UnsafePathError(errno.EACCES, "a link leads out of its root", path) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise UnsafePathError(errno.EACCES, "not a regular file", path)
    return fd
