"""The lab's network, as root and as nobody: really entered, with real frames, and a real U-Boot at the end."""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USERS = ["root", "nobody"] if os.geteuid() == 0 else ["nobody"]


def may_open_tun(user):
    device = Path("/dev/net/tun")
    if user == "nobody" and os.geteuid() == 0:
        return device.exists() and device.stat().st_mode & 0o006 == 0o006
    return os.access(device, os.R_OK | os.W_OK)


@pytest.fixture
def folder():
    """A folder that nobody may use; pytest's own is closed to other users."""
    made = Path(tempfile.mkdtemp(prefix="bh-"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


def run(user, scenario, folder):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("lab_driver.py")), user, scenario, str(folder)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("user", USERS)
def test_the_process_moves_into_an_empty_network(user, folder):
    here = {name for _, name in socket.if_nameindex()}
    seen = run(user, "identity", folder)
    assert seen["moved"]
    assert seen["third"]
    assert seen["names"] == ["lo"]
    assert seen["uid"] == 0
    assert seen["mapped"] is (seen["outside"] != 0)
    assert {name for _, name in socket.if_nameindex()} == here


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kind", ["tap", "veth"])
def test_arp_and_tcp_pass_a_cable_with_right_checksums(user, kind, folder):
    seen = run(user, kind, folder)
    if kind == "tap" and not may_open_tun(user):
        assert seen == {"impossible": True}
        return
    assert seen["checksum"] == 0
    assert seen["interfaces"] == 0, "the far ends must not be where the kernel would answer ARP for us"
    assert seen["pump"] == 0
    assert len(seen["bridge"]) == 17


@pytest.mark.parametrize("user", USERS)
def test_a_real_uboot_gets_an_address_and_a_file_through_the_pump(user, folder):
    seen = run(user, "uboot", folder)
    assert seen == {"bound": True, "pump": 0, "serial": "virt-2\0", "qemu": 0}
