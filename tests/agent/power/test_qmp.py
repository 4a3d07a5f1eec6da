"""The QMP driver against a real QEMU with U-Boot."""

import asyncio
import json
from pathlib import Path

import pytest

from agent.power.controller_queue import ControllerQueue
from agent.power.drivers.qmp import QmpDriver
from agent.power.errors import ConfigurationError, UnreachableError
from agent.power.kinds.qmp import QmpSettings
from wire.phases import Power

U_BOOT = Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin")


@pytest.fixture
async def qemu(tmp_path, listening):
    """A machine that waits at reset; yields (QMP socket, function that reads its console up to a text)."""
    path = tmp_path / "qmp"
    process = await asyncio.create_subprocess_exec(
        "qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57", "-m", "128", "-S", "-no-shutdown", "-nographic",
        "-monitor", "none", "-net", "none", "-bios", str(U_BOOT), "-qmp", f"unix:{path},server=on,wait=off",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await listening(path)

        async def console(text):
            async with asyncio.timeout(60):
                await process.stdout.readuntil(text)

        yield path, console
    finally:
        process.kill()
        await process.wait()


@pytest.fixture
async def connect():
    queues = []

    def make(path, timeout_s=60.0):
        queue = ControllerQueue("vm", QmpDriver("vm", QmpSettings(driver="qmp", socket=path, timeout_s=timeout_s)))
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        await queue.close()


async def qmp(path, *commands):
    """Talk to QMP with nothing of ours."""
    reader, writer = await asyncio.open_unix_connection(path)
    await reader.readline()
    for command in ("qmp_capabilities", *commands):
        writer.write(json.dumps({"execute": command}).encode())
        while b'"return"' not in (line := await reader.readline()):
            assert b'"error"' not in line, line
    writer.close()
    await writer.wait_closed()
    return json.loads(line)["return"]


async def test_a_machine_is_switched_and_boots_afresh_each_time(connect, qemu):
    path, console = qemu
    queue = connect(path)
    assert await queue.get("1") is Power.OFF
    for _ in range(2):
        await queue.set("1", True)
        assert await queue.get("1") is Power.ON
        await console(b"U-Boot 20")
        await queue.set("1", True)
        assert await queue.get("1") is Power.ON
        await queue.set("1", False)
        assert await queue.get("1") is Power.OFF
        assert (await qmp(path, "query-status"))["running"] is False
        await queue.set("1", False)
        assert await queue.get("1") is Power.OFF


async def test_a_machine_that_shut_itself_down_is_off_and_comes_on_again(connect, qemu):
    path, console = qemu
    queue = connect(path)
    await queue.set("1", True)
    await console(b"U-Boot 20")
    # `quit` would end QEMU; -no-shutdown keeps it after the guest's own power-off, as PSCI SYSTEM_OFF asks for.
    await qmp(path, "stop")
    assert await queue.get("1") is Power.OFF
    await queue.set("1", True)
    assert await queue.get("1") is Power.ON
    await console(b"U-Boot 20")


async def test_a_second_client_that_stays_connected_is_named(connect, qemu):
    path, _ = qemu
    reader, writer = await asyncio.open_unix_connection(path)
    await reader.readline()
    with pytest.raises(UnreachableError, match="one client at a time"):
        await connect(path, timeout_s=0.3).get("1")
    writer.close()
    await writer.wait_closed()


async def test_no_machine(connect, tmp_path):
    with pytest.raises(UnreachableError, match="start the machine"):
        await connect(tmp_path / "nothing").get("1")
    with pytest.raises(ConfigurationError, match="write vm:1"):
        await connect(tmp_path / "nothing").get("2")


async def test_something_else_at_the_socket(connect, tmp_path):
    async def babble(_, writer):
        writer.write(b'{"hello": 1}\n')
        await writer.drain()
        writer.close()

    async with await asyncio.start_unix_server(babble, tmp_path / "socket"):
        with pytest.raises(UnreachableError, match="something else than QMP"):
            await connect(tmp_path / "socket").get("1")
