"""What `boardhand learn` prints and writes."""

import json
import tomllib

import pytest

from cli.exits import CliError, Exit
from cli.learn_text import put_back, table
from cli.learn_write import check, learnt, plan
from tests.cli.farm_double import boardhand
from tests.cli.learn_double import ROW, LearnDouble

DOUBLE = {**ROW, "feed": ["a:1", "b:1"], "consoles": [], "macs": [], "boot_s": None, "idle_w": None, "busy_w": None}
SETTINGS = """\
# my farm
[agent]
name = "lab-1"   # upstairs
state_dir = "state"

[controllers.rack-pdu]
driver = "tasmota"
topic = "rack"

[boards.one]
feed = ["rack-pdu:1"]
"""


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "boardhand.toml"
    path.write_text(SETTINGS)
    return path


# --- the result -----------------------------------------------------------------------------------------------------


def test_the_table_names_what_is_known_and_why_the_rest_is_not():
    found = {
        "rows": [ROW, DOUBLE],
        "unknown": [{"outlet": "rack-pdu:4", "because": "nothing was heard in 240 s"}],
        "strangers": [{"kind": "mac", "name": "02:0\x1b[2J", "because": "it talks while every outlet is off"}],
        "stopped": "somebody stopped it",
    }
    text = "\n".join(table(found))
    assert "rack-pdu:3" in text
    assert "99.97 %" in text
    assert "12.3 s" in text
    assert "a:1 + b:1" in text
    assert "rack-pdu:4: unknown, because nothing was heard in 240 s" in text
    assert "stopped before its end: somebody stopped it" in text
    assert "\x1b" not in text


def test_nothing_found_is_said():
    assert table({"rows": []}) == ["no board was found beyond doubt"]


@pytest.mark.parametrize(
    ("found", "text"),
    [
        ({"restored": {"a:1": False, "a:2": True}}, "as found: a:1 off, a:2 on"),
        ({"restored": {}}, "no outlet was switched"),
        ({"restored": {}, "unrestored": ["a:1"]}, ""),
        ({}, "the outlets are as they were found"),
        ({"unrestored": ["a:1"]}, ""),
    ],
)
def test_what_was_put_back_is_said(found, text):
    assert put_back(found) == text


# --- what is written ------------------------------------------------------------------------------------------------


def test_a_row_as_settings():
    assert learnt(ROW).keys == {
        "feed": ["rack-pdu:3"], "macs": ["02:00:00:00:00:01"], "console": "/dev/ttyUSB0", "watts_idle": 2.5,
        "watts_busy": 4,
    }  # fmt: skip
    assert learnt(DOUBLE).keys == {"feed": ["a:1", "b:1"], "feed_is": "parallel"}
    more = learnt({**ROW, "usb": ["1-1.4"], "links": ["eth1"], "consoles": ["/dev/ttyUSB0", "/dev/ttyUSB1"]})
    assert (more.keys["usb"], more.keys["link"]) == ("1-1.4", "eth1")
    assert more.remarks[-1] == "It speaks on /dev/ttyUSB1 as well."
    assert "usb" not in learnt({**ROW, "usb": ["1-1.4", "1-1.5"]}).keys


def test_boards_come_into_a_persons_file_once(settings):
    link = settings.with_name("link.toml")
    link.symlink_to(settings)
    made = plan(link, [ROW], set())
    made.write()
    assert link.is_symlink()
    text = settings.read_text()
    assert text.startswith(SETTINGS + "\n# Learnt: mac … came 3 of 3 times.\n")
    assert tomllib.loads(text)["boards"]["board-rack-pdu-3"]["console"] == "/dev/ttyUSB0"
    assert made.told(done=True).startswith(f"{settings}: 1 board added: board-rack-pdu-3; read it")
    again = plan(link, [ROW], set())
    assert not again.changes
    assert again.told(done=True) == f"{settings}: nothing new"


def test_what_a_board_lacks_is_said(settings):
    made = plan(settings, [{**ROW, "feed": ["rack-pdu:1"]}], set())
    assert made.told(done=False) == (f"{settings}: would be written: one got macs, console, watts_idle, watts_busy")
    assert made.diff().count("\n+") == 1 + 6  # its head, two remarks, four keys


def test_a_name_that_a_board_has_elsewhere_is_not_taken(settings):
    assert list(plan(settings, [ROW], {"board-rack-pdu-3"}).additions.fresh) == ["board-rack-pdu-3-2"]


def test_settings_that_the_agent_would_not_take_are_not_written(settings):
    made = plan(settings, [{**ROW, "feed": ["no-such:3"]}], set())
    with pytest.raises(CliError, match="nothing is written"):
        made.write()
    assert settings.read_text() == SETTINGS
    assert [entry.name for entry in settings.parent.iterdir()] == [settings.name]


def test_a_file_that_changed_meanwhile_is_left_alone(settings):
    made = plan(settings, [ROW], set())
    settings.write_text(SETTINGS + "# one thing more\n")
    with pytest.raises(CliError, match="changed by somebody else"):
        made.write()
    assert settings.read_text() == SETTINGS + "# one thing more\n"


@pytest.mark.parametrize("text", ["[agent", "boards = {}\n"])
def test_what_takes_no_boards_is_said_before_anything_is_switched(settings, text):
    settings.write_text(text)
    with pytest.raises(CliError) as problem:
        check(settings)
    assert problem.value.code is Exit.USAGE
    settings.unlink()
    with pytest.raises(CliError, match="no such file"):
        check(settings)


# --- the command ----------------------------------------------------------------------------------------------------


def test_lines_where_there_is_no_terminal_and_a_file_that_is_written(server, settings):
    with LearnDouble(server) as agent:
        agent.finish.set()
        done = boardhand("learn", "--write", str(settings), port=server)
    assert done.returncode == Exit.OK, done.stderr
    assert "    1.0 s    4 %  rack-pdu:3: listening\n" in done.stderr
    assert "\x1b" not in done.stderr + done.stdout
    assert "1 board added: board-rack-pdu-3" in done.stderr
    assert "rack-pdu:3" in done.stdout
    assert "board-rack-pdu-3" in tomllib.loads(settings.read_text())["boards"]


def test_json_lines_and_a_diff(server, settings):
    with LearnDouble(server) as agent:
        agent.finish.set()
        done = boardhand("learn", "--json", "--write", str(settings), "--dry-run", port=server)
    assert done.returncode == Exit.OK, done.stderr
    line, result = map(json.loads, done.stdout.splitlines())
    assert line["message"] == "rack-pdu:3: listening"
    assert result["rows"] == [ROW]
    assert result["written"] is None
    assert "+[boards.board-rack-pdu-3]" in result["diff"]
    assert not {"outlets", "lines", "left_s"} & result.keys()
    assert settings.read_text() == SETTINGS


def test_what_was_found_last_is_written_without_trying_again(server, settings):
    with LearnDouble(server) as agent:
        agent.asked.append("start")
        agent.finish.set()
        done = boardhand("learn", "--last", "--write", str(settings), port=server)
        assert agent.asked.count("start") == 1
    assert done.returncode == Exit.OK, done.stderr
    assert "listening" not in done.stderr
    assert "board-rack-pdu-3" in settings.read_text()


def test_nothing_was_learnt_yet_and_an_agent_that_says_no(server):
    with LearnDouble(server) as agent:
        nothing = boardhand("learn", "--last", port=server)
        agent.refuses = "learning is under way"
        busy = boardhand("learn", port=server)
    assert nothing.returncode == Exit.NO_ANSWER
    assert "has learnt nothing" in nothing.stderr
    assert busy.returncode == Exit.FAILED
    assert "learning is under way" in busy.stderr


@pytest.mark.parametrize("words", [["--dry-run"], ["--plan", "--last"], ["--write", "/nothing/there"]])
def test_a_wrong_command_line(server, words):
    assert boardhand("learn", *words, port=server).returncode == Exit.USAGE
