"""Every kind of source, made by the real tools, is imported with all that is in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from netboot.roots import images
from netboot.roots.errors import LossError, SourceError
from netboot.roots.importing import ImportOptions, RootImport
from netboot.roots.store import RootStore
from tests.netboot.roots import whole_tree
from tests.netboot.roots.whole_tree import IS_ROOT, seen

TIMEOUT_S = 60
MIB = 1 << 20


def run(*command, **options):
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    done = subprocess.run(
        command, check=False, timeout=TIMEOUT_S, capture_output=True, env={**os.environ, "PATH": path}, **options
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def store(tmp_path):
    return RootStore(tmp_path / "store")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return whole_tree.make(tmp_path_factory.mktemp("source") / "tree")


def pack(tree, target, *options):
    run(
        "tar", *options, "--xattrs", "--xattrs-include=*", "--sparse", "--numeric-owner", "-cf", target, "-C", tree, "."
    )
    return target


def gnu(tree, target):
    # GNU's own form has no attributes, but sparse files and long names in another shape.
    run("tar", "--format=gnu", "--sparse", "--numeric-owner", "-cf", target, "-C", tree, ".")
    return target


def ext4(tree, target):
    run("truncate", "-s", str(64 * MIB), target)
    run("mke2fs", "-q", "-t", "ext4", "-d", tree, target)
    return target


def squashfs(tree, target):
    run("mksquashfs", tree, target, "-noappend", "-quiet", "-no-progress", "-xattrs")
    return target


ARCHIVES = {
    "tar": lambda tree, target: pack(tree, target, "--format=posix"),
    "tar.gz": lambda tree, target: pack(tree, target, "--format=posix", "--gzip"),
    "tar.xz": lambda tree, target: pack(tree, target, "--format=posix", "--xz"),
    "tar.bz2": lambda tree, target: pack(tree, target, "--format=posix", "--bzip2"),
    "tar.zst": lambda tree, target: pack(tree, target, "--format=posix", "--zstd"),
    "folder": lambda tree, _target: tree,
}


@pytest.mark.parametrize("kind", ARCHIVES)
def test_an_archive_or_a_folder_is_kept_with_all_that_is_in_it(store, whole, tmp_path, kind):
    source = ARCHIVES[kind](whole, tmp_path / f"root.{kind}")
    info = RootImport(store).run("debian", source)
    assert seen(store.tree("debian")) == seen(whole)
    assert store.tree("debian").stat().st_mode == whole.stat().st_mode
    assert whole_tree.is_sparse(store.tree("debian") / "var/sparse")
    assert (info.lost, store.verify("debian")) == ({}, [])


def test_the_same_root_has_the_same_checksum_whichever_way_it_came(store, whole, tmp_path):
    first = RootImport(store).run("one", pack(whole, tmp_path / "root.tar", "--format=posix"))
    second = RootImport(store).run("two", whole)
    assert first.sha256 == second.sha256
    assert (first.files, first.size_bytes) == (second.files, second.size_bytes)


def test_an_archive_in_gnus_own_form_keeps_what_that_can_hold(store, whole, tmp_path):
    RootImport(store).run("debian", gnu(whole, tmp_path / "root.tar"))
    without = {path: entry[:2] + entry[3:4] + entry[5:] for path, entry in seen(whole, seconds=True).items()}
    kept = {path: entry[:2] + entry[3:4] + entry[5:] for path, entry in seen(store.tree("debian")).items()}
    assert kept == without
    assert whole_tree.is_sparse(store.tree("debian") / "var/sparse")


def test_a_squashfs_image_is_kept_with_all_that_is_in_it(store, whole, tmp_path):
    info = RootImport(store).run("debian", squashfs(whole, tmp_path / "root.sqfs"))
    assert seen(store.tree("debian"), seconds=True) == seen(whole, seconds=True)
    assert store.tree("debian").stat().st_mode == whole.stat().st_mode
    assert info.lost == {}


def check_ext4(store, whole, source, **options):
    """As root everything; a user is told what he would lose, and loses it when he says so."""
    if IS_ROOT:
        info = RootImport(store, ImportOptions(**options)).run("debian", source)
        assert seen(store.tree("debian"), seconds=True) == seen(whole, seconds=True)
        assert info.lost == {}
        return
    with pytest.raises(LossError, match="--lossy"):
        RootImport(store, ImportOptions(**options)).run("debian", source)
    info = RootImport(store, ImportOptions(lossy=True, **options)).run("debian", source)
    assert info.lost
    assert (store.tree("debian") / "etc/os-release").read_text() == "ID=debian\n"


def test_an_ext4_image_is_kept_with_all_that_is_in_it(store, whole, tmp_path):
    check_ext4(store, whole, ext4(whole, tmp_path / "root.img"))


@pytest.fixture(params=["gpt", "dos"])
def disk(request, whole, tmp_path):
    """A disk as boards have it: a FAT partition to boot from, and the root."""
    image, root = tmp_path / "disk.img", ext4(whole, tmp_path / "root.img")
    run("truncate", "-s", str(80 * MIB), image)
    fat, linux = ("U", "L") if request.param == "gpt" else ("c", "83")
    table = f"label: {request.param}\nstart=2048, size=16384, type={fat}\nstart=18432, size=131072, type={linux}\n"
    run("sfdisk", "-q", image, input=table.encode())
    with image.open("r+b") as file:
        file.seek(2048 * 512)
        file.write(b"\xeb\x58\x90" + bytes(0x52 - 3) + b"FAT32   ")
        file.seek(18432 * 512)
        file.write(root.read_bytes())
    return image


def test_a_partition_of_a_disk_is_imported_when_it_is_named(store, whole, disk):
    with pytest.raises(SourceError, match=r"--partition .*1 \(vfat, 8 MB\), 2 \(ext4, 67 MB\)"):
        RootImport(store).run("debian", disk)
    with pytest.raises(SourceError, match="has no partition 7; it has: 1"):
        RootImport(store, ImportOptions(partition=7)).run("debian", disk)
    with pytest.raises(SourceError, match="partition 1 holds neither ext4 nor squashfs"):
        RootImport(store, ImportOptions(partition=1)).run("debian", disk)
    assert list((store.folder / "incoming").iterdir()) == []
    check_ext4(store, whole, disk, partition=2)


def test_a_packed_image_is_unpacked_first(store, whole, tmp_path):
    image = squashfs(whole, tmp_path / "root.sqfs")
    run("xz", "-0", image)
    RootImport(store).run("debian", tmp_path / "root.sqfs.xz")
    assert seen(store.tree("debian"), seconds=True) == seen(whole, seconds=True)


def test_options_that_do_not_fit_the_source_are_said(store, whole):
    with pytest.raises(SourceError, match="leave --partition out"):
        RootImport(store, ImportOptions(partition=1)).run("debian", whole)
    with pytest.raises(SourceError, match="leave --arch out"):
        RootImport(store, ImportOptions(arch="arm64")).run("debian", whole)
    with pytest.raises(SourceError, match="leave --sha256 out"):
        RootImport(store, ImportOptions(sha256="0" * 64)).run("debian", whole)


def test_a_file_system_that_was_not_unmounted_is_not_imported_half(store, whole, tmp_path):
    image = ext4(whole, tmp_path / "root.img")
    run("debugfs", "-w", "-R", "feature needs_recovery", image)
    with pytest.raises(SourceError, match="e2fsck"):
        RootImport(store).run("debian", image)


def test_what_a_user_cannot_keep_is_refused_and_named(store, whole, tmp_path):
    """As a user who may not change owners: in a user namespace of its own, where nobody is root."""
    foreign = Path(tmp_path, "foreign.tar")
    run("tar", "--format=posix", "--owner=1234:1234", "--group=77:77", "-cf", foreign, "-C", whole, "etc/os-release")
    code = (
        "import sys; from pathlib import Path\n"
        "from netboot.roots.importing import *; from netboot.roots.store import RootStore\n"
        "info = RootImport(RootStore(Path(sys.argv[1])), ImportOptions(lossy=sys.argv[3] == 'lossy')).run('r', "
        "Path(sys.argv[2]))\n"
        "print(info.lost)"
    )
    command = ["unshare", "--user", sys.executable, "-c", code, tmp_path / "store", foreign]
    done = subprocess.run([*command, "strict"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert f"LossError: {foreign}: etc/os-release: owners cannot be kept by user" in done.stderr
    assert "--lossy" in done.stderr
    assert list((store.folder / "incoming").iterdir()) == []
    assert store.names() == []
    done = subprocess.run([*command, "lossy"], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.stdout == "{'owners': 1}\n", done.stderr


TABLES = {
    "gpt": "label: gpt\nsize=1MiB\nsize=2MiB\nstart=8MiB, size=3MiB\n",
    "primary": "label: dos\nsize=1MiB, type=c\nsize=2MiB\n",
    "logical": "label: dos\nsize=1MiB\nsize=20MiB, type=5\nsize=2MiB\nsize=3MiB\nsize=4MiB\nsize=1MiB\n",
}


@pytest.mark.parametrize("kind", TABLES)
def test_partitions_are_found_where_sfdisk_put_them(tmp_path, kind):
    image = tmp_path / "disk.img"
    run("truncate", "-s", str(32 * MIB), image)
    run("sfdisk", "-q", image, input=TABLES[kind].encode())
    said = json.loads(run("sfdisk", "--json", image))["partitiontable"]["partitions"]
    expected = [
        (int(part["node"].removeprefix(str(image))), part["start"] * 512, part["size"] * 512)
        for part in said
        if part["type"] != "5"
    ]
    assert [(part.number, part.start_bytes, part.size_bytes) for part in images.partitions(image)] == expected
    assert len(expected) == {"gpt": 3, "primary": 2, "logical": 5}[kind]
