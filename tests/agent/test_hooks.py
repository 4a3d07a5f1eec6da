"""Hooks of the admin's: real programs, run by themselves and by a whole agent."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.hook_settings import HookPoint, HookTable
from agent.hooks import OUTPUT_BYTES, HookDesk, HookRun, run_hook
from agent.outbox import NewEvent
from agent.settings import load
from agent.unit import Effects
from daemon.settings_file import SettingsError
from tests.agent.bench import Bench, result_of
from wire.phases import EventType


def script(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def hook(folder: Path, text: str, *, at: HookPoint = HookPoint.BEFORE_POWER_ON, **more) -> HookTable:
    return HookTable(at=at, run=[script(folder, f"hook-{time.monotonic_ns()}", text)], **more)


async def test_it_reads_what_happens_and_its_words_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("BOARDHAND_MQTT__PASSWORD", "secret")
    result = await run_hook(hook(tmp_path, f'cat > {tmp_path}/said; env; echo "to the shelf" >&2'), {"board": "pi"})
    assert (result.exit_code, result.fault, result.objection) == (0, None, None)
    assert json.loads((tmp_path / "said").read_text()) == {"board": "pi"}
    assert result.output.endswith("to the shelf\n")
    assert "secret" not in result.output
    assert "PATH=" in result.output


async def test_no_is_told_with_its_last_words(tmp_path):
    result = await run_hook(hook(tmp_path, "echo checking; echo the fan is off; exit 3"), {})
    assert result.exit_code == 3
    assert result.objection.endswith("(before-power-on) says no: the fan is off")


async def test_one_that_does_not_end_is_killed_with_its_children(tmp_path):
    text = f"sleep 300 & echo $! > {tmp_path}/child; echo waiting; sleep 300"
    began = time.monotonic()
    result = await run_hook(hook(tmp_path, text, timeout_s=2.5), {})
    assert time.monotonic() - began < 60
    assert result.exit_code != 0
    assert result.fault == "it did not end within 2.5 s and was killed"
    assert result.output == "waiting\n"
    child = int((tmp_path / "child").read_text())
    deadline = time.monotonic() + 60
    while Path(f"/proc/{child}").exists() and "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < deadline, "its child lives"


async def test_one_that_leaves_a_child_with_its_pipe_holds_nobody_up(tmp_path):
    began = time.monotonic()
    result = await run_hook(hook(tmp_path, f"sleep 60 & echo $! > {tmp_path}/child; echo done"), {})
    os.kill(int((tmp_path / "child").read_text()), 9)
    assert (result.exit_code, result.output) == (0, "done\n")
    assert time.monotonic() - began < 50


async def test_a_flood_of_words_is_bounded(tmp_path):
    result = await run_hook(hook(tmp_path, "head -c 20000000 /dev/zero; printf 'the end'"), {})
    assert result.exit_code == 0
    assert len(result.output) == OUTPUT_BYTES
    assert result.output.endswith("\N{REPLACEMENT CHARACTER}the end")


async def test_one_that_reads_nothing_is_no_fault(tmp_path):
    result = await run_hook(hook(tmp_path, "exit 0"), {"much": "x" * 1_000_000})
    assert (result.exit_code, result.fault) == (0, None)


async def test_one_that_is_gone_says_no(tmp_path):
    table = hook(tmp_path, "exit 0")
    Path(table.run[0]).unlink()
    result = await run_hook(table, {})
    assert result.objection.endswith("says no: it cannot be started: No such file or directory")


async def test_only_its_boards_and_nothing_after_a_no(tmp_path):
    ran: list[tuple[str, HookRun]] = []
    hooks = [
        hook(tmp_path, "exit 0", boards=["bone"]),
        hook(tmp_path, "echo no; exit 1", boards=["pi"]),
        hook(tmp_path, "exit 0"),
        hook(tmp_path, "exit 1", at=HookPoint.AFTER_POWER_OFF),
    ]
    desk = HookDesk(hooks, "lab", lambda board, result: ran.append((board, result)))
    assert desk.points == [HookPoint.AFTER_POWER_OFF, HookPoint.BEFORE_POWER_ON]
    assert (await desk.run(HookPoint.BEFORE_POWER_ON, "pi", {})).endswith("says no: no")
    assert [(board, result.hook) for board, result in ran] == [("pi", hooks[1])]
    ran.clear()
    assert await desk.run(HookPoint.BEFORE_POWER_ON, "bone", {}) is None
    assert [result.hook for _, result in ran] == [hooks[0], hooks[2]]
    assert desk.due(Effects(new_boot=["bone"])) == [], "it was off when we first looked"
    off = NewEvent("bone", EventType.POWER, {"power": "off", "was": "on"})
    (due,) = desk.due(Effects(new_boot=["bone"], events=[off]))
    ran.clear()
    await desk.run_due(due)
    assert [(board, result.exit_code) for board, result in ran] == [("bone", 1)], "what is over cannot be vetoed"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ('at = "before-lunch"\nrun = ["/bin/true"]', "before-power-on"),
        ('at = "after-job"\nrun = ["true"]', "write the whole path"),
        ('at = "after-job"\nrun = ["/etc/passwd"]', "is no program"),
        ('at = "after-job"\nrun = ["/bin/true"]\nboards = ["nemo"]', "there is no board 'nemo'"),
    ],
)
def test_a_wrong_table_is_told(tmp_path, table, words):
    path = tmp_path / "agent.toml"
    path.write_text(f'[agent]\nname = "lab"\nstate_dir = "{tmp_path}"\n[[hooks]]\n{table}\n')
    with pytest.raises(SettingsError, match=words):
        load(path)


def test_a_whole_agent_asks_before_power_and_tells_the_timeline(tmp_path, mqtt):
    bench = Bench(tmp_path, mqtt)
    gate = tmp_path / "open"
    program = script(tmp_path, "gate.sh", f'echo "gate: $(cat)"; test -e {gate} || {{ echo shut; exit 1; }}')
    tables = "".join(
        f'[[hooks]]\nat = "{at}"\nrun = ["{program}"]\n' for at in ("before-power-on", "after-power-off", "before-job")
    )
    bench.settings.write_text(bench.settings.read_text() + tables)
    try:
        heard = bench.ready()
        bench.publish("boardhand/board/pi/power/set", '{"power":"on","id":"shut"}')
        event, result = heard.wait_all(
            lambda m: m["topic"] == "boardhand/event/pi" and m["payload"]["type"] == "hook", result_of("pi", "shut")
        )
        refusal = result["payload"]
        assert (refusal["ok"], refusal["power"], refusal["error"]["kind"]) == (False, "off", "refused")
        assert refusal["error"]["message"].endswith("(before-power-on) says no: shut")
        details = event["payload"]["details"]
        assert (details["at"], details["exit_code"]) == ("before-power-on", 1)
        assert '"board": "pi"' in details["output"]
        assert not (bench.outlets / "log").exists(), "nothing was switched"
        gate.touch()
        bench.publish("boardhand/board/pi/power/set", '{"power":"on","id":"open"}')
        assert heard.wait(result_of("pi", "open"))["payload"]["ok"]
        bench.publish("boardhand/board/pi/power/set", '{"power":"off","id":"off"}')
        heard.wait(lambda m: m["topic"] == "boardhand/event/pi" and "after-power-off" in str(m["payload"]["details"]))
        gate.unlink()
        expires = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
        bench.publish("boardhand/board/pi/lease", json.dumps({"holder": "job-3", "token": 9, "expires": expires}), "-r")
        for token, kind in ((8, "not-allowed"), (9, "refused")):
            data = {"board": "pi", "job": "job-3", "token": token}
            bench.publish("boardhand/agent/lab/request/prepare", json.dumps({"transaction": f"t{token}", "data": data}))
            answer = heard.wait(lambda m: m["topic"] == "boardhand/agent/lab/response/prepare")["payload"]
            assert (answer["ok"], answer["error"]["kind"]) == (False, kind)
        info = bench.listen("boardhand/agent/lab/info").wait(lambda _m: True)["payload"]
        assert info["hooks"] == ["after-power-off", "before-job", "before-power-on"]
    finally:
        bench.close()
