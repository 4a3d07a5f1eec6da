"""Opening below a root: what may be opened, what leads out, by both ways."""

import errno
import os
from pathlib import Path

import pytest

from netboot import safe_open
from netboot.safe_open import UnsafePathError, open_beneath


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "file").write_bytes(b"inside")
    (root / "sub" / "deep").write_bytes(b"deep")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root-sibling").mkdir()
    (tmp_path / "root-sibling" / "x").write_bytes(b"secret")
    (root / "out").symlink_to("../secret")
    (root / "absolute").symlink_to("/etc/hostname")
    (root / "outdir").symlink_to("../root-sibling")
    (root / "inner").symlink_to("file")
    (root / "magic").symlink_to("/proc/self/root/etc/passwd")
    os.mkfifo(root / "fifo")
    fd = os.open(root, os.O_DIRECTORY | os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture(params=["openat2", "components"])
def way(request, monkeypatch):
    if request.param == "components":

        def missing(root_fd, path):
            raise OSError(errno.ENOSYS, "not here")

        monkeypatch.setattr(safe_open, "_openat2", missing)
    return request.param


def content(fd):
    with os.fdopen(fd, "rb") as file:
        return file.read()


def test_plain_files_open(tree, way):
    assert content(open_beneath(tree, "file")) == b"inside"
    assert content(open_beneath(tree, "sub/deep")) == b"deep"


@pytest.mark.parametrize(
    "path",
    ["", "/etc/passwd", "../secret", "sub/../../secret", "sub/../file", "./file", "sub//deep", "fi\0le", "out",
     "absolute", "outdir/x", "magic", "sub", "fifo", "..", "."],
)  # fmt: skip
def test_what_is_unsafe_is_refused(tree, way, path):
    with pytest.raises((UnsafePathError, NotADirectoryError)):
        open_beneath(tree, path)


def test_links_that_stay_inside(tree, way):
    if way == "openat2":
        assert content(open_beneath(tree, "inner")) == b"inside"
    else:
        with pytest.raises(UnsafePathError):
            open_beneath(tree, "inner")


def test_missing_is_missing(tree, way):
    with pytest.raises(FileNotFoundError):
        open_beneath(tree, "nothing")


def test_no_descriptor_leaks(tree, way):
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("out", "sub", "fifo", "nothing", "outdir/x"):
        with pytest.raises(OSError):
            open_beneath(tree, path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
