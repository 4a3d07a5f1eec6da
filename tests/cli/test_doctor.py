"""`boardhand doctor` as a person runs it: real ports, a real Mosquitto with and without an access list."""

import json
import os
import socket
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from agent.settings import load
from cli.command_line import connection_options
from cli.doctor import mqtt, ports, wants
from cli.doctor.finding import Verdict
from cli.doctor_command import DOCTOR
from cli.exits import CliError, Exit
from daemon.mqtt_settings import MqttSettings
from tests.cli.farm_double import free_port, mosquitto, wait_for

AGENT = """
[agent]
name = "lab-1"
state_dir = "{folder}/state"

[mqtt]
url = "mqtt://127.0.0.1:{port}"
{login}

[controllers.shelf]
driver = "command"
on = ["/bin/true"]
off = ["/bin/true"]

[boards.pi4]
feed = ["shelf:1"]
[boards.pi4.console]
device = "{console}"
raw_port = {raw_port}
"""


@pytest.fixture
def settings(tmp_path):
    """Writes an agent's settings: by default with a port that is free and a pty as console."""

    master, slave = os.openpty()

    def write(port, *, login="", console=None, raw_port=None):
        file = tmp_path / "agent.toml"
        values = {"folder": tmp_path, "port": port, "login": login, "console": console or os.ttyname(slave)}
        file.write_text(AGENT.format(**values, raw_port=raw_port or free_port()))
        return file

    yield write
    os.close(master)
    os.close(slave)


def doctor(capsys, *files, quiet=False, user=None):
    """Exit code, and the findings by check and verdict."""
    args = Namespace(settings=list(files), user=user, quiet=quiet, json=True)
    code = DOCTOR.run(args)
    said = json.loads(capsys.readouterr().out)
    assert said["ok"] == (code == Exit.OK)
    return code, said["findings"]


def of(findings, check, verdict="wrong"):
    return [found for found in findings if found["check"] == check and found["verdict"] == verdict]


def test_a_host_where_all_is_well(capsys, settings, server):
    _, findings = doctor(capsys, settings(server))
    assert [found for found in findings if found["verdict"] == "wrong" and found["check"] != "clock"] == []
    assert {found["check"] for found in findings} >= {"settings", "privileges", "ports", "devices", "disk", "mqtt"}
    assert len(of(findings, "mqtt", "ok")) == 3
    assert all(found["mend"] is None for found in findings if found["verdict"] == "ok")


def test_each_fault_is_told_with_what_mends_it(capsys, settings):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        raw_port = taken.getsockname()[1]
        code, findings = doctor(capsys, settings(free_port(), console="/dev/ttyNONE", raw_port=raw_port))
    assert code == Exit.FAILED
    (port,) = of(findings, "ports")
    assert f"(process {os.getpid()}" in port["what"]
    assert "[boards.pi4.console] raw_port" in port["mend"]
    (device,) = of(findings, "devices")
    assert device["what"] == "is not there"
    (server,) = of(findings, "mqtt")
    assert "mosquitto" in server["mend"]
    assert all(found["mend"] for found in findings if found["verdict"] == "wrong")


def test_settings_that_are_wrong_name_the_line(capsys, tmp_path):
    file = tmp_path / "agent.toml"
    file.write_text('[agent]\nname = "lab-1"\nstate_dir = 7\n')
    code, findings = doctor(capsys, file)
    assert code == Exit.FAILED
    assert "agent.toml:3" in of(findings, "settings")[0]["what"]


def test_what_people_read(capsys, settings, server):
    file = settings(server, console="/dev/ttyNONE")
    DOCTOR.run(Namespace(settings=[file], user=None, quiet=True))
    said = capsys.readouterr().out
    assert "  WRONG  console of pi4: /dev/ttyNONE: is not there\n         -> plug it in" in said
    assert "  ok " not in said
    assert said.splitlines()[-1].endswith(" well")


def test_wrong_lines(tmp_path):
    for args in (Namespace(settings=[tmp_path / "no"], user=None, quiet=False),):
        with pytest.raises(CliError) as caught:
            DOCTOR.run(args)
        assert caught.value.code == Exit.USAGE
    file = tmp_path / "a.toml"
    file.write_text("[broker]\n")
    with pytest.raises(CliError, match="no user nobody-of-that-name"):
        DOCTOR.run(Namespace(settings=[file], user="nobody-of-that-name", quiet=False))


def test_access_is_judged_as_the_user_that_is_named(capsys, settings, server):
    _, findings = doctor(capsys, settings(server, console="/dev/kmsg"), user="nobody")
    assert "nobody may not open it" in of(findings, "devices")[0]["what"]


def test_a_running_agent_is_seen(capsys, settings, server, tmp_path):
    raw_port = free_port()
    file = settings(server, console=f"unix:{tmp_path}/console", raw_port=raw_port)
    with socket.socket(socket.AF_UNIX) as console:
        console.bind(str(tmp_path / "console"))
        console.listen()
        child = subprocess.Popen([sys.executable, "-m", "agent", "--settings", file], stderr=subprocess.DEVNULL)
        try:
            found = wait_for(
                lambda: next((one for one in ports.listeners() if one.port == raw_port), None), "agent listens", 60
            )
            assert found.owners[0].pid == child.pid
            _, findings = doctor(capsys, file)
        finally:
            child.terminate()
            child.wait(60)
    assert f"(process {child.pid})" in of(findings, "privileges", "ok")[0]["what"]
    assert of(findings, "ports", "ok")[0]["what"] == "the agent listens"


# --- MQTT with an access list ----------------------------------------------------------------------------------

# As root Mosquitto becomes its own user, who could not read the test's files.
USERS = "user root\nallow_anonymous false\npassword_file {folder}/passwords\nacl_file {folder}/acl\n"


@pytest.fixture
def guarded(tmp_path, settings):
    """A Mosquitto with an access list, and settings of an agent that logs in as lab-1."""

    def start(acl):
        secret = tmp_path / "secret"
        secret.write_text("open sesame\n")
        secret.chmod(0o600)
        (tmp_path / "acl").write_text(acl)
        (tmp_path / "passwords").touch(0o600)
        subprocess.run(
            ["mosquitto_passwd", "-b", tmp_path / "passwords", "lab-1", "open sesame"], check=True, capture_output=True
        )
        return mosquitto(tmp_path / "server", extra=USERS.format(folder=tmp_path))

    login = f'username = "lab-1"\npassword_file = "{tmp_path}/secret"'
    return start, lambda port: settings(port, login=login)


def test_a_list_that_forbids_what_the_agent_says_is_noticed(capsys, guarded):
    start, write = guarded
    with start("user lab-1\ntopic read boardhand/#\ntopic write boardhand/agent/lab-1/#\n") as port:
        _, findings = doctor(capsys, write(port))
    (refused,) = of(findings, "mqtt")
    assert refused["what"] == "the server drops boardhand/board/pi4/telemetry"
    assert "boardhand mqtt-acl" in refused["mend"]


def test_with_our_own_list_all_is_allowed_and_what_cannot_be_seen_is_said(capsys, guarded, tmp_path):
    from wire.asyncapi import Role
    from wire.mqtt_acl import Account, acl

    start, write = guarded
    with start(acl([Account("lab-1", (Role.AGENT,), names=("lab-1",), boards=("pi4",))])) as port:
        _, findings = doctor(capsys, write(port))
    assert of(findings, "mqtt") == []
    assert [found["subject"] for found in of(findings, "mqtt", "unseen")] == ["what the agent hears"]


def test_a_wrong_password_is_told(capsys, guarded, tmp_path):
    start, write = guarded
    with start("") as port:
        file = write(port)
        (tmp_path / "secret").write_text("wrong\n")
        _, findings = doctor(capsys, file)
    (refused,) = of(findings, "mqtt")
    assert "mosquitto_passwd" in refused["mend"]
    assert "wrong" not in refused["what"]


def test_the_topics_are_those_of_the_daemons(settings):
    """The doctor asks for what the agent will ask for."""
    loaded = load(settings(1883))
    inbox = Path(sys.modules["agent.settings"].__file__).with_name("inbox.py").read_text()
    for word in ("topics.register()", "every_agent_request", "agent_state", "power_set", "board_self", "lease"):
        assert word in inbox
    assert len(wants.agent_topics(loaded)) == 6


def test_no_server_by_that_name():
    found = mqtt.check(MqttSettings(url="mqtt+srv://nothing.invalid"), "agent", [], [], lambda *_: None)
    assert [one.verdict for one in found] == [Verdict.WRONG]


_SEGMENT = """
set -e
ip link set lo up
ip link add bh-a type veth peer name bh-b
ip address add 10.77.0.1/24 dev bh-a
ip address add 10.77.0.2/24 dev bh-b
ip link set bh-a up
ip link set bh-b up
[ "$1" = alone ] || dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --interface=bh-b --bind-interfaces \\
    --no-ping --dhcp-range=10.77.0.100,10.77.0.120 --leasefile-ro --pid-file= --user=root >/dev/null 2>&1 &
exec "$2" -c '
import json, sys, time
from agent.netboot_settings import NetbootTable
from cli.doctor import segment
table = NetbootTable(interface="bh-a", address="10.77.0.1/24", mqtt_for_boards="10.77.0.1:1883")
ends = time.monotonic() + 30
while (interface := segment.check_interface(table)).verdict != "ok" and time.monotonic() < ends:
    time.sleep(0.02)  # a link that was just set up is up when the kernel has looked at it
found = [interface, segment.check_rivals(table, lambda *_: None)]
print(json.dumps([[one.verdict, one.what] for one in found]))
'
"""


@pytest.mark.parametrize("company", ["alone", "dnsmasq"])
def test_a_second_dhcp_server_on_the_segment_is_named(company):
    done = subprocess.run(
        ["unshare", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", _SEGMENT, "sh", company, sys.executable],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    interface, rivals = json.loads(done.stdout)
    assert interface[0] == "ok"
    if company == "alone":
        assert rivals == ["ok", "nobody answers but the agent"]
    else:
        assert rivals[0] == "wrong"
        assert rivals[1].startswith("10.77.0.2 (")


def test_the_command_takes_its_options():
    import argparse

    page = argparse.ArgumentParser()
    DOCTOR.options(page)
    connection_options(page)
    assert page.parse_args(["a.toml", "--quiet"]).settings == [Path("a.toml")]
