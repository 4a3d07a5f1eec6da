"""Views: each board's own, kept over our restarts, thrown away in no time, saved without what makes a board itself."""

import os
import shutil
import subprocess

import pytest

from netboot.roots.boot_words import Upper
from netboot.roots.errors import IdentityError, NoSuchRootError, RootError, ViewError
from netboot.roots.identity import IdentityKeeper, KeptFile, boot_file, login_files
from netboot.roots.importing import RootImport
from netboot.roots.views import Views
from tests import stalls

pytestmark = [pytest.mark.mounts, pytest.mark.usefixtures("private_mounts")]

RESET_LIMIT_S = 0.2


@pytest.fixture
def views(rooted):
    made = Views(rooted)
    yield made
    for view in made.all():
        made.release(view.board)


def identity(board):
    key = KeptFile("etc/ssh/ssh_host_ed25519_key", 0o600, f"key of {board}\n".encode())
    return [KeptFile("etc/hostname", 0o644, board.encode() + b"\n"), key]


def test_two_boards_share_a_root_and_see_nothing_of_each_other(views, rooted):
    one, two = (views.fresh(board, "debian", identity(board)).path for board in ("b1", "b2"))
    assert [(path / "etc/hostname").read_text() for path in (one, two)] == ["b1\n", "b2\n"]
    assert (one / "etc/ssh/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    assert (one / "usr/bin/tool").stat().st_mode & 0o7777 == 0o4755
    shutil.rmtree(one / "usr")
    (one / "etc/os-release").write_text("ID=broken\n")
    assert (two / "usr/bin/tool").exists()
    assert (two / "etc/os-release").read_text() == "ID=debian\n"
    assert rooted.verify("debian") == []
    again = views.fresh("b1", "debian", identity("b1"))
    assert (again.path / "usr/bin/tool").exists()
    assert again.generation == 2
    assert rooted.users("debian") == ["b1", "b2"]


def test_a_kept_view_has_what_the_board_wrote_also_after_a_restart_of_ours(views, rooted):
    path = views.fresh("b1", "debian", identity("b1"), mark="lease 7").path
    (path / "etc/made").write_text("by the board\n")
    assert (Views(rooted).kept("b1").path / "etc/made").exists()  # still mounted: an agent that was killed
    views.close("b1")  # the host was restarted
    assert not (path / "etc").exists()
    found = Views(rooted).kept("b1", identity("b1"))
    assert (found.path / "etc/made").read_text() == "by the board\n"
    assert (found.mark, found.generation) == ("lease 7", 1)
    changed = [*identity("b1"), *login_files(["ssh-ed25519 AAAAC3NzaC1lZDI1 me"])]
    (path / "usr/bin/tool").unlink()
    found = views.kept("b1", changed, mark="lease 8")
    assert (path / "root/.ssh/authorized_keys").read_text().endswith(" me\n")
    assert not (path / "usr/bin/tool").exists()
    assert (path / "etc/made").exists()
    views.kept("b1", identity("b1"))
    assert not (path / "root/.ssh/authorized_keys").exists()
    assert views.get("b1").mark == "lease 8"


def test_a_view_in_use_is_not_dressed_anew(views):
    path = views.fresh("b1", "debian", identity("b1")).path
    with (path / "etc/hostname").open(), pytest.raises(ViewError, match="busy"):
        views.kept("b1", [KeptFile("etc/hostname", 0o644, b"other\n")])
    assert (path / "etc/hostname").read_text() == "b1\n"


@pytest.mark.parametrize("left", ["next generation", "record without folder", "damaged record", "no record", "veil"])
def test_what_a_kill_leaves_is_swept_and_loses_nothing(views, rooted, left):
    view = views.fresh("b1", "debian", identity("b1"))
    (view.path / "etc/made").write_text("by the board\n")
    place = rooted.folder / "views" / "b1"
    if left == "next generation":
        (place / "2" / "identity").mkdir(parents=True)
    elif left == "veil":
        (place / "veil").mkdir()
    else:
        views.close("b1")
        if left == "record without folder":
            shutil.rmtree(place / "1")
        elif left == "damaged record":
            (place / "view.json").write_text("{")
        else:
            (place / "view.json").unlink()
    (rooted.folder / "trash" / "half" / "it" / "upper").mkdir(parents=True)
    later = Views(rooted)
    later.sweep()
    later.empty_trash()
    assert list((rooted.folder / "trash").iterdir()) == []
    if left in {"next generation", "veil"}:
        assert (later.kept("b1").path / "etc/made").exists()
        assert sorted(path.name for path in place.iterdir()) == ["1", "merged", "view.json"]
        return
    with pytest.raises(RootError):
        later.kept("b1")
    assert later.all() == []
    assert (later.fresh("b1", "debian", identity("b1")).path / "usr/bin/tool").exists()
    later.release("b1")


def test_a_reset_takes_no_longer_for_a_hundred_thousand_files(views, rooted):
    path = views.fresh("b1", "debian", identity("b1")).path
    views.close("b1")  # written below the overlay: six times as fast as through it
    for number in range(100):
        folder = rooted.folder / "views/b1/1/upper" / f"d{number}"
        folder.mkdir()
        for file in range(1000):
            os.mknod(folder / str(file))
    views.kept("b1")
    assert sum(len(names) for _, _, names in os.walk(path)) > 100_000  # the kernel now knows them all
    took = []
    for _ in range(3):
        with stalls.watch() as passed:
            views.fresh("b1", "debian", identity("b1"))
            took.append(passed())
    assert took[0] < RESET_LIMIT_S, took
    assert sorted(entry.name for entry in path.iterdir()) == ["bin", "etc", "usr"]
    views.empty_trash()
    assert list((rooted.folder / "trash").iterdir()) == []


def test_a_saved_view_is_the_board_s_without_its_identity(views, rooted):
    keys = [*identity("b1"), KeptFile("etc/machine-id", 0o444, b"0" * 32 + b"\n")]
    path = views.fresh("b1", "debian", keys).path
    views.add_to_boot("b1", [boot_file(["boardhand.secret=5"])])
    (path / "etc/hostname").write_text("renamed\n")  # copied up: what the image had is saved
    (path / "etc/ssh/ssh_host_ed25519_key").chmod(0o640)  # copied up: the key must not get out
    (path / "usr/bin/same").unlink()
    (path / "usr/bin/new").write_bytes(b"new")
    shutil.rmtree(path / "usr/bin")
    (path / "usr/bin").mkdir()  # opaque
    (path / "usr/bin/only").write_text("only\n")
    views.close("b1")
    with views.frozen("b1") as frozen:
        RootImport(rooted, lossy=os.geteuid() != 0).run("saved", frozen)
        with pytest.raises(RootError, match="being saved"), views.frozen("b1"):
            pass
    saved = rooted.tree("saved")
    names = sorted(str(p.relative_to(saved)) for p in saved.rglob("*"))
    assert names == ["bin", "etc", "etc/boardhand", "etc/hostname", "etc/os-release", "etc/ssh", "usr", "usr/bin",
                     "usr/bin/only"]  # fmt: skip
    assert (saved / "etc/hostname").read_text() == "image\n"
    assert rooted.verify("debian") == []
    fresh = views.fresh("b2", "saved", identity("b2")).path
    assert (fresh / "usr/bin/only").read_text() == "only\n"
    assert (fresh / "etc/hostname").read_text() == "b2\n"


def test_nothing_is_written_through_a_link_that_a_board_has_laid(views, tmp_path):
    path = views.fresh("b1", "debian", identity("b1")).path
    (tmp_path / "host").mkdir()
    (path / "etc/boardhand").symlink_to(tmp_path / "host")
    with pytest.raises(IdentityError, match="etc/boardhand is a symbolic link"):
        views.add_to_boot("b1", [boot_file(["boardhand.secret=5"])])
    (path / "etc/boardhand").unlink()
    (path / "etc/boardhand").mkdir()
    (path / "etc/boardhand/boot").symlink_to(tmp_path / "host/boot")
    views.add_to_boot("b1", [boot_file(["boardhand.secret=5"])])
    assert list((tmp_path / "host").iterdir()) == []
    assert (path / "etc/boardhand/boot").read_text() == "boardhand.secret=5\n"


def test_writes_in_memory_need_the_identity_alone(views):
    view = views.fresh("b1", "debian", identity("b1"), Upper.MEMORY)
    views.add_to_boot("b1", [boot_file(["boardhand.secret=5"])])
    assert (view.path, view.disk) == (None, None)
    assert (view.identity / "etc/hostname").read_text() == "b1\n"
    assert (view.identity / "etc/boardhand/boot").stat().st_mode & 0o777 == 0o600
    assert (view.identity / "etc/boardhand").stat().st_mode & 0o777 == 0o700
    assert not (view.identity / "usr").exists()
    with pytest.raises(RootError, match="own memory"), views.frozen("b1"):
        pass


def test_there_is_no_view_of_what_is_not_there(views):
    with pytest.raises(NoSuchRootError, match="debian"):
        views.fresh("b1", "fedora", [])
    with pytest.raises(NoSuchRootError):
        views.kept("b1")
    with pytest.raises(NoSuchRootError):
        views.fresh("../b1", "debian", [])
    views.close("b1")
    views.release("b1")
    assert views.get("b1") is None


def test_a_root_whose_folder_is_a_link_cannot_be_dressed_and_the_old_view_stays(views, rooted, tree):
    (tree / "etc/ssh").symlink_to("/etc")
    RootImport(rooted, lossy=os.geteuid() != 0).run("odd", tree)
    views.fresh("b1", "debian", identity("b1"))
    with pytest.raises(IdentityError, match="/etc/ssh is a symbolic link"):
        views.fresh("b1", "odd", identity("b1"))
    assert views.kept("b1").root == "debian"
    views.sweep()


def test_a_real_identity_lies_over_a_root(views, tmp_path):
    files = IdentityKeeper(tmp_path / "identities").files("b1")
    path = views.fresh("b1", "debian", files).path
    told = subprocess.run(
        ["ssh-keygen", "-y", "-f", path / "etc/ssh/ssh_host_ed25519_key"], capture_output=True, text=True, timeout=60,
        check=True,
    )  # fmt: skip
    assert told.stdout.split()[:2] == (path / "etc/ssh/ssh_host_ed25519_key.pub").read_text().split()[:2]
