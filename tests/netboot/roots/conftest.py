"""Tests here mount overlays: each process of theirs in a mount namespace of its own, without privileges in a user's.

What needs more, an NFS server that opens files by their handles, is run as root alone.
"""

import ctypes
import os
import subprocess
import sys

import pytest

from netboot.roots.importing import RootImport
from netboot.roots.store import RootStore

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 0x40000
_ALONE = os.geteuid() == 0
_entered = []

collect_ignore = [] if _ALONE else ["test_ganesha_real.py", "test_roots_desk_real.py"]


def pytest_configure(config):
    config.addinivalue_line("markers", "mounts: mounts overlays, and so runs in a mount namespace of its own")


def pytest_report_header():
    return None if _ALONE else "NFS server of roots: only root can open files by handle; left out"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if _ALONE or pyfuncitem.get_closest_marker("mounts") is None:
        return None
    command = ["unshare", "--user", "--map-root-user", "--mount", sys.executable, "-m", "pytest", "-q", "-n", "0"]
    done = subprocess.run(
        [*command, "-p", "no:cacheprovider", "--rootdir", pyfuncitem.config.rootpath, pyfuncitem.nodeid],
        cwd=pyfuncitem.config.rootpath, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return True


@pytest.fixture
def private_mounts():
    """What is mounted from here on is seen by this process and its children alone, and is gone with them."""
    if _entered or not _ALONE:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(_CLONE_NEWNS) == 0, os.strerror(ctypes.get_errno())
    assert libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) == 0, os.strerror(ctypes.get_errno())
    _entered.append(True)


@pytest.fixture
def tree(tmp_path):
    """A small root file system, with links and modes."""
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "usr/bin").mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=debian\n")
    (root / "etc/hostname").write_text("image\n")
    (root / "usr/bin/tool").write_bytes(os.urandom(200_000))
    (root / "usr/bin/tool").chmod(0o4755)
    os.link(root / "usr/bin/tool", root / "usr/bin/same")
    (root / "bin").symlink_to("usr/bin")
    return root


@pytest.fixture
def rooted(tmp_path, tree):
    """A store with the root `debian`."""
    store = RootStore(tmp_path / "store")
    RootImport(store, lossy=os.geteuid() != 0).run("debian", tree)
    return store
