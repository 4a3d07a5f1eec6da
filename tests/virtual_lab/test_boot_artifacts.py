"""Boot files: from the cache, built once, and told in words when they cannot be had."""

import fcntl
import gzip
import os
import threading

import pytest

from firmware_tools import debian_packages
from firmware_tools.debian_packages import KernelTree, PackageError
from firmware_tools.image import device_tree
from virtual_lab import boot_artifacts
from virtual_lab.boot_artifacts import ArtifactError
from virtual_lab.lab_tools import cache_folder, find_tools


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """A fetched kernel, and an initramfs builder that counts."""
    folder = tmp_path / "kernel-arm64"
    folder.mkdir()
    (folder / "Image.gz").write_bytes(gzip.compress(b"kernel"))
    tree = KernelTree("arm64", "6.1.0-test", folder / "Image", folder / "Image.gz", folder / "modules")
    built = []

    def build(target, given, client, cache, progress):
        built.append((given.version, client))
        target.write_bytes(b"initrd")

    monkeypatch.setattr(debian_packages, "fetch_kernel", lambda *_: tree)
    monkeypatch.setattr(boot_artifacts, "build_initrd", build)
    return built


def test_everything_is_built_once_and_found_again(tmp_path, kernel):
    said = []
    first = boot_artifacts.get(tmp_path, find_tools(), lambda *what: said.append(what))
    assert first == boot_artifacts.get(tmp_path, find_tools(), lambda *what: said.append(what))
    assert kernel == [("6.1.0-test", "busybox")]
    assert first.kernel_version == "6.1.0-test"
    assert device_tree.read(first.device_tree.read_bytes()).root.properties["compatible"] == b"linux,dummy-virt\0"
    other = boot_artifacts.get(tmp_path, find_tools(), lambda *what: said.append(what), "python")
    assert other.initrd != first.initrd
    assert not list(tmp_path.glob("*.part"))


def test_a_changed_client_means_a_new_initramfs(tmp_path, kernel, monkeypatch):
    first = boot_artifacts.get(tmp_path, find_tools(), lambda *_: None)
    changed = tmp_path / "client.sh"
    changed.write_text("other")
    monkeypatch.setattr(boot_artifacts, "_room_files", lambda _: [changed])
    assert boot_artifacts.get(tmp_path, find_tools(), lambda *_: None).initrd != first.initrd
    assert len(kernel) == 2


def test_images_that_nobody_used_for_long_are_removed(tmp_path, kernel):
    old, used = tmp_path / "initrd-arm64-busybox-old.img", tmp_path / "initrd-arm64-busybox-used.img"
    for path in (old, used):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    boot_artifacts.get(tmp_path, find_tools(), lambda *_: None)
    assert not old.exists()
    assert used.exists()


def test_a_second_lab_says_that_it_waits(tmp_path, kernel):
    said = []
    waiting = threading.Event()

    def progress(text, done, of):
        said.append(text)
        if "waiting for another lab" in text:
            waiting.set()

    with (tmp_path / "virtual-lab.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=boot_artifacts.get, args=(tmp_path, find_tools(), progress))
        second.start()
        assert waiting.wait(60)
        assert kernel == []
    second.join(60)
    assert kernel == [("6.1.0-test", "busybox")]


def test_no_package_and_no_room_are_told_in_words(tmp_path, monkeypatch):
    def fail(arch, into, progress):
        raise PackageError("apt's sources have no package linux-image-arm64")

    monkeypatch.setattr(debian_packages, "fetch_kernel", fail)
    with pytest.raises(ArtifactError, match="cannot be had: apt's sources have no package"):
        boot_artifacts.get(tmp_path, find_tools(), lambda *_: None)
    (tmp_path / "file").write_text("")
    monkeypatch.undo()
    with pytest.raises(ArtifactError, match="cannot be kept in"):
        boot_artifacts.get(tmp_path / "file", find_tools(), lambda *_: None)


def test_the_cache_is_where_the_user_says():
    assert str(cache_folder({"BOARDHAND_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"})) == "/a"
    assert str(cache_folder({"XDG_CACHE_HOME": "/b", "HOME": "/c"})) == "/b/boardhand"
    assert str(cache_folder({"HOME": "/c"})) == "/c/.cache/boardhand"
