"""Roots: what is imported is kept whole, what is unsafe is refused, identities stay the board's own."""

import io
import os
import subprocess
import tarfile

import pytest

from netboot.roots.errors import NoSuchRootError, RootError, RootExistsError, SourceError, UnsafeSourceError
from netboot.roots.identity import IdentityKeeper
from netboot.roots.importing import RootImport
from netboot.roots.store import RootStore


@pytest.fixture
def store(tmp_path):
    return RootStore(tmp_path / "store")


@pytest.fixture
def tree(tmp_path):
    """A small root file system, with links and modes."""
    root = tmp_path / "tree"
    (root / "etc").mkdir(parents=True)
    (root / "usr/bin").mkdir(parents=True)
    (root / "etc/os-release").write_text("ID=debian\n")
    (root / "usr/bin/tool").write_bytes(os.urandom(200_000))
    (root / "usr/bin/tool").chmod(0o4755)
    os.link(root / "usr/bin/tool", root / "usr/bin/same")
    (root / "bin").symlink_to("usr/bin")
    (root / "etc/absolute").symlink_to("/etc/os-release")
    return root


def seen(root):
    """All of a tree that an import must keep."""
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        if path.is_symlink():
            found[path.relative_to(root)] = ("link", path.readlink())
        elif path.is_dir():
            found[path.relative_to(root)] = (status.st_mode, status.st_uid)
        else:
            found[path.relative_to(root)] = (status.st_mode, status.st_uid, status.st_nlink, path.read_bytes())
    return found


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.zst", "directory"])
def test_what_is_imported_is_kept_whole_and_can_be_verified(store, tree, tmp_path, kind):
    source = tree
    if kind != "directory":
        source = tmp_path / f"root.{kind}"
        flag = {"tar": [], "tar.gz": ["--gzip"], "tar.zst": ["--zstd"]}[kind]
        subprocess.run(["tar", *flag, "-cf", source, "-C", tree, "."], check=True, timeout=60)
    info = RootImport(store).run("debian", source)
    assert (info.name, store.names(), info.lost) == ("debian", ["debian"], {})
    assert seen(store.tree("debian")) == seen(tree)
    assert store.verify("debian") == []
    with pytest.raises(RootExistsError):
        RootImport(store).run("debian", source)
    (store.tree("debian") / "etc/os-release").write_text("ID=else\n")
    assert store.verify("debian") != []
    store.remove("debian")
    assert store.names() == []
    with pytest.raises(NoSuchRootError):
        store.tree("debian")


def archive(tmp_path, *members):
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w") as tar:
        for name, link, content in members:
            member = tarfile.TarInfo(name)
            if link is not None:
                member.type, member.linkname = tarfile.SYMTYPE, link
            else:
                member.size = len(content)
            tar.addfile(member, io.BytesIO(content) if link is None else None)
    return path


@pytest.mark.parametrize(
    "members",
    [
        [("../out", None, b"x")],
        [("a/../../out", None, b"x")],
        [("link", "/tmp", b""), ("link/out", None, b"x")],  # noqa: S108 -- the very name that must not be followed
        [("link", "../..", b""), ("link/out", None, b"x")],
    ],
)
def test_what_leads_out_of_a_root_is_refused_and_leaves_nothing(store, tmp_path, members):
    with pytest.raises(UnsafeSourceError):
        RootImport(store, lossy=os.geteuid() != 0).run("evil", archive(tmp_path, *members))
    assert store.names() == []
    assert list((store.folder / "incoming").iterdir()) == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"no archive at all" * 100])
def test_what_is_no_root_is_told(store, tmp_path, content):
    path = tmp_path / "junk"
    path.write_bytes(content)
    with pytest.raises(SourceError, match="junk"):
        RootImport(store).run("junk", path)


def test_an_archive_that_was_cut_leaves_nothing(store, tree, tmp_path):
    path = tmp_path / "cut.tar"
    subprocess.run(["tar", "-cf", path, "-C", tree, "."], check=True, timeout=60)
    os.truncate(path, 100_000)
    with pytest.raises(RootError):
        RootImport(store).run("cut", path)
    assert store.names() == []
    assert list((store.folder / "incoming").iterdir()) == []


def test_an_identity_is_made_once_and_stays(tmp_path):
    keeper = IdentityKeeper(tmp_path / "identities")
    first = {file.path: file for file in keeper.files("pi-1")}
    assert {file.path: file for file in IdentityKeeper(tmp_path / "identities").files("pi-1")} == first
    other = {file.path: file for file in keeper.files("pi-2")}
    assert first["etc/hostname"].content == b"pi-1\n"
    for path in ("etc/machine-id", "etc/ssh/ssh_host_ed25519_key", "etc/ssh/ssh_host_rsa_key"):
        assert first[path].content != other[path].content
    assert first["etc/ssh/ssh_host_ed25519_key"].mode == 0o600
    for file in (tmp_path / "identities" / "pi-1").iterdir():
        assert file.stat().st_mode & 0o077 == 0 or file.suffix == ".pub", file
    keeper.forget("pi-1")
    assert keeper.files("pi-1") != list(first.values())
