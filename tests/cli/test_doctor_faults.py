"""The doctor's words about faults that are really there: who is named is the culprit, and the command that it gives,
pasted as it stands, mends it."""

import json
import os
import pty
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agent.console.holders import holders
from cli.doctor import devices, firewall, folders, identity, ports, run
from cli.doctor.finding import Finding, Verdict
from cli.doctor.wants import DeviceWant, FolderWant, PortWant, SecretWant
from cli.exits import CliError, Exit
from tests.free_ports import free_port
from virtual_lab.usb_hub_tree import UsbHubTree

OK, WRONG, UNSEEN = Verdict.OK, Verdict.WRONG, Verdict.UNSEEN
NOBODY = identity.of_user("nobody")
HOLD = "import sys, {modules}; held = {what}; print('held', flush=True); sys.stdin.read()"


def pasted(finding: Finding) -> None:
    """What a person does who believes the doctor."""
    assert finding.verdict is WRONG, finding
    done = subprocess.run(["bash", "-c", finding.mend], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (finding.mend, done.stderr)


@contextmanager
def holder(what: str, modules: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has something, and does not let go."""
    code = HOLD.format(what=what, modules=modules)
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        yield child
    finally:
        with suppress(BrokenPipeError):
            child.communicate(b"", timeout=60)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without root's rights for as long as the block, as somebody who runs the doctor without sudo."""
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(NOBODY.uid)
    os.seteuid(NOBODY.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are closed to others."""
    folder = Path(tempfile.mkdtemp(prefix="boardhand-doctor-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


# --- ports and devices -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("protocol", "kind"), [("tcp", "STREAM"), ("udp", "DGRAM")])
def test_who_has_a_port_is_ended_by_the_command_that_is_given(protocol: str, kind: str) -> None:
    port = free_port()
    want = PortWant(protocol, "127.0.0.1", port, "TFTP", "[netboot] tftp_port")

    def look() -> Finding:
        (found,) = ports.check([want], ports.listeners(), {})
        return found

    code = f"socket.socket(type=socket.SOCK_{kind}); held.bind(('127.0.0.1', {port}))"
    with holder(code + ("; held.listen()" if protocol == "tcp" else ""), "socket") as child:
        found = look()
        assert f"(process {child.pid}" in found.what
        with as_nobody():
            stranger = look()
        assert "another user" in stranger.what
        assert stranger.mend.startswith("run it as root")
        pasted(found)
        child.wait(60)
        assert look().verdict is OK


def test_a_program_that_reads_a_console_is_ended_by_the_command_that_is_given() -> None:
    master, slave = pty.openpty()
    want = DeviceWant("console of pi4", path=os.ttyname(slave))
    os.close(slave)
    root = identity.of_user("root")
    try:
        with holder(f"open({want.path!r}, 'rb')", "os") as child:
            found = devices.by_path(want, root, ours=frozenset(), held=holders)
            assert f"process {child.pid}" in found.what
            pasted(found)
            child.wait(60)
        assert devices.by_path(want, root, ours=frozenset(), held=holders).verdict is OK
    finally:
        os.close(master)


def test_a_socket_is_opened_to_the_daemons_user_step_by_step(public: Path) -> None:
    """Each command mends what it is given for: the socket's mode, then that of the folder above it."""
    closed = public / "closed"
    closed.mkdir(mode=0o700)
    want = DeviceWant("console of pi4", path=str(closed / "console"))
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(want.path)
        Path(want.path).chmod(0o600)

        def look() -> Finding:
            (found,) = devices.check([want], NOBODY)
            return found

        found = look()
        assert "nobody may not open it" in found.what
        pasted(found)
        found = look()
        assert found.what == f"nobody may not go through {closed}"
        pasted(found)
        assert look().verdict is OK
        with as_nobody(), socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(want.path)  # nobody listens, but it gets that far


def test_a_relay_that_the_rules_gave_to_a_group_asks_for_the_group(tmp_path: Path) -> None:
    device = tmp_path / "sys/bus/usb/devices/1-1.4"
    device.mkdir(parents=True)
    for name, text in (("idVendor", "16c0"), ("idProduct", "05df"), ("busnum", "1"), ("devnum", "7")):
        (device / name).write_text(text + "\n")
    node = tmp_path / "dev/bus/usb/001/007"
    node.parent.mkdir(parents=True)
    node.touch(0o600)
    want = DeviceWant("controller r", usb_ids=(("16c0", "05df"),))
    assert devices.usb(want, NOBODY, tmp_path / "sys", tmp_path / "dev").mend == "boardhand udev install"
    os.chown(node, 0, 20)
    node.chmod(0o660)
    mend = devices.usb(want, NOBODY, tmp_path / "sys", tmp_path / "dev").mend
    assert mend.startswith(f"usermod -aG {identity.group_name(20)} nobody  #")


@pytest.mark.parametrize(("method", "kernel_switches"), [("auto", True), ("usb", True), ("auto", False)])
def test_a_hub_is_judged_by_what_its_ports_are_switched_with(
    tmp_path: Path, method: str, kernel_switches: bool
) -> None:
    tree = UsbHubTree(tmp_path / "sys", kernel_switches=kernel_switches)
    hub = tree.hub(tree.root_hub(), 1, serial="HUBSER1")
    node = tmp_path / f"dev/bus/usb/{hub.bus:03}/{hub.number:03}"
    node.parent.mkdir(parents=True)
    node.touch(0o600)
    files = [port.disable for port in hub.ports.values()] if method == "auto" and kernel_switches else [node]
    want = DeviceWant("controller h", hub="HUBSER1", hub_method=method)

    def look() -> Finding:
        (found,) = devices.check([want], NOBODY, sysfs=tree.root, dev=tmp_path / "dev")
        return found

    assert (look().what, look().mend) == (f"nobody may not write {files[0]}", "boardhand udev install")
    for file in files:  # as the rules do
        os.chown(file, 0, 20)
        file.chmod(0o664)
    assert look().mend.startswith("usermod -aG dialout nobody  #")
    for file in files:  # as if nobody were in that group now
        os.chown(file, 0, NOBODY.uid)
    assert look().verdict is OK


# --- disk and secrets ------------------------------------------------------------------------------------------

_DISK = """
set -e
mount -t tmpfs -o size=1g,mode=0700 tmpfs "$1"
exec "$2" -c '
import json, os, subprocess, sys
from pathlib import Path
from cli.doctor import folders, identity
from cli.doctor.wants import FolderWant
place = Path(sys.argv[1])
want = FolderWant(place / "state", "state_dir", "agent")
def look(user="root"):
    (found,) = folders.check_folders([want], {"agent": identity.of_user(user)})
    return [found.verdict, found.what, found.mend]
def paste(found):
    return [*found, subprocess.run(["bash", "-c", found[2]], capture_output=True).returncode]
def remount(how):
    subprocess.run(["mount", "-o", "remount," + how, place], check=True)
story = {"well": look()}
remount("size=100m"); story["full"] = paste(look())
remount("size=1g,nr_inodes=500"); story["inodes"] = paste(look())
remount("nr_inodes=100k,ro"); story["read-only"] = look()
remount("rw")
place.chmod(0o755)
story["closed"] = paste(look("nobody")); story["opened"] = look("nobody")
want.path.chmod(0o500); os.chown(want.path, 0, 0)
story["root has it"] = paste(look("nobody")); story["its own"] = look("nobody")
want.path.rmdir(); want.path.touch()
story["a file"] = paste(look()); story["out of the way"] = look()
print(json.dumps(story))
' "$1"
"""


def test_a_disk_and_its_faults(public: Path) -> None:
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", _DISK, "sh", public, sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    story = json.loads(done.stdout)
    state = public / "state"
    assert story["well"][:2] == ["ok", "1.0 GiB are free"]
    assert (story["full"][1], story["full"][3]) == ("0.10 GiB are free", 0)
    assert str(public) in story["full"][2]
    assert story["inodes"][1].endswith("inodes are free")
    assert story["inodes"][3] == 0
    assert "read-only" in story["read-only"][1]
    assert story["closed"][1:] == [f"nobody may not write {public}", f"install -d -o nobody -m 0750 {state}", 0]
    assert story["opened"][0] == "ok"
    assert story["root has it"][1:] == [
        f"nobody may not write {state}",
        f"chown nobody {state} && chmod u+rwx {state}",
        0,
    ]
    assert story["its own"][0] == "ok"
    assert story["a file"][1:] == [f"{state} is no folder", f"mv {state} {state}.old", 0]
    assert story["out of the way"][0] == "ok"


def test_a_folder_that_nobody_asked_for_is_judged_by_the_one_above(public: Path) -> None:
    want = FolderWant(public / "a/b", "state_dir", "agent")
    (found,) = folders.check_folders([want], {"agent": NOBODY})
    pasted(found)
    assert folders.check_folders([want], {"agent": NOBODY})[0].verdict is OK


def test_a_secret_is_closed_to_others_and_opened_to_its_daemon(public: Path) -> None:
    path = public / "mqtt-password"
    path.write_text("open sesame\n")
    path.chmod(0o604)
    want = SecretWant(path, "[mqtt] password_file", "agent")

    def look() -> Finding:
        (found,) = folders.check_secrets([want], {"agent": NOBODY})
        return found

    assert "everybody" in look().what
    pasted(look())
    assert look().what == "nobody may not read it"
    pasted(look())
    assert look().verdict is OK
    with as_nobody():
        assert path.read_text() == "open sesame\n"
    public.chmod(0o700)
    assert look().what == f"nobody may not go through {public}"
    with as_nobody():
        assert look().verdict is UNSEEN


# --- privileges ------------------------------------------------------------------------------------------------


def test_a_process_without_capabilities_is_named() -> None:
    with as_nobody():
        text = Path("/proc/self/status").read_text()
    lacking = identity.capabilities({"CAP_NET_RAW"}, text, 1024, pid=7)
    assert [(one.verdict, one.what) for one in lacking] == [(WRONG, "the agent (process 7) lacks it")]
    assert lacking[0].mend.startswith("systemctl edit boardhand-agent  # [Service] AmbientCapabilities=CAP_NET_RAW")
    assert identity.capabilities({"CAP_NET_RAW"}, Path("/proc/self/status").read_text(), 1024, pid=7)[0].verdict is OK


def test_without_root_it_says_that_it_does_not_see_the_rules() -> None:
    with as_nobody():
        (found,) = firewall.check([PortWant("udp", "0.0.0.0", 69, "TFTP", "k")])
    assert (found.verdict, found.mend) == (UNSEEN, "run it as root")


def test_settings_that_are_closed_to_whoever_asks_say_so(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = public / "agent.toml"
    file.write_text('[agent]\nname = "lab-1"\n')
    monkeypatch.setattr(run, "PLACES", (file,))
    for path, mode in ((file, 0o600), (public, 0o700)):
        path.chmod(mode)
        for files in ([], [file]):
            with as_nobody(), pytest.raises(CliError, match=f"{file} is closed to you") as caught:
                run.run(files, None, quiet=True, as_json=True)
            assert (caught.value.code, caught.value.advice) == (Exit.USAGE, "run it as root: sudo boardhand doctor")
