"""The doctor's words about faults of networks and servers that are really there: as in test_doctor_faults."""

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.doctor import mqtt, nfs
from cli.doctor.finding import Finding, Verdict
from daemon.mqtt_settings import MqttSettings
from tests.cli.farm_double import mosquitto

OK, WRONG = Verdict.OK, Verdict.WRONG

# --- the board network -----------------------------------------------------------------------------------------

_INTERFACE = """
set -e
ip link set lo up
exec "$1" -c '
import json, subprocess, time
from agent.netboot_settings import NetbootTable
from cli.doctor import segment
table = NetbootTable(interface="bh-a", address="10.77.0.1/24", mqtt_for_boards="10.77.0.1:1883")
def look(passing=""):
    # passing: what is said until the kernel has looked at the link, which it does a while later.
    ends = time.monotonic() + 30
    while True:
        found = segment.check_interface(table)
        if found.what != passing or time.monotonic() > ends:
            return [found.verdict, found.what, found.mend]
        time.sleep(0.02)
def paste(found):
    return [*found, subprocess.run(["bash", "-c", found[2]], capture_output=True).returncode]
def ip(*words):
    subprocess.run(["ip", *words], check=True)
story = {"none": look()}
ip("link", "add", "bh-a", "type", "veth", "peer", "name", "bh-b")
ip("link", "set", "bh-b", "up")
ip("address", "add", "192.0.2.1/24", "dev", "bh-a")
story["down"] = paste(look()); story["other"] = paste(look("has no link")); story["both"] = look()
ip("link", "set", "bh-b", "down")
story["unplugged"] = look("is there with 10.77.0.1/24")
print(json.dumps(story))
'
"""


def test_an_interface_is_brought_up_and_given_its_address_by_what_is_said() -> None:
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", _INTERFACE, "sh", sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    story = json.loads(done.stdout)
    assert story["none"][:2] == ["wrong", "is not there"]
    assert (story["down"][1], story["down"][3]) == ("is down", 0)
    assert (story["other"][1], story["other"][3]) == ("has 192.0.2.1, not 10.77.0.1", 0)
    assert story["both"] == ["ok", "is there with 10.77.0.1/24", ""]
    assert story["unplugged"][1] == "has no link"


_BOUND = """
set -e
ip link add bh-a type veth peer name bh-b
exec "$1" -c '
import json, socket
from cli.doctor import ports
from cli.doctor.wants import PortWant
held = [socket.socket(type=socket.SOCK_DGRAM), socket.socket()]
for one in held:
    one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"bh-b")
    one.bind(("0.0.0.0", 69))
held[1].listen()
wants = [
    PortWant(protocol, "0.0.0.0", 69, "test", "[netboot] port", interface=interface)
    for protocol in ("udp", "tcp") for interface in ("bh-a", "bh-b")
]
print(json.dumps([[one.verdict, one.what] for one in ports.check(wants, ports.listeners(), {})]))
'
"""


def test_a_server_that_is_bound_to_another_interface_is_no_rival() -> None:
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", _BOUND, "sh", sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    udp_a, udp_b, tcp_a, tcp_b = json.loads(done.stdout)
    assert [udp_a, tcp_a] == [["ok", "free"]] * 2
    assert all(one[0] == "wrong" and one[1].startswith("taken by python") for one in (udp_b, tcp_b)), (udp_b, tcp_b)


# --- MQTT ------------------------------------------------------------------------------------------------------


def asked(url: str, **more: object) -> Finding:
    return mqtt.check(MqttSettings(url=url, **more), "agent", [], [], lambda *_: None)[0]


@pytest.fixture
def certificate(tmp_path: Path) -> Callable[[str], Path]:
    """Makes a certificate that its own key has signed, beside its key."""

    def make(name: str) -> Path:
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=test"
        files = ["-keyout", tmp_path / f"{name}.key", "-out", tmp_path / f"{name}.crt"]
        names = ["-addext", f"subjectAltName={name}"]
        subprocess.run([*command.split(), *files, *names], check=True, capture_output=True, timeout=60)
        return tmp_path / f"{name}.crt"

    return make


TLS = "user root\nallow_anonymous true\ncertfile {crt}\nkeyfile {key}\ncafile {crt}\n"


def test_tls_where_there_is_none_and_none_where_there_is(
    tmp_path: Path, server: int, certificate: Callable[[str], Path]
) -> None:
    right, other = certificate("IP:127.0.0.1"), certificate("DNS:elsewhere")
    with mosquitto(tmp_path / "tls", extra=TLS.format(crt=right, key=right.with_suffix(".key"))) as port:
        assert asked(f"mqtts://127.0.0.1:{port}", ca_file=right).verdict is OK
        assert "mqtts://" in asked(f"mqtt://127.0.0.1:{port}").mend
        stranger = asked(f"mqtts://127.0.0.1:{port}", ca_file=other)
    assert "self-signed" in stranger.what
    assert stranger.mend.startswith(f"openssl s_client -connect 127.0.0.1:{port} </dev/null  # mend [mqtt] ca_file")
    with mosquitto(tmp_path / "other", extra=TLS.format(crt=other, key=other.with_suffix(".key"))) as port:
        assert "not valid for '127.0.0.1'" in asked(f"mqtts://127.0.0.1:{port}", ca_file=other).what
    plain = asked(f"mqtts://127.0.0.1:{server}")
    assert plain.verdict is WRONG
    assert "if it has no TLS, write mqtt://" in plain.mend


def test_a_server_that_takes_us_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt, "TIMEOUT_S", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = asked(f"mqtt://127.0.0.1:{silent.getsockname()[1]}")
    assert "did not answer" in found.what
    assert found.mend.startswith("systemctl restart mosquitto  #")


# --- NFS -------------------------------------------------------------------------------------------------------


def test_the_kernels_server_is_missed_or_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nfs, "_EXPORTFS", str(tmp_path))
    (missing,) = nfs._kernel_server(None, tmp_path)
    assert (missing.what, missing.mend) == ("is not installed", "apt-get install nfs-kernel-server")
    (tmp_path / "exportfs").touch(0o755)
    assert nfs._kernel_server(None, tmp_path)[1].mend == "systemctl enable --now nfs-server"
    (tmp_path / "fs/nfsd").mkdir(parents=True)
    (tmp_path / "fs/nfsd/threads").write_text("8\n")
    assert [one.verdict for one in nfs._kernel_server(None, tmp_path)] == [OK, OK]
