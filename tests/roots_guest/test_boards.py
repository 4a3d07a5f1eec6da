"""Debian over NFS on emulated arm64 boards: one image, each board itself, and no board can harm another's root."""

import re
import signal
import subprocess
from os import kill

SERVER = "10.77.0.1"
GOING_DOWN_S = 75.0
"""Alone it takes 5 s. A service that does not end when it is told to holds systemd up for 90 s."""
ABOUT = """\
echo "host=$(hostname)"
echo "machine=$(cat /etc/machine-id)"
echo "init=$(cat /proc/1/comm)"
echo "programs=$(ls /usr/bin | wc -l)"
echo "root=$(grep ' / ' /proc/mounts | tail -n 1)"
for key in /etc/ssh/ssh_host_*_key.pub; do echo "key=$(cut -d ' ' -f 1,2 $key)"; done
"""


def about(shelf, board):
    lines = shelf.run(board, ABOUT).splitlines()
    found = dict(line.split("=", 1) for line in lines)
    found["keys"] = sorted(line.removeprefix("key=") for line in lines if line.startswith("key="))
    del found["key"]
    return found


def host_keys(address):
    """What the board's SSH server proves to have, asked by OpenSSH."""
    done = subprocess.run(["ssh-keyscan", "-T", "20", address], capture_output=True, text=True, timeout=90, check=True)
    return sorted(line.split(" ", 1)[1] for line in done.stdout.splitlines())


def test_two_boards_run_from_one_image_and_one_of_them_removes_usr(shelf):
    shelf.boot("one", "two")
    one, two = about(shelf, "one"), about(shelf, "two")
    assert (one["host"], two["host"]) == ("one", "two")
    assert re.fullmatch(r"[0-9a-f]{32}", one["machine"])
    assert one["machine"] != two["machine"]
    assert one["init"] == "systemd"
    assert " nfs4 rw," in one["root"]
    for seen, address in ((one, "10.77.0.11"), (two, "10.77.0.12")):
        assert len(seen["keys"]) == 3
        assert seen["keys"] == host_keys(address)
    assert not set(one["keys"]) & set(two["keys"])

    # What runs there keeps its own files open: NFS keeps those by names of its own, .nfsXXXX, until they are closed.
    job = shelf.offer("one", "rm -rf /usr; echo left: /usr/bin/* /usr/lib/python3*/*", timeout_s=120)
    assert shelf.outcome("one", job, 150) == "passed"
    assert shelf.output("one", job).endswith("left: /usr/bin/* /usr/lib/python3.11/lib-dynload\n")
    assert about(shelf, "two") == two
    assert shelf.store.verify("debian") == []

    shelf.boot("one")
    assert about(shelf, "one") == one  # whole again, and itself as before
    assert about(shelf, "two") == two


def test_a_reboot_from_within_is_a_boot_like_any_other(shelf):
    """The power stays; systemd ends, with its root on NFS, and the next boot gets the root anew."""
    shelf.have_up("one")
    before = about(shelf, "one")
    shelf.run("one", "set -e; rm -rf /etc/systemd; echo x >/root/mine; sync")
    since = shelf.ear.now()
    shelf.order("one", "reboot")
    shelf.ear.wait("board/one/state", GOING_DOWN_S, since, phase="netboot")
    shelf.comes_up("one", since)
    assert about(shelf, "one") == before
    assert shelf.run("one", "ls /root; ls -d /etc/systemd").split() == ["/etc/systemd"]


def test_a_board_mounts_its_own_export_and_no_other(shelf):
    """`mount -i`: the kernel alone, as Debian's root has no mount.nfs."""
    shelf.have_up("one")
    script = f"""\
mkdir -p /mnt
for path in /boards/one /boards/two /roots/debian /identity/two; do
    if mount -i -t nfs -o vers=4.2,addr={SERVER} {SERVER}:$path /mnt; then echo "may $path"; umount /mnt; fi
done 2>&1
"""
    said = shelf.run("one", script)
    assert [line for line in said.splitlines() if line.startswith("may ")] == ["may /boards/one"], said


def test_a_key_of_the_settings_opens_every_board(shelf):
    shelf.have_up("two")
    assert shelf.login("10.77.0.12", "hostname; cat /etc/machine-id").split() == ["two", about(shelf, "two")["machine"]]


def test_dpkg_on_a_board_knows_what_the_image_was_made_of(shelf):
    shelf.have_up("two")
    assert shelf.run("two", "dpkg-query -W -f '${Status}' systemd python3-minimal").count("install ok ") == 2


def killed_under_a_writing_board(shelf, victim, name):
    """Give board two work that writes, and kill `victim` in the middle of it. Returns the job."""
    shelf.have_up("two")
    write = f"echo $i >>/root/{name}; sync /root/{name}"
    job = shelf.offer("two", f"for i in $(seq 1 40); do echo $i; {write}; sleep 0.1; done")
    shelf.ear.wait("board/two/work/result", 60, kind="log", job=job)
    kill(victim, signal.SIGKILL)
    return job


def has_written_all(shelf, job, name):
    assert shelf.outcome("two", job) == "passed"
    assert shelf.run("two", f"cat /root/{name}").split() == [str(number) for number in range(1, 41)]
    written = list(shelf.folder.glob(f"roots/views/two/*/upper/root/{name}"))
    assert len(written) == 1
    assert len(written[0].read_text().split()) == 40


def test_the_nfs_server_is_killed_under_a_board_that_writes(shelf):
    shelf.have_up("two")
    before = shelf.nfs_server()
    job = killed_under_a_writing_board(shelf, before, "through-one")
    has_written_all(shelf, job, "through-one")
    assert shelf.nfs_server() not in {before, None}


def test_the_agent_is_killed_under_a_board_that_writes(shelf):
    """Its NFS server ends with it. A new one finds the board running, and leaves its view as it is."""
    agent = shelf.children["agent"]
    job = killed_under_a_writing_board(shelf, agent.pid, "through-two")
    agent.wait(20)
    shelf.start_agent()
    has_written_all(shelf, job, "through-two")


def test_what_a_board_has_made_of_its_root_is_saved_as_a_new_one(shelf):
    shelf.have_up("two")
    shelf.run("two", "set -e; echo ours >/etc/motd; rm /etc/issue; mkdir -p /opt/tool; sync")
    shelf.switch_off("two")
    since = shelf.ear.now()
    answer = shelf.request("root-save", {"board": "two", "name": "debian-2"})
    assert answer["ok"], answer
    saved = shelf.ear.wait("event/two", 60, since, type="root")
    assert (saved["details"]["what"], saved["details"]["root"]) == ("saved", "debian-2")
    tree = shelf.store.tree("debian-2")
    assert (tree / "etc/motd").read_text() == "ours\n"
    assert (tree / "opt/tool").is_dir()
    assert not (tree / "etc/issue").exists()
    assert (tree / "usr/bin/python3.11").is_file()
    assert not (tree / "etc/ssh/ssh_host_ed25519_key").exists()  # that is the board's, not the root's
    assert shelf.store.verify("debian-2") == []
    assert (shelf.store.tree("debian") / "etc/issue").exists()


def test_a_board_keeps_its_writes_in_memory(shelf):
    shelf.boot("three")
    seen = about(shelf, "three")
    assert seen["host"] == "three"
    assert seen["root"].startswith("overlay / overlay rw,")
    assert seen["keys"] == host_keys("10.77.0.13")
    assert shelf.run("three", "rm -rf /etc/ssh; echo x >/root/mine; ls /root").strip() == "mine"
    assert not list(shelf.folder.glob("roots/views/three/**/mine"))
    assert shelf.store.verify("debian") == []
    shelf.boot("three")
    assert about(shelf, "three") == seen
    assert shelf.run("three", "ls /root").strip() == ""


def test_a_board_keeps_its_writes_in_a_file_on_the_server(shelf):
    shelf.boot("four")
    seen = about(shelf, "four")
    assert seen["host"] == "four"
    assert seen["root"].startswith("overlay / overlay rw,")
    assert "/dev/loop" in shelf.run("four", "cat /proc/mounts; losetup -a")
    shelf.run("four", "echo x >/root/mine; sync")
    assert shelf.store.verify("debian") == []
    shelf.boot("four")
    assert about(shelf, "four") == seen
    assert shelf.run("four", "ls /root").strip() == ""
