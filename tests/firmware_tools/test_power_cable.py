"""The power cable's firmware as it runs on its board: under MicroPython and under CPython, on a pty, with relays."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import pytest

from tests.firmware_tools.micropython import micropython
from virtual_lab.power_cable import SETTINGS, VirtualPowerCable

PATIENCE_S = 60.0
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session", params=["micropython", "cpython"])
def python(request):
    return micropython() if request.param == "micropython" else (sys.executable,)


class Host:
    """A terminal at the cable."""

    def __init__(self, cable):
        self.cable = cable
        self.fd = os.open(cable.device, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)

    async def write(self, data):
        view = memoryview(data)
        async with asyncio.timeout(PATIENCE_S):
            while view:
                try:
                    view = view[os.write(self.fd, view[:1024]) :]
                except BlockingIOError:
                    await asyncio.sleep(0.001)

    async def read_until(self, end):
        """All that came, up to `end`."""
        found = b""
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not found.endswith(end):
                    try:
                        found += os.read(self.fd, 4096)
                    except BlockingIOError:
                        await asyncio.sleep(0.002)
        except TimeoutError:
            raise AssertionError(f"{end!r} did not come: {found[-300:]!r}; {self.cable.log()[-20:]}") from None
        return found

    async def ask(self, request):
        """The answer to a request without its tag."""
        await self.write(b"@t " + request + b"\n")
        return (await self.read_until(b"\n")).removeprefix(b"@t ").removesuffix(b"\n").decode()


@pytest.fixture
async def plugged(python):
    """Makes cables with a host at each: `cable, host = await make()`."""
    made = []

    async def make(**changes):
        cable = VirtualPowerCable(python=python, **changes)
        await cable.__aenter__()
        host = Host(cable)
        made.append((cable, host))
        return cable, host

    yield make
    for cable, host in made:
        os.close(host.fd)
        await cable.__aexit__()


async def until(what, holds):
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not holds():  # noqa: ASYNC110  # another process does it
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(what) from None


def begun_before_set(cable):
    """Levels that output pins had from their first moment."""
    return {line.split()[1]: line.split()[3] for line in cable.log() if " out " in line and line.startswith("mode")}


async def test_both_protocols_on_one_tty(plugged):
    cable, host = await plugged()
    await host.write(b"?")
    assert await host.read_until(b"0") == b"0"
    await host.write(b"5?")
    assert await host.read_until(b"5") == b"5"
    assert cable.is_on(1)
    assert await host.ask(b"id") == (
        "ok model=boardhand-cable firmware=1.0.0 protocol=1 id=e66164084373532b outlets=4 read=sense meters=0"
    )
    assert await host.ask(b"set 2 on") == "ok"
    assert await host.ask(b"get") == "ok 1=on 2=on 3=off 4=off"
    assert (cable.edges(1), cable.edges(2)) == ([True], [True])
    assert await host.ask(b"led 4 fault") == "ok"
    await until("the fault's LED of three", lambda: "out 16 1" in cable.log())


async def test_what_is_read_back_is_the_relay(plugged):
    cable, host = await plugged()
    cable.stick(3, stuck=True)
    assert await host.ask(b"set 3 on") == "ok"
    assert await host.ask(b"get 3") == "ok 3=off"
    cable.stick(3, stuck=False)
    await cable.press(2, on=True)
    assert await host.ask(b"get 2") == "ok 2=on"


async def test_outlets_have_their_level_before_their_direction(plugged):
    cable, _ = await plugged()
    assert [begun_before_set(cable)[str(pin)] for pin in (2, 3, 4, 5)] == ["0", "1", "0", "0"]
    assert [cable.edges(outlet) for outlet in (1, 2, 3, 4)] == [[]] * 4, "nothing clicked"


async def test_the_watchdogs_reset_holds_every_outlet(plugged):
    cable, host = await plugged()
    for outlet in (1, 2):
        assert await host.ask(b"set %d on" % outlet) == "ok"
    await cable.hang()
    await host.write(b"@t set 3 on\n")  # into a firmware that stands still
    await cable.bite()
    assert await host.ask(b"get") == "ok 1=on 2=on 3=off 4=off"
    assert (await host.ask(b"health")).split()[2] == "cause=watchdog"
    assert [cable.edges(outlet) for outlet in (1, 2, 3, 4)] == [[True], [True], [], []], "nothing clicked"
    assert "watchdog 8000" in cable.log()


async def test_a_restart_by_request_holds_too_and_is_answered_first(plugged):
    cable, host = await plugged()
    assert await host.ask(b"set 1 on") == "ok"
    assert await host.ask(b"restart") == "ok"
    await until("it is up again", lambda: cable.log().count("fed") == 2)
    assert await host.ask(b"get 1") == "ok 1=on"
    assert cable.edges(1) == [True]


async def test_a_repl_is_left_at_the_tty_once_and_outlets_stay(plugged):
    cable, host = await plugged()
    assert await host.ask(b"set 1 on") == "ok"
    assert await host.ask(b"repl") == "ok"
    await until("restarted", lambda: cable.log().count("mode 2 out 1") == 1)
    assert cable.is_on(1)
    await until("ended", lambda: cable._process.returncode == 0)
    assert cable.log().count("watchdog 8000") == 1, "which could not be stopped again"
    await cable.power_up()
    assert (await host.ask(b"id")).startswith("ok model=boardhand-cable")


async def test_after_power_was_away(plugged):
    wishes = [{"at_power_on": wish} for wish in ("off", "on", "off", "off")]
    table = {"outlets": [old | wish for old, wish in zip(SETTINGS["outlets"], wishes, strict=True)]}
    cable, host = await plugged(settings=table)
    assert await host.ask(b"get") == "ok 1=off 2=on 3=off 4=off"
    assert await host.ask(b"set 1 on") == "ok"
    await cable.power_down()
    assert not cable.is_on(1)
    await cable.power_up()
    assert await host.ask(b"get") == "ok 1=off 2=on 3=off 4=off"
    assert (await host.ask(b"health")).split()[2] == "cause=power"


async def test_the_last_state_comes_from_flash(plugged):
    table = {"outlets": [{"pin": pin, "at_power_on": "last"} for pin in (2, 3)]}
    cable, host = await plugged(settings=table)
    state = cable.folder / "flash/power_cable.state"
    assert await host.ask(b"set 2 on") == "ok"
    assert not state.exists(), "a state of a moment is worth no write"
    await cable.power_down()
    state.write_text("2")
    await cable.power_up()
    assert await host.ask(b"get") == "ok 1=off 2=on"
    await cable.power_down()
    state.write_text("\x00garbage")
    await cable.power_up()
    assert await host.ask(b"get") == "ok 1=off 2=off"


async def test_flood_and_garbage_are_harmless(plugged):
    cable, host = await plugged()
    assert await host.ask(b"set 2 on") == "ok"
    flood = (bytes(range(256)) + b"@x \xff\n" + b"@" + b"y" * 500 + b"\n") * 40  # with 03, which is Ctrl-C
    began = time.monotonic()
    await host.write(flood)
    await host.write(b"\n@end get 2\n")  # and nobody has read the errors so far
    assert (await host.read_until(b"@end ok 2=on\n")).count(b"@- error line") >= 1
    assert cable.starts == 1
    assert cable.edges(2) == [True]
    assert "kbd_intr -1" in cable.log()
    health = dict(word.split("=") for word in (await host.ask(b"health")).split()[1:])
    assert int(health["noise"]) > 20_000
    assert int(health["up_s"]) <= time.monotonic() - began + 60


async def test_meters(plugged):
    table = {
        "i2c": {"id": 0, "sda": 20, "scl": 21},
        "outlets": [
            {"pin": 2, "meter": {"ina219": 64, "milliohm": 100}},
            {"pin": 3, "meter": {"ina219": 65}},
            {"pin": 4, "meter": {"adc": 26, "zero_mv": 1650, "mv_per_a": 185, "volts": 5}},
            {"pin": 5},
        ],
    }
    cable, host = await plugged(settings=table)
    # 50 mV through 100 milliohms, at 5.1 V; the second does not answer
    cable.world(i2c={"64": {"1": [0x13, 0x88], "2": [0x27, 0xD8]}}, adc={"26": 36411})
    assert await host.ask(b"watts") == "ok 1=2.550 2=- 3=4.959 4=-"
    assert (await host.ask(b"health")).endswith("meter_faults=1")
    assert (await host.ask(b"id")).endswith("meters=3")
    assert await host.ask(b"get 1") == "ok 1=off"


async def test_a_bus_on_pins_that_have_none_leaves_the_outlets_to_work(plugged):
    table = {"i2c": {"sda": 18, "scl": 19}, "outlets": [{"pin": 2, "meter": {"ina219": 64}}]}
    _, host = await plugged(settings=table)
    assert await host.ask(b"set 1 on") == "ok"
    assert await host.ask(b"watts") == "ok 1=-"
    assert (await host.ask(b"health")).endswith("meter_faults=1")


@pytest.mark.parametrize("content", ["{", '{"outlets": [{"pin": 99}]}', "[]"])
async def test_a_broken_file_touches_no_pin_and_is_said(plugged, content):
    cable, host = await plugged()
    await cable.power_down()
    (cable.folder / "flash/power_cable.json").write_text(content)
    (cable.folder / "log").write_text("")
    await cable.power_up()
    assert (await host.ask(b"set 1 on")).startswith("error settings ")
    assert not [line for line in cable.log() if line.startswith("mode")]


async def test_without_a_file_there_are_four_outlets(plugged):
    cable, host = await plugged(settings=None)
    assert await host.ask(b"set 4 on") == "ok"
    assert await host.ask(b"get") == "ok 1=off 2=off 3=off 4=on"
    assert cable.is_on(4)


async def test_a_defect_in_the_firmware_ends_in_a_restart_that_holds(plugged):
    cable, host = await plugged(settings={"outlets": [{"pin": 2, "meter": {"adc": 26, "mv_per_a": 185, "volts": 5}}]})
    assert await host.ask(b"set 1 on") == "ok"
    await host.write(b"@t watts\n")  # the world has no such pin: KeyError, which nobody expects
    await until("it is up again", lambda: cable.log().count("fed") == 2)
    assert cable.edges(1) == [True]


async def test_the_virtual_cable_as_a_program(tmp_path):
    link = tmp_path / "cable"
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "virtual_lab.power_cable", "--link", link, "--stop-at-eof", "--python", *micropython(),
        cwd=ROOT, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip

    async def told(order=None):
        if order is not None:
            program.stdin.write(json.dumps(order).encode() + b"\n")
        async with asyncio.timeout(PATIENCE_S):
            return json.loads(await program.stdout.readline())

    try:
        assert await told() == {"ready": True, "device": str(link)}
        assert (await told({"do": "press", "outlet": 3, "on": True}))["ok"]
        async with asyncio.timeout(PATIENCE_S):
            while not (await told({"do": "state"}))["on"][2]:  # noqa: ASYNC110  # another process moves it
                await asyncio.sleep(0.02)
        assert await told({"do": "vanish"}) | {"device": ""} == {
            "ok": True,
            "on": [False, False, True, False],
            "device": "",
        }
        assert not link.is_symlink()
        for wrong in ({"do": "dance"}, {}, [], {"do": "stick", "outlet": 9, "value": True}):
            assert not (await told(wrong))["ok"]
        assert (await told({"do": "return"}))["ok"]
        assert link.is_symlink()
    finally:
        program.stdin.close()
        async with asyncio.timeout(PATIENCE_S):
            assert await program.wait() == 0
