"""Every fault of a virtual PDU, seen on the wire by net-snmp, set from Python and by control lines."""

import asyncio
import json
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from virtual_lab.snmp_pdu import DeviceReboot, PduSettings, VirtualPdu
from virtual_lab.snmp_pdu_engine import V3User

REPOSITORY = Path(__file__).parents[2]
CONTROL, STATE = ".1.3.6.1.4.1.1718.4.1.8.5.1.2.1.1", ".1.3.6.1.4.1.1718.4.1.8.3.1.1.1.1"  # sentry4
ON, OFF = "1", "2"
USER = V3User("simu", "sha", "authpass123", "aes", "privpass123")
V3 = ("-v3", "-l", "authPriv", "-u", "simu", "-a", "SHA", "-A", "authpass123", "-x", "AES", "-X", "privpass123")
V2C = ("-v2c", "-c", "private")


async def tool(program, port, *words, credentials=V2C, timeout_s=0.3, retries=0):
    """Run a tool of net-snmp; returns (exit code, what it said)."""
    process = await asyncio.create_subprocess_exec(
        program, *credentials, "-t", str(timeout_s), "-r", str(retries), "-On", f"127.0.0.1:{port}", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def read(pdu, outlet, **how):
    """The state that snmpget sees."""
    code, said = await tool("snmpget", pdu.port, f"{STATE}.{outlet}", **({"timeout_s": 20} | how))
    assert code == 0, said
    return said.split(": ")[1].strip()


async def switch(pdu, outlet, value, **how):
    return await tool("snmpset", pdu.port, f"{CONTROL}.{outlet}", "i", value, **how)


@pytest.fixture(params=["pysnmp", "light"])
async def pdu(request):
    settings = PduSettings(model="sentry4", users=(USER,), light=request.param == "light")
    async with VirtualPdu(settings) as device:
        yield device


async def test_answers_come_late_and_what_was_asked_is_done_at_once(pdu):
    pdu.late_s = 0.4
    code, said = await switch(pdu, 1, ON, timeout_s=0.2)
    assert code != 0
    assert "Timeout" in said
    assert pdu.on["1"]
    begun = time.monotonic()
    assert await read(pdu, 1) == "1"
    assert time.monotonic() - begun >= 0.4


async def test_every_third_packet_is_dropped(pdu):
    pdu.drop_every = 3
    for number in range(1, 6):
        is_dropped = number == 3
        code, _ = await tool("snmpget", pdu.port, f"{STATE}.1", timeout_s=0.2 if is_dropped else 20)
        assert (code != 0) is is_dropped
    assert (await switch(pdu, 2, ON, timeout_s=3, retries=1))[0] == 0
    assert pdu.requests == 7
    assert pdu.sets == [("2", 1)]


async def test_an_answer_is_lost_after_the_outlet_has_switched(pdu):
    pdu.drop_answer_every = 1
    code, said = await switch(pdu, 3, ON)
    assert code != 0
    assert "Timeout" in said
    assert pdu.edges == [("3", True)]


async def test_answers_are_for_the_next_index(pdu):
    pdu.press("2", True)
    pdu.wrong_index = True
    _, said = await tool("snmpget", pdu.port, f"{STATE}.1", timeout_s=20)
    assert said.strip() == f"{STATE}.2 = INTEGER: 1"
    _, said = await switch(pdu, 1, ON, timeout_s=20)
    assert said.strip() == f"{CONTROL}.2 = INTEGER: 1"
    assert pdu.on["1"]


async def test_an_outlet_is_missing(pdu):
    pdu.missing = {"2"}
    for version, expected in (("-v2c", "No Such Instance"), ("-v1", "noSuchName")):
        _, said = await tool("snmpget", pdu.port, f"{STATE}.2", credentials=(version, "-c", "public"), timeout_s=20)
        assert expected in said
    code, said = await switch(pdu, 2, ON, timeout_s=20)
    assert code != 0
    assert "noCreation" in said
    _, said = await tool("snmpbulkwalk", pdu.port, STATE, timeout_s=20)
    assert re.findall(rf"{STATE}\.(\d+) = ", said) == list("1345678")


async def test_types_are_wrong(pdu):
    pdu.wrong_type = True
    _, said = await tool("snmpget", pdu.port, f"{STATE}.1", ".1.3.6.1.2.1.1.1.0", timeout_s=20)
    assert f'{STATE}.1 = STRING: "2"' in said
    assert ".1.3.6.1.2.1.1.1.0 = STRING:" in said


async def test_outlets_that_lie_and_refuse(pdu):
    pdu.lying, pdu.refusing = {"1"}, {"2"}
    assert (await switch(pdu, 1, ON, timeout_s=20))[0] == 0
    code, said = await switch(pdu, 2, ON, timeout_s=20)
    assert code != 0
    assert "genError" in said
    assert await read(pdu, 1) == await read(pdu, 2) == "2"
    assert pdu.edges == []


async def test_a_hand_at_the_button_wins_over_what_was_told(pdu):
    assert (await switch(pdu, 1, ON, timeout_s=20))[0] == 0
    pdu.press("1", False)
    assert await read(pdu, 1) == "2"


async def test_a_community_that_may_only_read(pdu):
    code, said = await switch(pdu, 1, ON, credentials=("-v2c", "-c", "public"), timeout_s=20)
    assert code != 0
    assert "noAccess" in said
    code, said = await switch(pdu, 1, ON, credentials=("-v2c", "-c", "guess"))
    assert code != 0
    assert "Timeout" in said
    assert pdu.edges == []


async def test_a_new_engine_id_on_the_same_port(pdu):
    assert await read(pdu, 1, credentials=V3) == "2"
    pdu.restart(engine_id="8000013e05736f6d656f6e65")
    old = ("-e", "0x8000013e0562682d706475")
    code, said = await tool("snmpget", pdu.port, f"{STATE}.1", credentials=(*V3, *old), timeout_s=0.5)
    assert code != 0, said
    assert await read(pdu, 1, credentials=V3) == "2"
    assert await read(pdu, 1) == "2"
    assert pdu.boots == 2


@pytest.mark.parametrize(
    ("fault", "answered", "during", "after"),
    [
        (DeviceReboot(silent_s=60), True, True, "1"),
        (DeviceReboot(silent_s=60, answered=False), False, True, "1"),
        (DeviceReboot(silent_s=60, answered=False, carried_out=False), False, False, "2"),
        (DeviceReboot(silent_s=60, carried_out=False, outlets="on"), True, False, "1"),
        (DeviceReboot(silent_s=60, outlets="off"), True, True, "2"),
    ],
)
async def test_the_device_reboots_in_the_middle_of_a_set(pdu, fault, answered, during, after):
    assert await read(pdu, 1, credentials=V3) == "2"
    pdu.reboot_on_set = fault
    code, _ = await switch(pdu, 1, ON, timeout_s=20 if answered else 0.2)
    assert (code == 0) is answered
    assert pdu.on["1"] is during
    code, said = await tool("snmpget", pdu.port, f"{STATE}.1", timeout_s=0.05)
    assert code != 0
    assert "Timeout" in said
    pdu.reboot_device(replace(fault, silent_s=0))
    async with asyncio.timeout(60):
        while pdu.silent_in:  # noqa: ASYNC110 - a timer in the device
            await asyncio.sleep(0.01)
    assert await read(pdu, 1) == await read(pdu, 1, credentials=V3) == after
    assert pdu.boots == 2
    assert (await switch(pdu, 1, OFF, timeout_s=20))[0] == 0
    assert pdu.boots == 2


async def test_the_boots_of_the_engine_count_up(pdu):
    seen = []
    for _ in range(2):
        _, said = await tool("snmpget", pdu.port, "-Dlcd_set_enginetime", f"{STATE}.1", credentials=V3, timeout_s=20)
        ours = said.split("80 00 01 3E 05 62 68 2D 70 64 75")[1:]
        seen.append(max(int(re.match(r" : boots=(\d+)", text)[1]) for text in ours))
        pdu.restart()
    assert seen[1] > seen[0]


def test_a_reboot_to_no_known_state_is_refused():
    with pytest.raises(ValueError, match="last, on or off"):
        DeviceReboot(outlets="dim")


async def test_all_faults_by_control_lines():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "virtual_lab.snmp_pdu", "--model", "sentry4", "--count", "2", "--light",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY,
    )  # fmt: skip

    async def say(**request):
        process.stdin.write(json.dumps(request).encode() + b"\n")
        async with asyncio.timeout(60):
            return json.loads(await process.stdout.readline())

    try:
        async with asyncio.timeout(60):
            ready = json.loads(await process.stdout.readline())
        port, second = ready["ports"]
        assert ready["port"] == port
        for request in (
            {"do": "late", "value": 0.01}, {"do": "drop_every", "value": 5}, {"do": "drop_answer_every", "value": 7},
            {"do": "wrong_index", "value": True}, {"do": "wrong_type", "value": True},
            {"do": "missing", "outlets": [2]}, {"do": "idle", "outlets": [1]},
        ):  # fmt: skip
            assert (await say(**request))["ok"], request
        _, said = await tool("snmpget", port, f"{STATE}.1", timeout_s=20)
        assert said.strip() == f'{STATE}.3 = STRING: "2"'
        _, said = await tool("snmpget", second, f"{STATE}.1", timeout_s=20)
        assert said.strip() == f"{STATE}.1 = INTEGER: 2"
        assert (await say(do="reboot_on_set", silent_s=30, outlets="on", pdu=1))["ok"]
        assert (await tool("snmpset", second, f"{CONTROL}.1", "i", ON, timeout_s=20))[0] == 0
        assert (await tool("snmpget", second, f"{STATE}.1", timeout_s=0.1))[0] != 0
        assert (await say(do="reboot", silent_s=0.01, outlets="off", pdu=1))["ok"]
        _, said = await tool("snmpget", second, f"{STATE}.1", timeout_s=0.5, retries=40)
        assert said.strip() == f"{STATE}.1 = INTEGER: 2"
        assert (await say(do="restart", pdu=1))["boots"] == 3
        for request in ({"pdu": 9, "do": "state"}, {"do": "reboot", "outlets": "dim"}, {"do": "reboot", "x": 1}):
            assert not (await say(**request))["ok"]
    finally:
        process.kill()
        await process.wait()
