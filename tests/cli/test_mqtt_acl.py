"""`boardhand mqtt-acl`: the users of a farm from its settings."""

import json

import pytest

from cli.exits import Exit
from cli.main import main

ATTIC = """
[mqtt]
username = "attic"
password_file = "/not/here"
[agent]
name = "attic"
[boards.pi4]
feed = ["hub:1"]
[boards.bone]
"""
CELLAR = ATTIC.replace("attic", "cellar").replace("pi4", "rock5").replace("bone", "imx8")
BROKER = '[mqtt]\nusername = "broker"\n[broker]\n'


@pytest.fixture
def files(tmp_path):
    def write(**texts):
        found = []
        for name, text in texts.items():
            (tmp_path / f"{name}.toml").write_text(text)
            found.append(str(tmp_path / f"{name}.toml"))
        return found

    return write


def sections(text):
    """The topics of each user, `None` for who gives no name."""
    found, user = {None: set()}, None
    for line in text.splitlines():
        if line.startswith("user "):
            user = line.removeprefix("user ")
            found[user] = set()
        elif line.startswith("topic "):
            found[user].add(line.removeprefix("topic "))
    return found


def test_a_farm_of_two_hosts(files, capsys):
    arguments = ["mqtt-acl", *files(attic=ATTIC, cellar=CELLAR, broker=BROKER), "--operator", "olga"]
    assert main([*arguments, "--looks-only", "screen"]) == 0
    found = sections(capsys.readouterr().out)
    assert found.keys() == {None, "attic", "cellar", "broker", "olga", "screen"}
    assert "write boardhand/board/pi4/state" in found["attic"]
    assert "write boardhand/board/pi4/state" not in found["cellar"]
    assert "write boardhand/board/+/power/set" in found["olga"]
    assert not [topic for topic in found["screen"] if topic.startswith(("write", "readwrite"))]
    assert "write boardhand/board/+/self" in found[None]


def test_boards_that_log_in(files, capsys):
    assert main(["mqtt-acl", *files(attic=ATTIC, broker=BROKER), "--no-nameless-boards", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    found = sections(answer["acl"])
    assert not found[None]
    assert "write boardhand/board/pi4/work/result" in found["pi4"]
    assert not [topic for topic in found["pi4"] if "bone" in topic or "board/+" in topic]
    assert {user["user"] for user in answer["users"]} == {"attic", "broker", "pi4", "bone"}


def test_one_file_for_both_daemons_is_one_user(files, capsys):
    assert main(["mqtt-acl", *files(both=ATTIC + "[broker]\n[web]\n"), "--json"]) == 0
    users = {user["user"]: user for user in json.loads(capsys.readouterr().out)["users"]}
    assert users["attic"]["roles"] == ["broker", "operator", "agent"]
    assert users["attic"]["boards"] == ["pi4", "bone"]


def test_a_prefix_of_ones_own(files, capsys):
    own = ATTIC.replace("[mqtt]", '[mqtt]\nprefix = "lab/one"')
    assert main(["mqtt-acl", *files(attic=own)]) == 0
    text = capsys.readouterr().out
    assert "topic write lab/one/board/pi4/state" in text
    assert "boardhand/" not in text


@pytest.mark.parametrize(
    ("texts", "more", "says"),
    [
        ({"a": ATTIC.replace('username = "attic"\n', "")}, [], "gives no user name"),
        ({"a": ATTIC, "c": CELLAR.replace('username = "cellar"', 'username = "attic"')}, [], "a user of its own"),
        ({"a": ATTIC, "c": CELLAR.replace("[mqtt]", '[mqtt]\nprefix = "other"')}, [], "for one farm"),
        ({"a": ATTIC}, ["--operator", "attic"], "daemon's user"),
        ({"a": ATTIC.replace('name = "attic"', 'name = "#"')}, [], "not an id"),
        ({"a": "[mqtt"}, [], "a.toml"),
        ({"a": ATTIC}, ["none.toml"], "none.toml"),
        ({"a": 'mqtt = 5\n[agent]\nname = "a"\n'}, [], "mqtt is no table"),
    ],
)
def test_what_cannot_be_one_list_is_said(files, capsys, texts, more, says):
    assert main(["mqtt-acl", *files(**texts), *more]) == Exit.USAGE
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
