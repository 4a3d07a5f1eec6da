"""Fetching packages: the real thing from this machine's sources, and apt's many ways to fail from scripts."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from firmware_tools import debian_packages
from firmware_tools.debian_packages import AptView, PackageError, cache_dir, fetch_busybox, fetch_kernel, fetch_python


def test_a_kernel(kernel):
    assert kernel.image.read_bytes()[56:60] == b"ARM\x64"  # booting.rst of arm64: the magic of an Image
    assert kernel.image_gz.read_bytes()[:2] == b"\x1f\x8b"
    assert kernel.modules_dir.name == kernel.version
    assert (kernel.modules_dir / "modules.builtin").is_file()


def test_a_busybox_for_the_other_architecture(busybox):
    head = busybox.read_bytes()[:20]
    assert head[:5] == b"\x7fELF\x02" and head[18:20] == b"\xb7\x00"  # EM_AARCH64


def test_a_second_call_touches_nothing(kernel, busybox, python_root, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    assert fetch_kernel("arm64", cache_dir()) == kernel
    assert fetch_busybox("arm64", cache_dir()) == busybox
    assert fetch_python("arm64", cache_dir()) == python_root


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setenv("BOARDHAND_CACHE", "/a/b")
    assert cache_dir() == Path("/a/b")
    monkeypatch.delenv("BOARDHAND_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_dir() == Path("/x/boardhand")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/somewhere")
    assert cache_dir() == Path("/somewhere/.cache/boardhand")


# --- apt from scripts: `apt-cache show X` prints show/X; `apt-get download` copies debs/X.deb -------------------------

SHOW = """#!/bin/sh
for last; do :; done
cat "$FAKE/show/$last" 2>/dev/null || { echo "E: No packages found" >&2; exit 100; }
"""
GET = """#!/bin/sh
echo "$@" >>"$FAKE/calls"
uris=
names=
for word; do
    case $word in
    -*=*) ;;
    --print-uris) uris=1 ;;
    update) exit 100 ;;
    -* | download) ;;
    *) names="$names $word" ;;
    esac
done
for name in $names; do
    [ -f "$FAKE/debs/$name.deb" ] || { echo "E: Unable to fetch $name" >&2; exit 100; }
    if [ -n "$uris" ]; then echo "'http://x/$name.deb' $name.deb $(wc -c <"$FAKE/debs/$name.deb") SHA256:0"
    else cp "$FAKE/debs/$name.deb" .; fi
done
"""


class FakeApt:
    def __init__(self, folder):
        self.folder = folder
        for name, text in (("apt-cache", SHOW), ("apt-get", GET)):
            (folder / "bin").mkdir(exist_ok=True)
            (folder / "bin" / name).write_text(text)
            (folder / "bin" / name).chmod(0o755)
        for name in ("show", "debs"):
            (folder / name).mkdir()

    def package(self, name, depends="", files=None):
        """A real .deb, made by dpkg-deb."""
        control = f"Package: {name}\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDepends: {depends}\n"
        control = control.replace("Depends: \n", "") + "Description: x\n"
        (self.folder / "show" / name).write_text(control)
        tree = self.folder / "tree" / name
        (tree / "DEBIAN").mkdir(parents=True)
        (tree / "DEBIAN/control").write_text(control)
        for path, content in (files or {}).items():
            target = tree / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                target.symlink_to(content)
            else:
                target.write_bytes(content)
                target.chmod(0o755)
        command = ["dpkg-deb", "--root-owner-group", "-b", tree, self.folder / "debs" / f"{name}.deb"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture
def apt(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE", str(tmp_path))
    fake = FakeApt(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    return fake


def test_an_ubuntu_kernel_in_two_packages(apt, tmp_path):
    apt.package("linux-image-generic", "linux-image-6.8.0-9-generic, linux-firmware")
    empty = b"\x1f\x8b\x08" + bytes(7) + b"\x03\x00" + bytes(8)
    apt.package("linux-image-6.8.0-9-generic", "kmod, linux-modules-6.8.0-9-generic (>= 1) | x",
                files={"boot/vmlinuz-6.8.0-9-generic": empty})  # fmt: skip
    apt.package("linux-modules-6.8.0-9-generic", files={
        "usr/lib/modules/6.8.0-9-generic/kernel/drivers/net/a.ko": b"module",
        "usr/lib/modules/6.8.0-9-generic/kernel/sound/b.ko": b"noise", "usr/share/doc/x": b"doc"})  # fmt: skip
    said = []
    tree = fetch_kernel("arm64", tmp_path / "into", lambda *words: said.append(words))
    assert tree.version == "6.8.0-9-generic" and tree.image.read_bytes() == b""  # it was packed, and is empty
    assert (tree.modules_dir / "kernel/drivers/net/a.ko").read_bytes() == b"module"
    assert not (tree.modules_dir / "kernel/sound").exists()
    assert any(text.startswith("download") and done == total for text, done, total in said)
    assert "-oAPT::Architecture=arm64" in (tmp_path / "calls").read_text()


def test_an_older_cache_is_made_anew(apt, tmp_path):
    (tmp_path / "into/kernel-arm64").mkdir(parents=True)
    (tmp_path / "into/kernel-arm64/tree.json").write_text('{"version": "5"}')
    with pytest.raises(PackageError, match="linux-image-arm64"):
        fetch_kernel("arm64", tmp_path / "into")


def test_a_source_without_the_architecture_says_what_to_do(apt, tmp_path):
    with pytest.raises(PackageError, match=r"no package busybox-static for arm64.*\[arch=arm64\]"):
        fetch_busybox("arm64", tmp_path / "into")
    with pytest.raises(PackageError, match="linux-image-arm64"):
        fetch_kernel("arm64", tmp_path / "into")
    with pytest.raises(PackageError, match="no kernel package is known for vax"):
        fetch_kernel("vax", tmp_path / "into")


def test_a_download_that_fails_leaves_nothing_behind(apt, tmp_path):
    apt.package("busybox-static", files={"usr/bin/busybox": b"bb"})
    (tmp_path / "debs/busybox-static.deb").rename(tmp_path / "away")
    with pytest.raises(PackageError, match="Unable to fetch busybox-static"):
        fetch_busybox("arm64", tmp_path / "into")
    (tmp_path / "away").rename(tmp_path / "debs/busybox-static.deb")
    assert fetch_busybox("arm64", tmp_path / "into").read_bytes() == b"bb"


def test_a_damaged_package_is_an_error(apt, tmp_path):
    apt.package("busybox-static", files={"bin/busybox": b"bb"})
    (tmp_path / "debs/busybox-static.deb").write_bytes(b"!<arch>\nno")
    with pytest.raises(PackageError, match=r"busybox-static\.deb"):
        fetch_busybox("arm64", tmp_path / "into")


def test_a_package_without_what_it_is_for(apt, tmp_path):
    apt.package("python3-minimal", "python3.99-minimal, dpkg (>= 1), libgone | libc6", files={"usr/share/x": b""})
    for name in ("python3.99-minimal", "libpython3-stdlib", "libgone"):
        apt.package(name)
    with pytest.raises(PackageError, match="hold no usr/bin/python3"):
        fetch_python("arm64", tmp_path / "into")
    apt.package("linux-image-arm64", "linux-image-6.1-arm64")
    apt.package("linux-image-6.1-arm64", files={"usr/share/x": b""})
    with pytest.raises(PackageError, match="holds no boot/vmlinuz"):
        fetch_kernel("arm64", tmp_path / "into")


def test_without_apt_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PackageError, match="apt-get is not there"):
        fetch_busybox("arm64", tmp_path / "into")


def test_links_and_folders_in_packages(apt, tmp_path):
    apt.package("p", files={"usr/bin/real": b"#!", "bin2/link": "real", "etc/no": b"", "usr/lib/x/y": b"1"})
    debian_packages._unpack(tmp_path / "debs/p.deb", tmp_path / "out", lambda path: not path.startswith("etc/"))
    assert (tmp_path / "out/bin/real").stat().st_mode & 0o777 == 0o755
    assert str((tmp_path / "out/bin2/link").readlink()) == "real"
    assert (tmp_path / "out/lib/x/y").read_bytes() == b"1"
    assert not (tmp_path / "out/etc").exists()


def test_dependencies(apt, tmp_path):
    apt.package("a", "b (>= 1), c:any | d,  e.f+g")
    assert AptView("arm64", tmp_path / "view").depends("a") == ["b", "c", "e.f+g"]
    with pytest.raises(PackageError, match="nothing"):
        AptView("arm64", tmp_path / "view").depends("nothing")


def test_the_tools_that_are_needed_are_here():
    assert all(shutil.which(tool) for tool in ("apt-get", "apt-cache", "dpkg-deb", "busybox", "qemu-system-aarch64"))
