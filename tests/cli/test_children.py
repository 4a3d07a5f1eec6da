"""Real child processes under the supervisor: stubborn ones, ones with children of their own, ones that cannot start."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from cli.children import TETHER, Children, Program
from cli.supervisor import ChildRule, State
from tests.cli.farm_double import DEADLINE_S, wait_for

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(child.pid, flush=True)
time.sleep(600)
"""


def program(
    tmp_path: Path, code: str, on_line: Callable[[bytes], None] | None = None, deadline_s: float = 60
) -> Program:
    rule = ChildRule("child", stage=0, stop_deadline_s=deadline_s)
    return Program(rule, [sys.executable, "-c", code], tmp_path / "child.log", os.environ, on_line)


async def eventually(what: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not what():  # noqa: ASYNC110 -- what is waited for happens in other processes
            await asyncio.sleep(0.02)


async def with_children(story: Callable[[Children, list[str]], Awaitable[None]]) -> list[str]:
    said: list[str] = []
    children = Children(said.append)
    runner = asyncio.create_task(children.run())
    try:
        await story(children, said)
    finally:
        await children.stop()
        async with asyncio.timeout(DEADLINE_S):
            await runner
    assert children.pids() == {}
    return said


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_a_stubborn_child_is_killed_with_its_own_children(tmp_path: Path) -> None:
    lines: list[bytes] = []

    async def story(children: Children, said: list[str]) -> None:
        children.add(program(tmp_path, STUBBORN, lines.append, deadline_s=0.3))
        await eventually(lambda: lines)

    said = await with_children(story)
    assert said == ["child did not stop in time: killed"]
    await eventually(lambda: gone(int(lines[0])))


async def test_lines_arrive_and_an_endless_one_does_not_stop_the_reader(tmp_path: Path) -> None:
    lines: list[bytes] = []

    async def story(children: Children, said: list[str]) -> None:
        code = "for text in ('one', 'x' * 300_000, 'two'): print(text, flush=True)\nimport time; time.sleep(600)"
        children.add(program(tmp_path, code, lines.append))
        await eventually(lambda: b"two" in lines)

    assert await with_children(story) == []
    assert lines[0] == b"one"


async def test_a_child_that_ends_is_started_again_and_said(tmp_path: Path) -> None:
    log = tmp_path / "child.log"

    async def story(children: Children, said: list[str]) -> None:
        children.add(program(tmp_path, "import sys; print('life', file=sys.stderr); sys.exit(3)"))
        await eventually(lambda: log.exists() and log.read_text().count("life") >= 2)

    said = await with_children(story)
    assert said[0] == f"child ended by itself (exit code 3); starting it again; see {log}"


async def test_bad_settings_give_up_at_once(tmp_path: Path) -> None:
    async def story(children: Children, said: list[str]) -> None:
        children.add(program(tmp_path, "import sys; sys.exit(2)"))
        async with asyncio.timeout(DEADLINE_S):
            assert await asyncio.shield(children.gave_up) == "child"
        assert children.state("child") is State.ENDED

    assert len(await with_children(story)) == 1


def test_tether_follows_its_parent_and_refuses_a_wrong_one() -> None:
    wrong = subprocess.run(
        [sys.executable, str(TETHER), "1", "echo", "hi"], capture_output=True, check=False, timeout=60
    )
    assert (wrong.returncode, wrong.stdout) == (129, b"")
    missing = subprocess.run(
        [sys.executable, str(TETHER), str(os.getpid()), "/nonexistent/program"],
        capture_output=True,
        check=False,
        timeout=20,
    )
    assert missing.returncode == 127
    assert b"cannot be run" in missing.stderr
    code = (
        f"import os, subprocess, sys, time; command = [sys.executable, {str(TETHER)!r}, str(os.getpid()), "
        "sys.executable, '-c', 'import time; print(1, flush=True); time.sleep(600)']; "
        "child = subprocess.Popen(command); print(child.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    lines = {parent.stdout.readline().strip(), parent.stdout.readline().strip()}
    pid = int(next(line for line in lines if line != "1"))
    assert not gone(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait(DEADLINE_S)
    parent.stdout.close()
    wait_for(lambda: gone(pid), "the tethered child follows its parent")
