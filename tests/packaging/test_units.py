"""The units as systemd itself reads them; what the agent must be able to do in spite of its walls stands here."""

import re
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "packaging/systemd"
EXPOSURE = {"agent": 2.6, "broker": 1.4}
"""As docs/service.md tells; of 10, less is better."""


def section(name, part="Service"):
    parser = ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(UNITS / f"boardhand-{name}.service")
    return parser[part]


def lines(name, key):
    text = (UNITS / f"boardhand-{name}.service").read_text()
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


@pytest.fixture
def root(tmp_path):
    """A root with the units and the program that they start."""
    folder = tmp_path / "usr/lib/systemd/system"
    folder.mkdir(parents=True)
    for name in EXPOSURE:
        shutil.copy(UNITS / f"boardhand-{name}.service", folder)
    for program in ("usr/bin/boardhand", "bin/sh"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).write_text("#!/bin/true\n")
        (tmp_path / program).chmod(0o755)
    return tmp_path


@pytest.mark.parametrize("name", EXPOSURE)
def test_systemd_finds_no_fault(root, name):
    unit = f"boardhand-{name}.service"
    done = subprocess.run(
        ["systemd-analyze", "verify", f"--root={root}", "--man=no", "--recursive-errors=no", unit],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, [line for line in done.stderr.splitlines() if "boardhand" in line]) == (0, [])


@pytest.mark.parametrize(("name", "most"), EXPOSURE.items())
def test_exposure_is_as_told(name, most):
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", UNITS / f"boardhand-{name}.service"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout[-500:]
    assert float(found[1]) <= most


def test_the_agent_keeps_the_devices_that_it_works_with():
    allowed = {line.split()[0]: line.split()[1] for line in lines("agent", "DeviceAllow")}
    for kind in ("char-ttyUSB", "char-ttyACM", "char-ttyS", "char-ttyAMA", "char-usb_device", "char-hidraw"):
        assert allowed[kind] == "rw"
    assert section("agent").get("PrivateDevices", "no") == "no"
    # A class is known by its driver: if that is loaded later, the class stays closed.
    wants, after = lines("agent", "Wants"), lines("agent", "After")
    for module in ("usbserial", "cdc_acm"):
        assert any(f"modprobe@{module}.service" in line for line in wants)
        assert any(f"modprobe@{module}.service" in line for line in after)


def test_the_agent_may_write_what_udev_opens_in_sysfs():
    assert section("agent")["ProtectKernelTunables"] == "yes"
    assert "-/sys/devices" in lines("agent", "ReadWritePaths")


def test_the_agent_holds_what_netboot_needs_and_the_broker_nothing():
    assert section("agent")["AmbientCapabilities"] == section("agent")["CapabilityBoundingSet"]
    assert set(section("agent")["AmbientCapabilities"].split()) == {"CAP_NET_BIND_SERVICE", "CAP_NET_RAW"}
    assert section("broker")["CapabilityBoundingSet"] == ""
    assert {"AF_PACKET", "AF_NETLINK"} <= set(section("agent")["RestrictAddressFamilies"].split())


def test_settings_that_are_wrong_are_not_tried_again_and_again():
    for name in EXPOSURE:
        assert section(name)["RestartPreventExitStatus"] == "2"
        assert section(name)["Type"] == "notify"


def test_sysusers_and_tmpfiles_are_taken_by_systemd(tmp_path):
    (tmp_path / "etc").mkdir()
    for program, conf in (("systemd-sysusers", "sysusers.conf"), ("systemd-tmpfiles", "tmpfiles.conf")):
        more = ["--create"] if program == "systemd-tmpfiles" else []
        done = subprocess.run(
            [program, f"--root={tmp_path}", *more, UNITS / conf],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert "boardhand:x:" in (tmp_path / "etc/passwd").read_text()
    assert (tmp_path / "var/lib/boardhand/agent").is_dir()


@pytest.mark.parametrize("script", ["postinst", "prerm", "postrm"])
def test_maintainer_scripts_are_shell(script):
    subprocess.run(["sh", "-n", ROOT / "packaging/deb" / script], check=True, timeout=20)


@pytest.mark.parametrize("name", EXPOSURE)
def test_the_settings_of_the_package_are_taken_as_they_are(name, capsys):
    from cli.main import main

    assert main(["check", str(ROOT / f"packaging/deb/{name}.toml")]) == 0
