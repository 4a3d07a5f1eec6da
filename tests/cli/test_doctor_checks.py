"""The doctor's checks over facts that are given to them."""

import os
import stat
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.console.holders import Holder
from cli.doctor import clock, devices, folders, identity, mqtt, nfs, ports, segment
from cli.doctor.finding import Verdict
from cli.doctor.identity import Identity
from cli.doctor.ports import Listener, Owner
from cli.doctor.wants import DeviceWant, FolderWant, PortWant, SecretWant
from daemon.mqtt_discovery import Endpoint
from netboot.dhcp_desk import DhcpMode

OK, WRONG, UNSEEN = Verdict.OK, Verdict.WRONG, Verdict.UNSEEN
BOARDHAND = Identity("boardhand", 990, frozenset({990, 20}))
TFTP = PortWant("udp", "10.77.0.1", 69, "TFTP", "[netboot] tftp_port", interface="eth1")


def status(mode=0o600, uid=0, gid=0):
    return os.stat_result((mode, 1, 1, 1, uid, gid, 0, 0, 0, 0))


# --- ports -----------------------------------------------------------------------------------------------------

UDP = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 1021: 0100007F:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 41234 2 0 0
 1022: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 41235 2 0 0
 1023: 0100007F:0046 0100007F:1000 01 00000000:00000000 00:00000000 00000000     0        0 41236 2 0 0
 what is this
"""
TCP6 = """\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm retr uid
   0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 0A 0:0 00:0 0  0 0 77 1 0 100
"""


def test_tables_of_the_kernel_are_read():
    found = list(ports.parse("udp", UDP))
    assert [(one.protocol, one.address, one.port, one.inode) for one in found] == [
        ("udp", "127.0.0.1", 69, 41234),
        ("udp", "0.0.0.0", 67, 41235),
    ]
    (one,) = ports.parse("tcp6", TCP6)
    assert (one.protocol, one.address, one.port) == ("tcp", "::1", 8080)


@given(st.text(max_size=300))
def test_whatever_the_table_says_nothing_breaks(text):
    list(ports.parse("tcp", "head\n" + text.replace(":", " ")))


@pytest.mark.parametrize(
    ("there", "mine", "verdict", "says"),
    [
        ([], (), OK, "free"),
        ([], (7,), WRONG, "does not listen"),
        ([Listener("udp", "10.77.0.1", 69, 1, owners=(Owner(7, "python3"),))], (7,), OK, "the agent listens"),
        (
            [Listener("udp", "0.0.0.0", 69, 1, owners=(Owner(9, "in.tftpd", "tftpd-hpa.service"),))],
            (),
            WRONG,
            "in.tftpd",
        ),
        ([Listener("udp", "::", 69, 1, owners=(Owner(9, "in.tftpd"),))], (), WRONG, "process 9"),
        ([Listener("udp", "10.77.0.2", 69, 1, owners=(Owner(9, "x"),))], (), OK, "free"),
        ([Listener("udp", "0.0.0.0", 69, 1, "virbr0", (Owner(9, "dnsmasq"),))], (), OK, "free"),
        ([Listener("udp", "0.0.0.0", 69, 1, "eth1", (Owner(9, "dnsmasq"),))], (), WRONG, "dnsmasq"),
        ([Listener("tcp", "0.0.0.0", 69, 1, owners=(Owner(9, "x"),))], (), OK, "free"),
        ([Listener("udp", "0.0.0.0", 69, 1)], (), WRONG, "another user"),
        ([Listener("udp", "0.0.0.0", 69, 1)], (7,), UNSEEN, "another user"),
        ([Listener("udp", "0.0.0.0", 69, 1, owners=())], (), WRONG, "kernel itself"),
    ],
)
def test_who_has_a_port(there, mine, verdict, says):
    (found,) = ports.check([TFTP], there, {"agent": frozenset(mine)})
    assert found.verdict is verdict
    assert says in found.what
    assert (found.mend == "") == (verdict is OK)


def test_a_service_is_stopped_by_its_unit():
    there = [Listener("udp", "0.0.0.0", 69, 1, owners=(Owner(9, "in.tftpd", "tftpd-hpa.service"),))]
    (found,) = ports.check([TFTP], there, {})
    assert found.mend == "systemctl disable --now tftpd-hpa.service  # or change [netboot] tftp_port"


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("0::/system.slice/tftpd-hpa.service\n", "tftpd-hpa.service"),
        ("1:name=systemd:/system.slice/system-getty.slice/getty@tty1.service\n", "getty@tty1.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service\n", ""),
        ("0::/init.scope\n", ""),
        ("0::/docker/5f2c\n", ""),
    ],
)
def test_the_unit_is_in_the_control_group(tmp_path, text, unit):
    (tmp_path / "cgroup").write_text(text)
    assert ports.unit_of(tmp_path) == unit


def test_without_its_files_a_process_has_neither_unit_nor_sockets(tmp_path):
    (tmp_path / "12").mkdir()
    assert ports.unit_of(tmp_path / "12") == ""
    assert ports.socket_owners(tmp_path) == {}


# --- access ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "uid", "gid", "may"),
    [
        (0o660, 0, 20, True),
        (0o660, 0, 0, False),
        (0o600, 990, 0, True),
        (0o066, 990, 20, False),  # the owner's bits count for the owner, whatever others may
        (0o006, 0, 0, True),
        (0o640, 0, 20, False),
    ],
)
def test_modes_are_judged_as_the_kernel_does(mode, uid, gid, may):
    assert BOARDHAND.may(status(mode, uid, gid), devices.RW) == may
    assert Identity("root", 0, frozenset()).may(status(0), devices.RW)


@pytest.mark.parametrize(
    ("mode", "gid", "held", "verdict", "says", "mend"),
    [
        (stat.S_IFCHR | 0o660, 20, [], OK, "may open", ""),
        (stat.S_IFCHR | 0o660, 5, [], WRONG, "may not open", "usermod -aG"),
        (stat.S_IFCHR | 0o600, 0, [], WRONG, "may not open", "boardhand udev install"),
        (stat.S_IFREG | 0o660, 20, [], WRONG, "neither a device", "boardhand serial"),
        (stat.S_IFCHR | 0o660, 20, [Holder(44, "ModemManager")], WRONG, "ModemManager", "disable --now ModemManager"),
        (stat.S_IFCHR | 0o660, 20, [Holder(45, "minicom")], WRONG, "minicom", "kill 45"),
        (stat.S_IFCHR | 0o660, 20, [Holder(7, "python3")], OK, "may open", ""),
        (stat.S_IFSOCK | 0o660, 20, [Holder(9, "qemu")], OK, "may open", ""),
    ],
)
def test_a_console(mode, gid, held, verdict, says, mend):
    want = DeviceWant("console of pi4", path="/dev/ttyUSB0")
    found = devices.by_path(
        want, BOARDHAND, ours=frozenset({7}), held=lambda _: held, look=lambda _: status(mode, 0, gid)
    )
    assert (found.verdict, says in found.what, mend in found.mend) == (verdict, True, True)


def test_a_device_that_is_not_there_and_one_that_cannot_be_seen():
    want = DeviceWant("console of pi4", path="/dev/ttyUSB0")

    def failing(error):
        def fail(_):
            raise error

        return devices.by_path(want, BOARDHAND, ours=frozenset(), held=lambda _: [], look=fail)

    assert failing(FileNotFoundError(2, "no")).verdict is WRONG
    assert failing(PermissionError(13, "no")).verdict is UNSEEN


def test_usb_devices_are_found_by_their_numbers(tmp_path):
    device = tmp_path / "sys/bus/usb/devices/1-1.4"
    device.mkdir(parents=True)
    for name, text in (("idVendor", "16c0"), ("idProduct", "05df"), ("busnum", "1"), ("devnum", "7")):
        (device / name).write_text(text + "\n")
    node = tmp_path / "dev/bus/usb/001/007"
    node.parent.mkdir(parents=True)
    node.touch(0o600)

    def ask(place):
        want = DeviceWant("controller r", usb_ids=(("16c0", "05df"),), place=place)
        (found,) = devices.check([want], BOARDHAND, sysfs=tmp_path / "sys", dev=tmp_path / "dev")
        return found

    assert ask(None).verdict is WRONG
    assert "may not open" in ask("1-1.4").what
    assert "is not there" in ask("1-1.5").what
    node.chmod(0o666)
    assert ask(None).verdict is OK


@pytest.mark.parametrize(
    ("mode", "gid", "verdict", "says"),
    [
        (0o640, 20, OK, "others do not"),
        (0o644, 20, WRONG, "everybody"),
        (0o600, 20, WRONG, "may not read"),
    ],
)
def test_a_secret_is_for_its_daemon_alone(mode, gid, verdict, says):
    found = folders.secret(SecretWant(Path("/etc/x"), "[web] tokens", "broker"), status(mode, 0, gid), BOARDHAND)
    assert (found.verdict, says in found.what) == (verdict, True)


def room(blocks=1 << 30, free=1 << 29, inodes=10000, free_inodes=5000, flags=0):
    return os.statvfs_result((4096, 4096, blocks, free, free, inodes, free_inodes, free_inodes, flags, 255))


@pytest.mark.parametrize(
    ("mode", "disk", "verdict", "says"),
    [
        (0o40700, room(), OK, "GiB are free"),
        (0o40700, room(free=100), WRONG, "0.00 GiB"),
        (0o40700, room(free=1 << 23), WRONG, "GiB"),  # 32 GiB of 4 TiB are below the share
        (0o40700, room(free_inodes=5), WRONG, "inodes"),
        (0o40700, room(inodes=0, free_inodes=0), OK, "free"),  # btrfs counts none
        (0o40700, room(flags=1), WRONG, "read-only"),
        (0o40500, room(), WRONG, "may not write"),
        (0o100600, room(), WRONG, "no folder"),
    ],
)
def test_a_folder(mode, disk, verdict, says):
    place = Path("/var/lib/boardhand/agent")
    want = FolderWant(place, "state_dir", "agent")
    found = folders.folder(want, "s", place, status(mode, 990), disk, BOARDHAND)
    assert (found.verdict, says in found.what) == (verdict, True)


def test_folders_that_are_not_made_yet_are_judged_by_the_one_above(tmp_path):
    want = FolderWant(tmp_path / "a/b", "state_dir", "agent")
    (found,) = folders.check_folders([want], {"agent": identity.own()})
    assert found.verdict is OK, found
    (found,) = folders.check_folders([want], {"agent": Identity("nobody", 65534, frozenset())})
    assert "install -d -o nobody" in found.mend


def test_a_secret_that_is_not_there(tmp_path):
    (found,) = folders.check_secrets([SecretWant(tmp_path / "t", "[web] tokens", "broker")], {"broker": BOARDHAND})
    assert "boardhand token add" in found.mend


# --- privileges ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status_text", "first", "verdicts"),
    [
        ("CapEff:\t0000000000002400\n", 1024, [OK, OK]),
        ("CapEff:\t0000000000002000\n", 1024, [WRONG, OK]),
        ("CapEff:\t0000000000002000\n", 0, [OK, OK]),
        ("CapEff:\t0\n", 1024, [WRONG, WRONG]),
        (None, 1024, [UNSEEN, UNSEEN]),
    ],
)
def test_capabilities_of_the_process_that_runs(status_text, first, verdicts):
    found = identity.capabilities({"CAP_NET_RAW", "CAP_NET_BIND_SERVICE"}, status_text, first, pid=7)
    assert [one.verdict for one in found] == verdicts


def test_who_a_process_is(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7/status").write_text("Name:\tx\nUid:\t5\t990\t5\t5\nGid:\t1\t991\t1\t1\nGroups:\t20 46 \n")
    who = identity.of_process(7, tmp_path)
    assert (who.uid, who.gids) == (990, frozenset({991, 20, 46}))
    assert identity.of_process(8, tmp_path) is None


def test_a_lock_of_a_process_that_is_another_now_is_none(tmp_path):
    (tmp_path / "agent.lock").write_text("7\n")
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cmdline").write_bytes(b"python3\0-m\0agent\0")
    assert identity.running(tmp_path, "agent", tmp_path) == 7
    (tmp_path / "7/cmdline").write_bytes(b"vim\0")
    assert identity.running(tmp_path, "agent", tmp_path) is None
    assert identity.running(tmp_path, "broker", tmp_path) is None


# --- clock, network, MQTT, NFS ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("result", "flags", "error_us", "verdict"),
    [(0, 1, 5000, OK), (5, 0x40, 16_000_000, WRONG), (0, 0x41, 5000, WRONG), (0, 1, 2_000_000, WRONG)],
)
def test_the_clock(result, flags, error_us, verdict):
    assert clock.judge(result, flags, error_us).verdict is verdict


def test_the_kernel_can_be_asked():
    assert clock.check().verdict in {OK, WRONG}


@pytest.mark.parametrize(
    ("state", "addresses", "verdict", "says"),
    [
        ("up", ["10.77.0.1"], OK, "is there"),
        ("down", ["10.77.0.1"], WRONG, "is down"),
        ("no link", ["10.77.0.1"], WRONG, "no link"),
        ("up", [], WRONG, "no IPv4"),
        ("up", ["192.0.2.1", "10.77.0.1"], OK, "is there"),
        ("up", ["192.0.2.1", "10.77.0.9"], WRONG, "has 192.0.2.1, 10.77.0.9, not"),
        (None, [], WRONG, "not there"),
    ],
)
def test_the_interface(state, addresses, verdict, says):
    found = segment.judge_interface(
        "eth1", IPv4Interface("10.77.0.1/24"), state and segment.Link(state), [IPv4Address(one) for one in addresses]
    )
    assert (found.verdict, says in found.what) == (verdict, True)


ONE = {"10.77.0.254": "02:00:00:00:00:01"}
TWO = ONE | {"10.77.0.253": "02:00:00:00:00:02"}


@pytest.mark.parametrize(
    ("mode", "found", "verdict"),
    [
        (DhcpMode.AUTHORITATIVE, {}, OK),
        (DhcpMode.AUTHORITATIVE, ONE, WRONG),
        (DhcpMode.PROXY, {}, WRONG),
        (DhcpMode.PROXY, ONE, OK),
        (DhcpMode.OFF, ONE, OK),
        (DhcpMode.OFF, TWO, WRONG),
    ],
)
def test_dhcp_rivals(mode, found, verdict):
    assert segment.judge_rivals(mode, "eth1", found).verdict is verdict


def test_what_mqtt_refuses():
    assert mqtt.judge_hears("agent", ["a", "b"], []).verdict is OK
    refused = mqtt.judge_hears("agent", list("abcde"), list("abcde"))
    assert "a, b, c and 2 more" in refused.what
    assert mqtt.judge_says("agent", ["a"], {"a": 0x10}).verdict is OK  # nobody listens there
    assert mqtt.judge_says("agent", ["a"], {"a": 0x87}).verdict is WRONG
    assert mqtt.judge_says("agent", ["a"], {}).verdict is UNSEEN
    assert mqtt.judge_says("agent", ["a"], "it speaks 3.1.1").verdict is UNSEEN


def test_a_server_that_does_not_answer():
    endpoint = Endpoint("mqtt.example", 1883, tls=False)
    assert "mosquitto" in mqtt.unreachable("s", endpoint, ConnectionRefusedError(111, "Connection refused")).mend
    assert "ping mqtt.example" in mqtt.unreachable("s", endpoint, TimeoutError()).mend


def test_mounts_of_its_own_hide_views_from_the_kernels_server():
    assert nfs.mounts(same=True).verdict is OK
    assert "roots.conf" in nfs.mounts(same=False).mend
