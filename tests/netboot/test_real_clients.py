"""The quickest of the foreign clients, for every run: U-Boot fetches and starts a kernel of a few octets. The others,
and Linux, are in tests/netboot_clients (`make test-netboot`)."""

import json
import subprocess
import sys

import pytest

from virtual_lab import tiny_kernel
from virtual_lab.child_process import child_environment
from virtual_lab.uboot_environment import netboot_environment

UUID = "6c8f6a0e-6d2b-4a53-9d3f-2b1f4a1f0b77"
DEADLINE_S = 60.0
"""It takes 3 s on an idle machine."""


@pytest.fixture
def boot(tmp_path):
    """Boots once, over a cable that loses so many frames of a hundred; what was said until the machine was off."""

    def run(loss_percent):
        kernel = tmp_path / "Image"
        kernel.write_bytes(tiny_kernel.image())
        plan = {
            "machine": "uboot-arm64",
            "folder": str(tmp_path / "board1"),
            "profile": {"name": "tiny", "arch": "arm64", "kernel": str(kernel), "cmdline": "console=ttyAMA0"},
            "environment": {**netboot_environment(UUID), "tftptimeout": "1000"},
            "uuid": UUID,
            "loss_percent": loss_percent,
        }
        command = [sys.executable, "-m", "virtual_lab.boot_clients_inside", json.dumps(plan)]
        inner = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment(), text=True
        )
        with inner:
            inner.stdin.write('{"do": "power-on"}\n')
            inner.stdin.flush()
            events = []
            for line in inner.stdout:
                events.append(json.loads(line))
                if events[-1]["event"] == "off":
                    inner.stdin.close()
        assert inner.returncode == 0
        return events

    return run


@pytest.mark.timeout(DEADLINE_S)
@pytest.mark.parametrize("loss_percent", [0, 5])
def test_uboot_starts_a_kernel_with_our_command_line(boot, loss_percent):
    events = boot(loss_percent)
    console = "".join(event["text"] for event in events if event["event"] == "console")
    _, started, device_tree = console.partition(tiny_kernel.MARKER)
    assert started
    assert "console=ttyAMA0 boardhand.board=board1 boardhand.agent=desk boardhand.mqtt=10.77.0.1:1883" in device_tree
    # Not what was sent to its end: the last ACK of the kernel may be lost, and the machine is off before another.
    asked_for = [event["path"] for event in events if event["event"] == "FileRequested"]
    assert list(dict.fromkeys(asked_for)) == [f"pxelinux.cfg/{UUID}", "kernel"]
    asked = next(event for event in events if event["event"] == "wire" and event["packet"] == "dhcp")
    assert (asked["type"], asked["vendor_class"], asked["arch"]) == ("DISCOVER", "U-Boot.armv8", 22)
    assert next(event["code"] for event in events if event["event"] == "off") == 0
