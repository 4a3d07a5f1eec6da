"""An import that is cut, whatever cuts it, leaves nothing half: no root, and no leftover after the next start."""

import gzip
import hashlib
import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from contextlib import contextmanager

import pytest

from netboot.roots.errors import RootError, RootExistsError, RootInUseError, SourceError, StoreError, StoreFullError
from netboot.roots.import_errors import ChecksumError
from netboot.roots.importing import ImportOptions, RootImport
from netboot.roots.store import RootStore

DEADLINE_S = 60
MIB = 1 << 20


@pytest.fixture
def store(tmp_path):
    return RootStore(tmp_path / "store")


def make(path, size, files=8):
    """An archive of so many octets that cannot be packed, owned by who runs this."""
    with tarfile.open(path, "w") as tar:
        for number in range(files):
            info = tarfile.TarInfo(f"file-{number}")
            info.size, info.uid, info.gid = size // files, os.geteuid(), os.getegid()
            tar.addfile(info, io.BytesIO(os.urandom(info.size)))
    return path


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return make(tmp_path_factory.mktemp("source") / "root.tar", 12 * MIB)


def leftovers(store):
    return sorted(store.folder.glob("incoming/*")) + sorted(store.folder.glob("trash/*"))


CHILD = """
import sys, threading
from pathlib import Path
from netboot.roots import store as stores
from netboot.roots.importing import ImportOptions, RootImport
from netboot.roots.store import RootStore

def stop(stage):
    if stage == wanted:
        print("at", flush=True)
        threading.Event().wait()

wanted, folder, source, sha256 = sys.argv[1:]
synced = []
if wanted == "before the rename":  # the first is the early one, of another thread
    stores._sync = lambda folder: synced.append(folder) if not synced else stop("before the rename")
if wanted == "after the rename":
    stores._sync_folder = lambda folder: stop("after the rename")
progress = lambda what, done, of: stop(what.split(" root")[0])
RootImport(RootStore(Path(folder)), ImportOptions(sha256=sha256), progress=progress).run("debian", Path(source))
"""


def stopped_at(stage, store, archive, by=signal.SIGKILL):
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, stage, store.folder, archive, sha256],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    timer = threading.Timer(DEADLINE_S, child.kill)
    timer.start()
    try:
        assert child.stdout.readline() == "at\n"
        os.kill(child.pid, by)
        assert child.wait(DEADLINE_S) == -by
    finally:
        timer.cancel()
        child.kill()
        child.stdout.close()


@pytest.mark.parametrize("stage", ["import", "compare the checksum", "write the manifest", "before the rename"])
def test_a_kill_leaves_no_root_and_the_next_import_sweeps(store, archive, stage):
    stopped_at(stage, store, archive)
    assert store.names() == []
    left = list(store.folder.glob("incoming/debian.*"))
    assert len(left) == 1
    # tar may live for a moment: until it has ended, its place is not swept under its hands.
    done = threading.Event()
    for _ in range(500):
        RootImport(RootStore(store.folder)).run("other", archive)
        store.remove("other")
        store.empty_trash()
        if not left[0].exists():
            break
        done.wait(0.02)
    assert leftovers(store) == []
    info = RootImport(store).run("debian", archive)
    assert (info.files, store.verify("debian")) == (9, [])


@pytest.mark.parametrize("stage", ["import", "compare the checksum", "write the manifest", "before the rename"])
def test_ctrl_c_leaves_nothing_at_all(store, archive, stage):
    stopped_at(stage, store, archive, signal.SIGINT)
    assert store.names() == []
    assert leftovers(store) == []


def test_a_kill_after_the_rename_leaves_a_whole_root(store, archive):
    stopped_at("after the rename", store, archive)
    assert store.names() == ["debian"]
    assert store.verify("debian") == []
    store.remove("debian")


def test_a_running_import_is_not_swept(store, archive):
    """Two at once: the one that begins later sweeps, and must not touch the other."""
    inside = []

    def meanwhile(_what, _done, _of):
        if not inside:
            inside.append(RootImport(RootStore(store.folder)).run("second", archive))

    RootImport(store, progress=meanwhile).run("first", archive)
    assert store.names() == ["first", "second"]
    assert store.verify("first") == store.verify("second") == []


def test_of_two_imports_of_one_name_one_wins_whole(store, archive):
    def meanwhile(_what, _done, _of):
        if not store.names():
            RootImport(RootStore(store.folder)).run("debian", archive)

    with pytest.raises(RootExistsError, match="already"):
        RootImport(store, progress=meanwhile).run("debian", archive)
    assert store.verify("debian") == []
    assert leftovers(store) == []


@pytest.mark.parametrize("kind", ["tar", "gz", "zst", "xz"])
@pytest.mark.parametrize("part", [0.0005, 0.3, 0.9, 0.99999])
def test_a_source_that_was_cut_leaves_nothing(store, tmp_path, kind, part):
    path = make(tmp_path / "root.tar", MIB)
    if kind != "tar":
        program = {"gz": "gzip", "zst": "zstd", "xz": "xz"}[kind]
        subprocess.run([program, "-q", "-1", "-k", path], check=True, timeout=DEADLINE_S)
        path = path.with_suffix(f".tar.{kind}")
    # The last 10 kB of a plain archive are zeros that pad it: what is cut there is not missed.
    size = path.stat().st_size - (10240 if kind == "tar" else 0)
    os.truncate(path, int(size * part))
    with pytest.raises(SourceError, match=r"root\.tar"):
        RootImport(store).run("cut", path)
    assert store.names() == []
    assert leftovers(store) == []


def test_a_packed_source_with_a_flipped_bit_leaves_nothing(store, tmp_path):
    path = tmp_path / "root.tar.gz"
    data = bytearray(gzip.compress(make(tmp_path / "root.tar", MIB).read_bytes()))
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(SourceError, match=r"root\.tar\.gz"):
        RootImport(store).run("flipped", path)
    assert store.names() == []
    assert leftovers(store) == []


@pytest.mark.parametrize("packed", [False, True])
def test_the_checksum_of_the_source_is_compared(store, archive, tmp_path, packed):
    source = archive
    if packed:
        source = tmp_path / "root.tar.gz"
        source.write_bytes(gzip.compress(archive.read_bytes(), 1))
    right = hashlib.sha256(source.read_bytes()).hexdigest()
    with pytest.raises(ChecksumError, match=f"its SHA-256 is {right}, not {'0' * 64}"):
        RootImport(store, ImportOptions(sha256="0" * 64)).run("debian", source)
    assert store.names() == []
    assert leftovers(store) == []
    RootImport(store, ImportOptions(sha256=right.upper())).run("debian", source)
    assert store.names() == ["debian"]


def test_a_source_that_changes_meanwhile_is_noticed(store, tmp_path):
    path = make(tmp_path / "root.tar", MIB)
    right = hashlib.sha256(path.read_bytes()).hexdigest()

    def meanwhile(what, _done, _of):
        if what == "compare the checksum":
            os.utime(path, ns=(1, 1))

    with pytest.raises(ChecksumError, match="changed during the import"):
        RootImport(store, ImportOptions(sha256=right), progress=meanwhile).run("debian", path)
    assert store.names() == []


# --- a full store ---


@contextmanager
def small_store(tmp_path, options="size=16m"):
    """A store on a small file system of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, timeout=DEADLINE_S)
    try:
        yield RootStore(folder / "store")
    finally:
        subprocess.run(["umount", folder], check=True, timeout=DEADLINE_S)


@pytest.mark.mounts
def test_what_cannot_fit_is_refused_at_once_with_what_to_remove(private_mounts, tmp_path, archive):
    with small_store(tmp_path) as small:
        RootImport(small).run("old", make(tmp_path / "old.tar", 4 * MIB))
        RootImport(small).run("older", make(tmp_path / "older.tar", 2 * MIB))
        (small.folder / "views/pi-1").mkdir()
        (small.folder / "views/pi-1/view.json").write_text('{"root": "older"}')
        with pytest.raises(StoreFullError, match=r"needs 13 MB .* MB free; .*no board uses: old \(4 MB\)$") as error:
            RootImport(small).run("new", archive)
        assert error.value.needed_bytes == archive.stat().st_size
        assert 0 < error.value.free_bytes < 11 * MIB
        assert small.names() == ["old", "older"]
        assert leftovers(small) == []
        small.remove("old")
        small.empty_trash()
        RootImport(small).run("new", archive)
        assert small.verify("new") == []


@pytest.mark.mounts
@pytest.mark.parametrize("size", [17 * MIB, 24 * MIB, 80 * MIB])
def test_a_store_that_gets_full_on_the_way_is_left_as_it_was(private_mounts, tmp_path, size):
    """Packed, so that nobody knows before. Zeros, so that the source is small."""
    path = tmp_path / "root.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for number in range(8):
            info = tarfile.TarInfo(f"file-{number}")
            info.size, info.uid, info.gid = size // 8, os.geteuid(), os.getegid()
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    with small_store(tmp_path) as small:
        free = small.free_bytes()
        assert free < size
        with pytest.raises(StoreFullError, match=r"does not fit: .*no root can be removed"):
            RootImport(small).run("new", path)
        assert small.names() == []
        assert leftovers(small) == []
        assert abs(small.free_bytes() - free) < MIB


@pytest.mark.mounts
def test_a_store_without_room_for_more_files_says_so(private_mounts, tmp_path):
    with small_store(tmp_path, "size=16m,nr_inodes=40") as small:
        with pytest.raises(StoreFullError):
            RootImport(small).run("many", make(tmp_path / "many.tar", MIB // 4, files=64))
        assert leftovers(small) == []


# --- the store ---


def test_a_store_in_an_impossible_place_says_so(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="cannot be used as a store"):
        RootStore(tmp_path / "file" / "store")
    with pytest.raises(StoreError, match="choose another"):
        RootStore(tmp_path / "a:b")


def test_a_root_that_a_board_uses_is_not_removed(store, archive):
    RootImport(store).run("debian", archive)
    (store.folder / "views/pi-1").mkdir()
    (store.folder / "views/pi-1/view.json").write_text('{"root": "debian"}')
    (store.folder / "views/pi-2").mkdir()
    (store.folder / "views/pi-2/view.json").write_text("damaged")
    with pytest.raises(RootInUseError, match="pi-1, pi-2"):
        store.remove("debian")
    assert store.removable() == []


@pytest.mark.parametrize("damage", ["content", "mode", "gone", "more", "link", "manifest", "record"])
def test_verify_finds_every_damage(store, tmp_path, damage):
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/a").write_text("one")
    (tree / "etc/b").symlink_to("a")
    RootImport(store).run("debian", tree)
    inside, place = store.tree("debian"), store.folder / "roots/debian"
    times = (inside / "etc/a").stat()
    if damage == "content":
        (inside / "etc/a").write_text("two")
        os.utime(inside / "etc/a", ns=(times.st_atime_ns, times.st_mtime_ns))
    elif damage == "mode":
        (inside / "etc/a").chmod(0o4755)
    elif damage == "gone":
        (inside / "etc/a").unlink()
    elif damage == "more":
        (inside / "etc/c").write_text("x")
    elif damage == "link":
        (inside / "etc/b").unlink()
        (inside / "etc/b").symlink_to("/etc/passwd")
    elif damage == "manifest":
        (place / "manifest.gz").write_bytes(b"x")
        (inside / "etc/a").unlink()
    else:
        (place / "root.json").write_text("{}")
    expected = {
        "content": "etc/a: its content has changed", "mode": "etc/a: its mode was 644, is 4755",
        "gone": "etc/a: is gone", "more": "etc/c: was not imported", "link": "etc/b: its content has changed",
    }  # fmt: skip
    if damage in expected:
        assert store.verify("debian") == [expected[damage]]
    else:
        with pytest.raises(RootError, match=r"debian: its (manifest|record) cannot be read"):
            store.verify("debian")
    assert leftovers(store) == []
