"""`boardhand netboot advice`: from a settings file to the lines for another DHCP server. That servers take them, and
then say what we would, is shown in tests/netboot/test_dhcp_advice.py."""

import json
import subprocess

import pytest

from cli.exits import Exit
from cli.main import main

SETTINGS = """
[agent]
name = "lab"
state_dir = "{folder}/state"
[netboot]
interface = "lo"
address = "10.77.0.1/24"
mqtt_for_boards = "10.77.0.1:1883"
[profiles.debian]
kernel = "{folder}/Image"
[controllers.rack]
driver = "command"
on = ["true"]
off = ["true"]
state = ["true"]
[boards.bone]
feed = ["rack:1"]
macs = ["52:54:00:77:00:01"]
address = "10.77.0.11"
profile = "debian"
[boards.other]
feed = ["rack:2"]
"""


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "Image").write_bytes(b"kernel")
    file = tmp_path / "agent.toml"
    file.write_text(SETTINGS.format(folder=tmp_path))
    return file


def test_for_dnsmasq(settings, tmp_path, capsys):
    assert main(["netboot", "advice", "--settings", str(settings)]) == Exit.OK
    text = capsys.readouterr().out
    assert "dhcp-host=52:54:00:77:00:01,set:board-bone,10.77.0.11,bone\n" in text
    assert "dhcp-boot=tag:board-bone,tag:bh-uboot,boot.scr.uimg,,10.77.0.1\n" in text
    assert "http://10.77.0.1:8069/" in text
    assert "other" not in text
    file = tmp_path / "dnsmasq.conf"
    file.write_text(text)
    checked = subprocess.run(["dnsmasq", "--test", "-C", file], capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stderr


def test_for_dhcpd_as_json(settings, capsys):
    assert main(["netboot", "advice", "--settings", str(settings), "--syntax", "isc", "--json"]) == Exit.OK
    told = json.loads(capsys.readouterr().out)
    assert told["syntax"] == "isc"
    assert "host bone {" in told["lines"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["advice"], "--settings"),
        (["advice", "bone", "--settings", "{file}"], "leave out 'bone'"),
        (["advice", "--settings", "{file}.not"], "is not there"),
        (["explain"], "name of a board"),
    ],
)
def test_wrong_words(settings, capsys, words, said):
    assert main(["netboot", *(word.replace("{file}", str(settings)) for word in words)]) == Exit.USAGE
    assert said in capsys.readouterr().err


def test_an_agent_without_a_board_network(settings, capsys):
    text = settings.read_text()
    begin, end = text.index("[netboot]"), text.index("[profiles")
    settings.write_text(text[:begin] + text[end:])
    assert main(["netboot", "advice", "--settings", str(settings)]) == Exit.USAGE
    assert "[netboot]" in capsys.readouterr().err
