"""The virtual PDU as a program. tests/agent/power/test_snmp.py compares what it answers with net-snmp."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from virtual_lab.snmp_pdu import PduSettings, VirtualPdu, command_hook
from virtual_lab.snmp_pdu_tables import PduTables, RefusedSetError

REPOSITORY = Path(__file__).parents[2]
U_BOOT = "/usr/lib/u-boot/qemu_arm64/u-boot.bin"
CONTROL = ".1.3.6.1.4.1.318.1.1.26.9.2.4.1.5"


async def until(condition, timeout_s=60.0):
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is in another process, or a timer
            await asyncio.sleep(0.01)


async def run(*arguments):
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


@pytest.fixture
async def start():
    running = []

    async def begin(*arguments):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "virtual_lab.snmp_pdu", *arguments,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY,
        )  # fmt: skip
        running.append(process)
        async with asyncio.timeout(60):
            ready = json.loads(await process.stdout.readline())
        assert ready["ready"] is True

        async def say(**request):
            process.stdin.write(json.dumps(request).encode() + b"\n")
            async with asyncio.timeout(60):
                return json.loads(await process.stdout.readline())

        return process, ready["port"], say

    yield begin
    for process in running:
        if process.returncode is None:
            process.kill()
        await process.wait()


def target(port):
    return f"127.0.0.1:{port}"


async def test_it_says_its_port_answers_and_stops_cleanly(start, tmp_path):
    (tmp_path / "community").write_text("s3cret\n")
    process, port, say = await start("--community-file", str(tmp_path / "community"), "--lie", "2", "--refuse", "3")
    for outlet, expected in ((1, 0), (2, 0), (3, 2)):
        code, said = await run(
            "snmpset", "-v2c", "-c", "s3cret", "-t", "2", target(port), f"{CONTROL}.{outlet}", "i", "1"
        )
        assert code == expected, said
    assert (await say(do="state"))["on"] | {} == {"1": True} | dict.fromkeys("2345678", False)
    assert "s3cret" not in (Path(f"/proc/{process.pid}/cmdline").read_text())
    process.terminate()
    async with asyncio.timeout(60):
        assert await process.wait() == 0


async def test_deafness_lies_and_a_hand_at_the_button_are_set_at_run_time(start):
    _, port, say = await start()
    assert (await say(do="press", outlet="4", on=True))["on"]["4"] is True
    assert (await say(do="lie", outlets=["1"]))["ok"]
    code, _ = await run("snmpset", "-v2c", "-c", "private", "-t", "2", target(port), f"{CONTROL}.1", "i", "1")
    assert code == 0
    assert (await say(do="state"))["on"]["1"] is False
    assert (await say(do="deaf", value=True))["deaf"] is True
    code, said = await run("snmpget", "-v2c", "-c", "public", "-t", "0.3", "-r", "0", target(port), f"{CONTROL}.1")
    assert code != 0
    assert "Timeout" in said
    await say(do="deaf", value=False)
    code, _ = await run("snmpget", "-v2c", "-c", "public", "-t", "2", target(port), f"{CONTROL}.1")
    assert code == 0


async def test_bad_control_lines_are_answered(start):
    process, _, say = await start("--stop-at-eof")
    for request in ({}, {"do": "dance"}, {"do": "lie", "outlets": ["99"]}, {"do": "press", "outlet": "x", "on": 1}):
        answer = await say(**request)
        assert answer["ok"] is False
        assert answer["error"]
    process.stdin.close()
    async with asyncio.timeout(60):
        assert await process.wait() == 0


async def test_an_outlet_drives_a_qemu_machine(start, tmp_path):
    path = tmp_path / "qmp"
    machine = await asyncio.create_subprocess_exec(
        "qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a57", "-m", "128", "-S", "-no-shutdown", "-nographic",
        "-monitor", "none", "-net", "none", "-bios", U_BOOT, "-qmp", f"unix:{path},server=on,wait=off",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
    )  # fmt: skip
    try:
        await until(path.exists)
        async with asyncio.timeout(60):
            _, port, _ = await start("--qmp", f"1={path}")
            for _ in range(2):
                for value in ("2", "1"):
                    code, said = await run(
                        "snmpset", "-v2c", "-c", "private", "-t", "2", target(port), f"{CONTROL}.1", "i", value
                    )
                    assert code == 0, said
                await machine.stdout.readuntil(b"U-Boot 20")
    finally:
        machine.kill()
        await machine.wait()


async def test_the_state_follows_after_the_delay_and_a_newer_command_wins():
    async with VirtualPdu(PduSettings(delay_s=0.05)) as pdu:
        pdu.command("1", True)
        assert (pdu.on["1"], pdu.is_pending("1")) == (False, True)
        pdu.command("1", False)
        pdu.command("2", True)
        await until(lambda: not (pdu.is_pending("1") or pdu.is_pending("2")))
        assert pdu.edges == [("2", True)]


async def test_a_hook_is_called_for_real_changes_only(tmp_path):
    flag = tmp_path / "flag"
    hook = command_hook({"1": (["touch", str(flag)], ["rm", str(flag)])})
    async with VirtualPdu(PduSettings(lying=frozenset({"1"})), hook=hook) as pdu:
        pdu.command("1", True)
        pdu.lying.clear()
        assert not flag.exists()
        pdu.command("1", True)
        await until(flag.exists)


async def test_tables_are_sorted_and_next_walks_them_all():
    pdu = VirtualPdu()
    tables = PduTables(pdu, ("apc-rpdu2", "apc-rpdu", "apc-spdu"))
    oid, seen = (1,), []
    while (following := tables.next(oid)) is not None:
        oid, value = following
        assert tables.get(oid) == value
        seen.append(oid)
    assert seen == sorted(set(seen))
    assert tables.get((1, 3, 6)) is None


@pytest.mark.parametrize(
    ("tail", "value", "status"),
    [
        ((26, 9, 2, 4, 1, 5, 1), 9, "wrongValue"),
        ((26, 9, 2, 4, 1, 5, 1), b"on", "wrongType"),
        ((26, 9, 2, 3, 1, 5, 1), 1, "notWritable"),
        ((26, 9, 2, 4, 1, 5, 99), 1, "noCreation"),
    ],
)
def test_sets_that_cannot_be_are_refused(tail, value, status):
    tables = PduTables(VirtualPdu(), ("apc-rpdu2",))
    with pytest.raises(RefusedSetError, match=status):
        tables.set((1, 3, 6, 1, 4, 1, 318, 1, 1, *tail), value)
