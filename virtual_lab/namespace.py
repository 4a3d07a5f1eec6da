"""Private network namespaces, without privileges where the kernel allows it.

Everything here changes the calling thread, so it belongs into a process that has started no thread yet.
Python 3.11 has no `os.unshare` and `os.setns` (3.12 has), so libc is called through ctypes.
"""

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# linux/sched.h
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
# linux/prctl.h
_PR_SET_PDEATHSIG = 1

NO_RIGHTS_HINT = (
    "this system lets no ordinary user make a network namespace: run as root, or allow it "
    "(sysctl kernel.unprivileged_userns_clone=1; on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0)"
)

_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The virtual lab cannot do what was asked; the message says why and what to do."""


class NamespaceError(LabError):
    """The kernel refuses a private network namespace."""


def _failed() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _refusal(error: OSError) -> str:
    if error.errno in {errno.EPERM, errno.EACCES}:
        return NO_RIGHTS_HINT
    if error.errno == errno.ENOSPC:
        return "no more namespaces are allowed: raise user.max_net_namespaces and user.max_user_namespaces with sysctl"
    if error.errno == errno.EINVAL:
        return "the kernel has no network namespaces, or this process already has more than one thread"
    return f"a network namespace cannot be made: {error.strerror}"


def is_privileged() -> bool:
    """Whether this process may make a network namespace without a user namespace."""
    return os.geteuid() == 0


def enter_private_network() -> bool:
    """Move this process into a network namespace of its own, empty but for a `lo` that is down.

    As root only the network changes. Otherwise a user namespace comes with it, in which this user is root: it may
    then set up interfaces and bind low ports inside, and nothing more outside than before.

    Returns:
        True when a user namespace was needed.

    Raises:
        NamespaceError: the kernel refuses; the message says what to change.
    """
    if is_privileged() and _libc.unshare(_CLONE_NEWNET) == 0:
        return False
    user, group = os.geteuid(), os.getegid()
    if _libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise NamespaceError(_refusal(_failed()))
    try:
        # user_namespaces(7): without "deny" the kernel refuses gid_map to a process without CAP_SETGID outside.
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1", encoding="ascii")
    except OSError as error:
        raise NamespaceError(_refusal(error)) from error
    return True


def open_own_network() -> int:
    """A file descriptor of the calling thread's network namespace; the namespace lives while it is open."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def network_identity() -> int:
    """The inode number of the calling thread's network namespace: two namespaces never share one at one time."""
    return Path("/proc/thread-self/ns/net").stat().st_ino


def _set_network(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
        raise NamespaceError(f"the network namespace cannot be entered: {_failed().strerror}")


@contextmanager
def inside(descriptor: int) -> Iterator[None]:
    """Run the block with the calling thread in the network namespace `descriptor`.

    Sockets stay in the namespace they were made in, so the block should only make sockets. It must not await.

    Raises:
        NamespaceError: the kernel refuses.
    """
    home = open_own_network()
    try:
        _set_network(descriptor)
        try:
            yield
        finally:
            _set_network(home)
    finally:
        os.close(home)


def new_network() -> int:
    """A new network namespace, as a file descriptor; the caller stays where it is. Needs root, here or mapped.

    Raises:
        NamespaceError: the kernel refuses.
    """
    home = open_own_network()
    try:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            raise NamespaceError(_refusal(_failed()))
        try:
            return open_own_network()
        finally:
            _set_network(home)
    finally:
        os.close(home)


def die_with_parent(signal_number: int) -> None:
    """Ask the kernel to send this process `signal_number` when the thread that started it ends (prctl(2))."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
