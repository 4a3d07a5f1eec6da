"""What goes into the USB guest. That it boots and works is for `make test-usb`."""

import json
import os
import socket
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from virtual_lab import usb_guest, usb_guest_gadgets, usb_guest_image, usb_guest_inside
from virtual_lab.child_process import child_environment
from virtual_lab.usb_guest_image import GuestImageError, apt_sources, guest_python, host_release, our_requirements

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_guest_gets_all_our_rooms():
    assert list(usb_guest.ROOMS) == PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]


def test_the_guest_gets_what_we_stand_on_and_no_extras():
    names = {line.split(">")[0].split("<")[0].strip() for line in our_requirements()}
    assert {"pydantic", "pyusb", "paho-mqtt"} <= names
    assert names.isdisjoint({"pytest", "sushy", "pyghmi"})


@pytest.mark.parametrize(
    ("text", "name"),
    [('VERSION_CODENAME=bookworm\nID="debian"\n', "bookworm"), ('VERSION_CODENAME="noble"\n', "noble")],
)
def test_the_guest_is_of_this_machines_release(tmp_path, text, name):
    (tmp_path / "os-release").write_text(text)
    assert host_release(tmp_path / "os-release") == name


def test_a_machine_without_a_release_is_told(tmp_path):
    with pytest.raises(GuestImageError, match="VERSION_CODENAME"):
        host_release(tmp_path / "os-release")


def test_packages_come_from_the_distributions_own_sources_alone(tmp_path):
    parts = tmp_path / "sources.list.d"
    parts.mkdir()
    for name in ("debian.sources", "nodesource.sources", "google.list", "debian.sources.disabled"):
        (parts / name).write_text("Types: deb\n")
    (tmp_path / "sources.list").write_text("")
    assert apt_sources(tmp_path) == [parts / "debian.sources"]
    (parts / "debian.sources").unlink()
    with pytest.raises(GuestImageError, match="sources"):
        apt_sources(tmp_path)


def test_the_way_to_the_package_servers_is_kept():
    dump = """APT "";
Acquire "";
Acquire::Languages "de";
Acquire::http "";
Acquire::http::Proxy "http://proxy:3142";
Acquire::https::CaInfo "/etc/ca.pem";
Acquire::IndexTargets::deb "";
Dir::Cache "var";
"""
    kept = usb_guest_image.network_settings(dump).splitlines()
    assert kept[1:3] == ['Acquire::http::Proxy "http://proxy:3142";', 'Acquire::https::CaInfo "/etc/ca.pem";']
    assert [line for line in kept if "Languages" in line] == ['Acquire::Languages "none";']
    assert not [line for line in kept if "Dir" in line or "IndexTargets" in line]


def test_the_guests_python_is_found(tmp_path):
    with pytest.raises(GuestImageError):
        guest_python(tmp_path)
    (tmp_path / "usr/bin").mkdir(parents=True)
    (tmp_path / "usr/bin/python3.11").touch()
    assert guest_python(tmp_path) == "3.11"


def test_a_missing_program_is_named_with_its_package(tmp_path):
    with pytest.raises(GuestImageError, match=r"apt-get install .* mmdebstrap"):
        usb_guest_image._run(["no-such-program"], tmp_path / "log", 5, "mmdebstrap")


def test_a_program_that_fails_is_quoted(tmp_path):
    with pytest.raises(GuestImageError, match="no such luck"):
        usb_guest_image._run(["sh", "-c", "echo no such luck; exit 3"], tmp_path / "log", 5, "dash")


# --- the command channel, over a socket instead of a virtio port -------------------------------------------------


@pytest.fixture
def channel():
    """Sends a request, and returns the answer to one, whatever else comes first."""
    ours, theirs = socket.socketpair()
    serve = f"from virtual_lab.usb_guest_inside import Channel; Channel({theirs.fileno()}).serve()"
    command = [sys.executable, "-c", serve]
    with theirs, subprocess.Popen(command, pass_fds=[theirs.fileno()], env=child_environment()) as process:
        ours.settimeout(20)
        lines = ours.makefile("rb")
        waiting: dict[int, dict] = {}
        assert json.loads(lines.readline()) == {"id": 0}

        def send(**request) -> None:
            ours.sendall(json.dumps(request).encode() + b"\n")

        def answer(number: int) -> dict:
            while number not in waiting:
                said = json.loads(lines.readline())
                waiting[said["id"]] = said
            return waiting.pop(number)

        with ours, lines:
            yield send, answer
        process.kill()


def test_a_program_is_run_and_its_words_come_back(channel):
    send, answer = channel
    send(id=1, argv=["sh", "-c", "cat; echo oops >&2; exit 3"], stdin="hello")
    said = answer(1)
    assert (said["code"], said["stdout"], said["stderr"]) == (3, "hello", "oops\n")


def test_two_run_at_once_and_one_is_stopped(channel):
    send, answer = channel
    send(id=1, argv=["sh", "-c", "sleep 60"])
    send(id=2, argv=["echo", "quick"])
    assert answer(2)["stdout"] == "quick\n"
    send(id=3, signal=15, of=1)
    assert answer(3)["code"] == 0
    assert answer(1)["code"] == -15


def test_what_cannot_be_started_and_what_takes_too_long_is_told(channel):
    send, answer = channel
    send(id=1, argv=["/no/such/program"])
    assert answer(1)["code"] == usb_guest_inside.NOT_STARTED
    send(id=2, argv=["sleep", "60"], timeout_s=0.2)
    said = answer(2)
    assert said["code"] == -9
    assert "too long" in said["stderr"]


# --- firmware of the gadgets --------------------------------------------------------------------------------------


def gadget(tmp_path: Path, serial: str = "REL01") -> usb_guest_gadgets.Gadget:
    return usb_guest_gadgets.Gadget("udc", serial, "0x16c0", "0x05df", "maker", "USBRelay4", tmp_path / "state.json")


def test_a_relay_obeys_its_reports(tmp_path):
    relay = usb_guest_gadgets.Relay(gadget(tmp_path), 4)
    bits = []
    for command, channel in ((0xFF, 1), (0xFF, 4), (0xFD, 1), (0xFF, 9), (0xFE, 0), (0xFC, 0)):
        relay._obey(bytes([command, channel]).ljust(8, b"\0"))
        bits.append(relay._answer(usb_guest_gadgets.GET_REPORT, 0x0300)[7])
    assert bits == [0b0001, 0b1001, 0b1000, 0b1000, 0b1111, 0]
    assert relay._answer(usb_guest_gadgets.GET_REPORT, 0x0300)[:5] == b"REL01"
    assert relay._answer(usb_guest_gadgets.GET_REPORT, 0x0100) is None
    assert json.loads((tmp_path / "state.json").read_text())["channels"] == 0


def test_the_relays_descriptors_add_up():
    blob = usb_guest_gadgets.relay_descriptors()
    assert int.from_bytes(blob[4:8], "little") == len(blob)
    at, kinds = 20, []
    while at < len(blob):
        kinds.append(blob[at + 1])
        at += blob[at]
    assert at == len(blob)
    assert kinds == [4, 0x21, 5] * 2


def test_a_cable_hears_digits_and_answers(tmp_path):
    cable = usb_guest_gadgets.Cable(gadget(tmp_path, "CABLE1"))
    reader, writer = os.pipe()
    for byte in b"3?x2?":
        cable._hear(bytes([byte]), writer)
    os.close(writer)
    assert os.read(reader, 64) == b"32"
    os.close(reader)
    assert json.loads((tmp_path / "state.json").read_text()) == {"power": False, "heard": ["3", "?", "x", "2", "?"]}


# --- what QEMU is given -------------------------------------------------------------------------------------------


def test_both_scripts_are_shell():
    for name in ("usb_guest_init.sh", "usb_guest_initramfs.sh"):
        subprocess.run(["sh", "-n", ROOT / "virtual_lab" / name], check=True, timeout=20)


def test_the_inside_needs_nothing_but_python():
    """It starts before anything of ours is looked at."""
    path = ROOT / "virtual_lab" / "usb_guest_inside.py"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import runpy; runpy.run_path({str(path)!r}, run_name='read')"],
        capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert stat.S_ISREG(path.stat().st_mode)
