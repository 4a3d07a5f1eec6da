"""The whole path without a board: agent, Mosquitto and ganesha as they are; curl fetches boot files, libnfs roots."""

import os
import signal
import subprocess

import pytest

from netboot.roots.boot_words import DISK_NAME, Upper
from netboot.roots.errors import RootError
from netboot.roots.identity import KeptFile
from netboot.roots.importing import RootImport
from netboot.roots.upper_disk import UpperDisk
from netboot.roots.views import Views
from tests.netboot.roots.agent_lab import AgentLab

pytestmark = [pytest.mark.usefixtures("private_mounts")]


@pytest.fixture
def lab(tmp_path, tree):
    made = AgentLab(tmp_path, tree)
    made.start_mqtt()
    yield made
    made.close()


def test_boards_boot_from_one_root_over_all_that_can_befall_the_agent(lab):
    lab.start_agent()
    assert lab.read("b1", "boards/b1/etc/hostname") is None  # no boot, no export
    for board in ("b1", "b2"):
        assert f"boardhand.root=10.77.0.1:/boards/{board} " in lab.boot(board)
        assert lab.read(board, f"boards/{board}/etc/hostname") == f"{board}\n"
    assert lab.read("b1", "boards/b1/etc/machine-id") != lab.read("b2", "boards/b2/etc/machine-id")
    assert lab.read("b2", "boards/b1/etc/hostname") is None
    key = lab.read("b1", "boards/b1/etc/ssh/ssh_host_ed25519_key")
    assert "OPENSSH PRIVATE KEY" in key
    assert lab.write("b1", "boards/b1/etc/made", "by b1\n")
    assert lab.read("b2", "boards/b2/etc/made") is None

    lab.kill("agent")  # and its ganesha with it; the boards run on
    lab.start_agent()
    lab.until(lambda: lab.read("b1", "boards/b1/etc/made") == "by b1\n")
    os.kill(lab.ganesha_pid(), signal.SIGKILL)
    lab.until(lambda: lab.messages("board/b1/alert/root"))
    lab.until(lambda: lab.read("b1", "boards/b1/etc/made") == "by b1\n")

    told = lab.ask("roots", check=True)
    assert [(view["board"], view["running"]) for view in told["views"]] == [("b1", True), ("b2", True)]
    assert "switch it off" in lab.ask("root-save", board="b1", name="mine")["message"]
    lab.power("b1", "off")
    lab.until(lambda: lab.read("b1", "boards/b1/etc/made") is None)
    assert lab.ask("root-save", board="b1", name="mine") == {"board": "b1", "name": "mine"}
    lab.until(lambda: lab.events("b1", "saved"))
    assert (lab.store.tree("mine") / "etc/made").read_text() == "by b1\n"
    assert not (lab.store.tree("mine") / "etc/ssh").exists()
    assert lab.store.verify("debian") == []

    lab.power("b1", "on")
    assert "boardhand.root=" in lab.boot("b1")
    assert lab.read("b1", "boards/b1/etc/made") is None
    assert lab.read("b1", "boards/b1/etc/ssh/ssh_host_ed25519_key") == key
    given = lab.until(lambda: lab.events("b1", "given")[1:])
    assert all(event["details"]["took_ms"] < 60_000 for event in given)
    log = (lab.folder / "agent.log").read_text()
    assert "Traceback" not in log, log
    assert "PRIVATE KEY" not in log


def test_a_board_s_own_disk_over_nfs_is_saved_with_what_it_holds(rooted, tmp_path):
    views = Views(rooted, disks=UpperDisk(1 << 30))
    view = views.fresh("b1", "debian", [KeptFile("etc/hostname", 0o644, b"b1\n")], Upper.NFS)
    image = view.disk / DISK_NAME
    assert image.stat().st_blocks * 512 < 64 << 20
    (tmp_path / "m").mkdir()

    def run(*command):
        subprocess.run(command, check=True, timeout=60)

    run("mount", "-o", "loop", image, tmp_path / "m")  # what the board does, by its own overlay
    upper, work, merged = (tmp_path / name for name in ("m/upper", "m/work", "merged"))
    merged.mkdir()
    layers = f"lowerdir={view.identity}:{rooted.tree('debian')},upperdir={upper},workdir={work}"
    run("mount", "-t", "overlay", "-o", layers, "overlay", merged)
    (merged / "etc/made").write_text("by b1\n")
    (merged / "etc/hostname").write_text("mine\n")
    (merged / "usr/bin/same").unlink()
    run("umount", merged)
    run("umount", tmp_path / "m")
    with views.frozen("b1") as frozen:
        RootImport(rooted).run("saved", frozen)
    saved = rooted.tree("saved")
    assert (saved / "etc/made").read_text() == "by b1\n"
    assert (saved / "etc/hostname").read_text() == "image\n"
    assert sorted(path.name for path in (saved / "usr/bin").iterdir()) == ["tool"]
    image.write_bytes(b"no file system")
    with pytest.raises(RootError, match="e2fsck"), views.frozen("b1"):
        pass
    views.release("b1")


def test_a_reload_leaves_the_roots_alone_that_boards_run_from(lab, tree):
    lab.start_agent()
    for board in ("b1", "b2"):
        assert "boardhand.root=" in lab.boot(board)
    assert lab.write("b1", "boards/b1/etc/made", "by b1\n")
    server = lab.ganesha_pid()
    (tree / "etc/other").write_text("another root\n")
    RootImport(lab.store).run("other", tree)
    settings = lab.folder / "agent.toml"
    text = settings.read_text()
    text = text[: text.index("[controllers.b2]")].replace('root = "debian"', 'root = "other"')
    settings.write_text(text)
    told = lab.ask("reload")
    assert told["boards"]["removed"] == ["b2"], told
    assert "profiles.standing.root" in {change["key"] for change in told["changes"]}
    # Who runs from a view runs on: the board of which the profile is another, and the one that is gone.
    assert lab.read("b1", "boards/b1/etc/made") == "by b1\n"
    assert lab.read("b1", "boards/b1/etc/other") is None
    assert lab.read("b2", "boards/b2/etc/hostname") == "b2\n"
    assert lab.ganesha_pid() == server
    # Where roots lie, and how they are given out, is for a restart; nothing of such a file is taken up.
    settings.write_text(text.replace("[roots]\n", "[roots]\nupper_gib = 3\n") + 'labels = {shelf = "3"}\n')
    refused = lab.ask("reload")
    assert (refused["kind"], refused["key"]) == ("refused", "roots.upper_gib")
    assert "boards run from what is exported" in refused["message"]
    assert lab.ask("reload", partial=True)["boards"]["changed"] == ["b1"]
    assert lab.read("b1", "boards/b1/etc/made") == "by b1\n"
    lab.power("b1", "off")
    lab.until(lambda: lab.read("b1", "boards/b1/etc/made") is None)
    lab.power("b1", "on")
    assert "boardhand.root=" in lab.boot("b1")
    assert lab.read("b1", "boards/b1/etc/other") == "another root\n"
