"""How packages become a root. That boards run from it is for `make test-roots`."""

import os
import subprocess
import tarfile

import pytest

from virtual_lab import debian_root
from virtual_lab.debian_root import DebianRootError, merged


def package(folder, name, files, links=()):
    """A Debian package with these files (paths to texts) and hard links (new path, old path)."""
    tree = folder / f"{name}.tree"
    for path, text in {**files, "DEBIAN/control": control(name)}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    for new, old in links:
        os.link(tree / old, tree / new)
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", str(tree), str(folder / f"{name}.deb")],
                   check=True, capture_output=True, timeout=30)  # fmt: skip
    return folder / f"{name}.deb"


def control(name):
    return f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x.org>\nDescription: x\n"


@pytest.fixture
def make(tmp_path, monkeypatch):
    def made(*debs):
        monkeypatch.setattr(debian_root, "_packages", lambda *_: list(debs))
        return debian_root.get(tmp_path / "cache", lambda *_: None)

    return made


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("./lib/systemd/systemd", "usr/lib/systemd/systemd"),
        ("./bin/", "bin"),
        ("./usr/bin/sh", "usr/bin/sh"),
        ("./libexec/x", "libexec/x"),
        ("./", ""),
        (".", ""),
        ("./.hidden", ".hidden"),
    ],
)
def test_the_root_is_a_usr_merged_one(name, place):
    assert merged(name) == place


def test_packages_and_what_is_ours_make_one_tree(tmp_path, make):
    one = package(tmp_path, "one", {"bin/true": "1", "usr/share/man/x": "m", "etc/passwd": "theirs"},
                  [("bin/also", "bin/true")])  # fmt: skip
    other = package(tmp_path, "other", {"usr/bin/true": "2", "usr/bin/more": "3", "etc/init.d/x": "s"})
    with tarfile.open(make(one, other)) as root:
        names = root.getnames()
        assert len(names) == len(set(names))
        assert all(name.rpartition("/")[0] in {"", *names[:number]} for number, name in enumerate(names))
        assert {(member.uid, member.gid) for member in root} == {(0, 0)}
        assert root.getmember("bin").linkname == "usr/bin"
        assert root.extractfile("usr/bin/true").read() == b"1"
        assert root.extractfile("usr/bin/also").read() == b"1"
        links = {root.getmember(f"usr/bin/{name}").linkname for name in ("also", "true")}
        assert links in ({"", "usr/bin/true"}, {"", "usr/bin/also"})
        assert root.extractfile("usr/bin/more").read() == b"3"
        assert root.extractfile("etc/passwd").read().startswith(b"root:*:0:0:")
        assert root.extractfile("usr/lib/boardhand/client.py").read() == debian_root.CLIENT_FILE.read_bytes()
        assert not {"usr/share/man/x", "etc/init.d/x", "etc/machine-id", "etc/hostname"} & set(names)


def test_it_is_made_once_and_anew_when_the_recipe_changes(tmp_path, make, monkeypatch):
    one = package(tmp_path, "one", {"usr/bin/true": "1"})
    first = make(one)
    before = first.stat().st_mtime_ns
    assert (make(tmp_path / "none.deb"), first.stat().st_mtime_ns) == (first, before)
    monkeypatch.setattr(debian_root, "_recipe", lambda: "other")
    second = make(one)
    assert second != first
    assert not first.exists()


def test_a_damaged_package_leaves_nothing(tmp_path, make):
    bad = tmp_path / "bad.deb"
    bad.write_bytes(b"no package")
    with pytest.raises(DebianRootError, match=r"bad\.deb|cannot be made"):
        make(bad)
    assert not list((tmp_path / "cache").glob("*.tar")) + list((tmp_path / "cache").glob("*.new"))
