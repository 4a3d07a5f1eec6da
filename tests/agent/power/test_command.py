"""Outlets switched by programs."""

import asyncio
import os

import pytest

from agent.power.controller_queue import ControllerQueue
from agent.power.drivers.command import CommandDriver
from agent.power.errors import ConfigurationError, RefusedError, UnreachableError
from agent.power.kinds.command import CommandSettings
from wire.phases import Power


@pytest.fixture
async def connect():
    queues = []

    def make(**changes):
        base = {"driver": "command", "on": ["true"], "off": ["true"]}
        queue = ControllerQueue("plug", CommandDriver("plug", CommandSettings(**(base | changes))))
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        await queue.close()


async def test_programs_switch_and_say_the_state(connect, tmp_path):
    flag = f"{tmp_path}/{{outlet}}"
    queue = connect(
        on=["touch", flag], off=["rm", "-f", flag], state=["sh", "-c", 'test -e "$0" && echo ON || echo 0', flag]
    )
    assert await queue.get("3") is Power.OFF
    await queue.set("3", True)
    assert (tmp_path / "3").exists()
    assert await queue.get("3") is Power.ON
    assert await queue.get("4") is Power.OFF
    assert queue.driver.reads_back


async def test_an_outlet_is_one_argument_and_never_shell(connect, tmp_path):
    queue = connect(on=["touch", f"{tmp_path}/a{{outlet}}"])
    await queue.set("; rm -rf x $(id)", True)
    assert [path.name for path in tmp_path.iterdir()] == ["a; rm -rf x $(id)"]


async def test_an_exit_code_is_a_refusal_with_its_last_words(connect):
    with pytest.raises(RefusedError, match="exit code 3: relay is locked"):
        await connect(on=["sh", "-c", "echo first >&2; echo relay is locked >&2; exit 3"]).set("1", True)


async def test_without_a_state_program_power_is_unknown(connect):
    queue = connect()
    await queue.set("1", True)
    assert await queue.get("1") is Power.UNKNOWN
    assert not queue.driver.reads_back


async def test_a_program_that_is_not_there(connect):
    with pytest.raises(ConfigurationError, match="/nowhere/switch cannot be started"):
        await connect(on=["/nowhere/switch"]).set("1", True)


async def test_state_that_is_no_state(connect):
    with pytest.raises(ConfigurationError, match="printed 'perhaps'"):
        await connect(state=["echo", "perhaps"]).get("1")
    with pytest.raises(UnreachableError, match="exit code 1"):
        await connect(state=["false"]).get("1")


async def test_a_program_that_hangs_is_killed_with_its_children(connect, tmp_path, until):
    pids = tmp_path / "pids"
    queue = connect(on=["sh", "-c", f"sleep 300 & echo $! $$ > {pids}; wait"], timeout_s=2.5)
    with pytest.raises(UnreachableError, match=r"did not end within 2\.5 s and was killed"):
        await queue.set("1", True)
    for pid in pids.read_text().split():
        await until(lambda pid=pid: not _alive(int(pid)))


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - may vanish meanwhile, and that is an answer, too
        return stat.read().rpartition(")")[2].split()[0] != "Z"


async def test_a_cancelled_call_leaves_no_program_behind(tmp_path, until):
    pids = tmp_path / "pids"
    settings = CommandSettings(driver="command", on=["sh", "-c", f"echo $$ > {pids}; exec sleep 300"], off=["true"])
    task = asyncio.create_task(CommandDriver("plug", settings).set("1", True))
    await until(lambda: pids.exists() and pids.read_text().strip())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not _alive(int(pids.read_text()))


async def test_endless_output_does_not_fill_the_memory(connect):
    with pytest.raises(UnreachableError, match="was killed"):
        await connect(state=["yes"], timeout_s=0.3).get("1")


async def test_a_child_left_in_the_background_does_not_hold_the_call(connect, tmp_path):
    queue = connect(on=["sh", "-c", f"sleep 300 & echo $! > {tmp_path}/pid"])
    async with asyncio.timeout(60):
        await queue.set("1", True)
    os.kill(int((tmp_path / "pid").read_text()), 9)
