"""The log as JSON lines: one object a line whatever is logged, with board and job; and both daemons writing it."""

import asyncio
import json
import logging
import math
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.logs import MAX_MESSAGE_LETTERS, JsonLines, LogFormat, LogTable, about, set_up
from daemon.settings_file import FileSettings, SettingsError, load_settings

ROOT = Path(__file__).resolve().parents[2]
BROKER = '[broker]\nstate_dir = "{folder}/state"\n[mqtt]\nurl = "mqtt://127.0.0.1:1"\n'


def record(message="hello", *arguments, level=logging.WARNING, **more):
    return logging.getLogger("farm").makeRecord("farm", level, "file.py", 1, message, arguments, **more)


def line_of(made):
    line = JsonLines().format(made)
    assert "\n" not in line
    assert "\r" not in line
    assert line.isascii()
    return json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_a_line_has_time_level_logger_and_message():
    found = line_of(record("%s is %d", "rack", 3, exc_info=None))
    said = datetime.fromisoformat(found.pop("time"))
    assert said.tzinfo is not None
    assert abs(datetime.now(UTC) - said) < timedelta(minutes=1)
    assert found == {"level": "WARNING", "logger": "farm", "message": "rack is 3"}


@pytest.mark.parametrize(
    ("message", "subjects"),
    [
        ("board b1: power: on", {"board": "b1"}),
        ("the lease of board b.1-x, taken by job-12", {"board": "b.1-x", "job": "job-12"}),
        ("job-7: its end could not be told yet: board b2", {"job": "job-7", "board": "b2"}),
        ("blackboard b1", {}),
        ("job-0 and job-x are no jobs", {}),
        ("board names of more than one line\nare hidden", {"board": "names"}),
    ],
)
def test_board_and_job_are_found_in_the_message(message, subjects):
    found = line_of(record("%s", message, exc_info=None))
    assert {key: found[key] for key in ("board", "job") if key in found} == subjects


def test_what_the_caller_says_beats_the_message():
    with about(board="b1"):
        with about(job="job-3"):
            inner = line_of(record("board b9 and job-9", exc_info=None))
        outer = line_of(record("board b9 and job-9", exc_info=None))
    extra = line_of(record("board b9", exc_info=None, extra={"board": "b5", "watts": 2.5}))
    assert (inner["board"], inner["job"]) == ("b1", "job-3")
    assert (outer["board"], outer["job"]) == ("b1", "job-9")
    assert (extra["board"], extra["watts"]) == ("b5", 2.5)
    assert line_of(record("nobody", exc_info=None)).keys() == {"time", "level", "logger", "message"}


async def test_a_task_is_about_what_it_began_in():
    async def work():
        await asyncio.sleep(0)
        return line_of(record("works", exc_info=None))

    with about(board="b1", job="job-1"):
        first = asyncio.create_task(work())
    with about(board="b2"):
        second = asyncio.create_task(work())
    found = [await first, await second]
    assert [(line["board"], line.get("job")) for line in found] == [("b1", "job-1"), ("b2", None)]


def test_a_traceback_is_one_string():
    try:
        raise KeyError("b1")  # noqa: TRY301  # it is what is logged
    except KeyError:
        found = line_of(record("failed", exc_info=sys.exc_info()))
    assert found["exception"].splitlines()[-1] == "KeyError: 'b1'"
    assert found["message"] == "failed"


class Spoiled:
    def __str__(self):
        raise RuntimeError("no text")

    def __repr__(self):
        return "<spoiled>"


def test_what_cannot_be_formatted_is_written_all_the_same():
    cyclic = []
    cyclic.append(cyclic)
    found = line_of(record("%d boards", "many", exc_info=None))
    assert found["message"].startswith("%d boards ('many',) (cannot be formatted")
    assert "<spoiled>" in line_of(record("%s", Spoiled(), exc_info=None))["message"]
    extra = {"ring": cyclic, "nothing": math.nan, "spoiled": Spoiled(), "time_": 1}
    found = line_of(record("odd", exc_info=None, extra=extra))
    assert (found["ring"], found["nothing"], found["spoiled"]) == ("[[...]]", "nan", "<spoiled>")


def test_a_long_message_is_cut():
    found = line_of(record("%s", "x" * 100_000, exc_info=None))
    assert len(found["message"]) < MAX_MESSAGE_LETTERS + 50
    assert found["message"].endswith("… (100000 letters)")


@given(st.text(), st.dictionaries(st.text(), st.recursive(st.floats() | st.text() | st.binary(), st.lists)))
def test_nothing_logged_can_begin_another_line_or_another_key(message, extra):
    made = record("%s", message, exc_info=None)
    vars(made).update({f"x{key}": value for key, value in extra.items()})
    found = line_of(made)
    assert found["message"] == message
    assert set(found) - {"board", "job"} == {"time", "level", "logger", "message", *(f"x{key}" for key in extra)}


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    before, level, hook = list(root.handlers), root.level, sys.excepthook
    yield root
    logging.captureWarnings(capture=False)
    root.handlers[:], sys.excepthook = before, hook
    root.setLevel(level)


def test_setting_up_again_replaces_the_first(root_logger, capsys):
    set_up(LogTable(level="ERROR"))
    set_up(LogTable(format=LogFormat.JSON))
    logging.getLogger("farm").info("once")
    lines = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["once"]


def test_a_wrong_table_names_its_line(tmp_path):
    path = tmp_path / "farm.toml"
    path.write_text('[log]\nformat = "xml"\n')
    with pytest.raises(SettingsError, match=r"farm\.toml:2: log\.format: .*'text' or 'json'"):
        load_settings(FileSettings, path)


def start(module, settings, *more):
    return subprocess.Popen(
        [sys.executable, "-m", module, "--settings", str(settings), *more],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONWARNINGS": "default"},
    )


def until_line(process):
    """Its first line, then SIGTERM; all it has written, and its exit code."""
    first = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=60)
    return (first + rest).decode().splitlines(), process.returncode


def test_the_broker_logs_json_by_its_settings(tmp_path):
    settings = tmp_path / "farm.toml"
    settings.write_text(BROKER.format(folder=tmp_path) + '[log]\nformat = "json"\n')
    lines, code = until_line(start("broker", settings))
    found = [json.loads(line) for line in lines]
    assert code == 0
    assert found
    assert {"time", "level", "logger", "message"} <= found[0].keys()


def test_the_agent_logs_json_by_its_command_line(tmp_path):
    settings = tmp_path / "farm.toml"
    settings.write_text('[agent]\nname = "lab1"\nstate_dir = "/proc/nothing/here"\n[log]\nlevel = "INFO"\n')
    process = start("agent", settings, "--log-format", "json")
    _, errors = process.communicate(timeout=60)
    found = [json.loads(line) for line in errors.decode().splitlines()]
    assert process.returncode == 1
    assert (found[-1]["level"], found[-1]["logger"]) == ("CRITICAL", "daemon.foreground")
    assert "/proc/nothing/here" in found[-1]["message"]


def test_wrong_settings_are_json_too_when_asked_for(tmp_path):
    settings = tmp_path / "farm.toml"
    settings.write_text("[broker]\nidle = 3\n")
    process = start("broker", settings, "--log-format", "json")
    _, errors = process.communicate(timeout=60)
    (line,) = errors.decode().splitlines()
    assert process.returncode == 2
    assert "farm.toml:2: broker.idle" in json.loads(line)["message"]
