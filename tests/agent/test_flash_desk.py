"""Modes and flashes of an agent's boards: what is stored, what is told, and that every way ends in a known mode."""

import asyncio
import hashlib
import os
import sqlite3
import sys

import pytest

from agent.flash_desk import FlashDesk
from agent.flash_images import allowed
from agent.flash_record import Record, parse
from agent.flash_settings import ActuatorTable, FlashesTable, FlashTable
from agent.memory import MIGRATIONS, Memory
from agent.mode_desk import ModeCalls, ModeDesk
from agent.requests import RequestError
from daemon.store import Store
from firmware_tools.flash.errors import ModeError
from wire.phases import ErrorKind

PATIENCE_S = 30.0
TOOL = """
import os, sys, time
image, chip = open(sys.argv[1], "rb").read(), sys.argv[2]
with open(chip, "wb") as out:
    for part in range(0, 101, 25):
        out.write(image[len(image) * part // 100 : len(image) * (part + 25) // 100])
        out.flush()
        print(f"{part}%", flush=True)
        if part == 50 and os.path.exists(chip + ".hang"):
            time.sleep(300)
        if part == 50 and os.path.exists(chip + ".break"):
            sys.exit("the device went away")
"""
STEPS = {
    "normal": ["strap off", "power cycle"],
    "flash": ["power off", "strap on", "power on"],
    "safe": ["power off", "strap off"],
}


class Hands:
    def __init__(self):
        self.states = {"power": "on", "strap": "off"}
        self.log = []
        self.broken = set()

    async def switch(self, actuator, state):
        await asyncio.sleep(0)
        self.log.append(f"{actuator} {state}")
        if f"{actuator} {state}" in self.broken:
            raise ModeError(f"{actuator}: does not answer")
        self.states[actuator] = "on" if state == "cycle" else state

    async def look(self, actuator):
        return self.states[actuator]


class Board:
    """A board's tables."""

    never_off = False

    def __init__(self, folder, **more):
        tool = folder / "tool.py"
        tool.write_text(TOOL)
        command = [sys.executable, "-S", "-E", str(tool), "{image}", str(folder / "chip")]
        flash = {"tool": "own", "command": command, "mode": "flash", "safe_mode": "safe", **more}
        self.actuators = {"strap": ActuatorTable(outlet="relays:1", settle_s=0)}
        self.modes = STEPS
        self.flash = {"system": FlashTable.model_validate(flash)}


class Bench:
    """Both desks over a real store; the hardware is a table of states."""

    def __init__(self, folder, store, **more):
        self.folder, self.store = folder, store
        self.more = more
        self.hands = Hands()
        self.alert = None
        self.maintenance = False
        self.person = False
        self.ready = True
        self.reboots = 0
        self.told = []
        self.halfway, self.booting = asyncio.Event(), asyncio.Event()
        self.images = folder / "images"
        self.images.mkdir(exist_ok=True)

    async def start(self):
        calls = ModeCalls(
            hands=lambda _board: self.hands,
            maintain=self.maintain,
            alert=self.set_alert,
            ready=lambda _board: self.ready,
            boot=lambda _board: self.boot,
            compatible=lambda _board: frozenset({"fsl,imx8mm-evk"}),
        )
        self.boards = {"imx": Board(self.folder, **self.more)}
        self.modes = ModeDesk(self.boards, calls)
        settings = FlashesTable(folders=[self.images])
        self.flashes = FlashDesk(self.boards, settings, self.folder, self.modes, lambda _board: 0.6)
        return await self.flashes.start(Memory(self.store))

    @property
    def boot(self):
        """Which boot has registered: another after each time that the power was cut, and where the tool did it."""
        cuts = sum(words in {"power off", "power cycle"} for words in self.hands.log)
        return f"boot-{cuts + self.reboots}" if self.ready else None

    def maintain(self, _board, on):
        if self.person or self.maintenance == on:
            return False
        self.maintenance = on
        return True

    def set_alert(self, _board, alert):
        self.alert = None if alert is None else alert.what

    def progress(self, stage, percent=None, message=""):
        self.told.append((stage, percent, message))
        if (stage, percent) == ("write", 50.0):
            self.halfway.set()
        if stage == "boot":
            self.booting.set()

    def image(self, name="good.img", size=100_000):
        path = self.images / name
        path.write_bytes(os.urandom(size))
        return path

    def chip(self):
        return (self.folder / "chip").read_bytes()

    def mark(self, what):
        (self.folder / f"chip.{what}").touch()

    def heal(self):
        for mark in self.folder.glob("chip.*"):
            mark.unlink()

    async def flash(self, **data):
        return await self.flashes.flash("imx", data, self.progress)

    async def mode(self, mode):
        return await self.modes.mode("imx", {"mode": mode}, self.progress)

    async def begun(self):
        """A flash under way that will not end by itself, halfway."""
        self.mark("hang")
        running = asyncio.create_task(self.flash(image=str(self.image())))
        async with asyncio.timeout(PATIENCE_S):
            await self.halfway.wait()
        return running

    @property
    def record(self):
        return self.modes.records.of("imx")


@pytest.fixture
async def store(tmp_path):
    store = await Store.open(tmp_path / "agent.db", MIGRATIONS)
    yield store
    await store.close()


@pytest.fixture
async def bench(tmp_path, store):
    bench = Bench(tmp_path, store)
    assert await bench.start() == []
    yield bench
    await bench.flashes.stop()


async def test_a_flash_ends_in_normal_with_the_image_in_the_chip(bench):
    path = bench.image()
    answer = await bench.flash(image=str(path))
    assert bench.chip() == path.read_bytes()
    assert (answer["mode"], answer["tool"], answer["method"]) == ("normal", "own", "system")
    assert answer["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert bench.hands.log == ["power off", "strap on", "power on", "strap off", "power cycle"]
    assert (bench.maintenance, bench.alert, bench.record) == (False, None, Record(mode="normal"))
    assert list(dict.fromkeys(stage for stage, *_ in bench.told)) == ["check", "mode", "write"]
    assert ("write", 75.0, "") in bench.told


async def test_a_relative_name_is_looked_for_in_the_folders_and_nothing_else_is_reached(bench, tmp_path):
    path = bench.image("b.img")
    assert (await bench.flash(image="b.img", check_only=True))["checked"] is True
    assert bench.hands.log == []
    (bench.images / "link.img").symlink_to("/etc/passwd")
    for image, kind in (
        ("../agent.db", ErrorKind.NOT_ALLOWED),
        ("/etc/passwd", ErrorKind.NOT_ALLOWED),
        ("link.img", ErrorKind.NOT_ALLOWED),
        ("none.img", ErrorKind.NOT_FOUND),
        (str(bench.images), ErrorKind.NOT_FOUND),
        ("http://127.0.0.1/x.img", ErrorKind.BAD_REQUEST),
        (7, ErrorKind.BAD_REQUEST),
        ("a\0b", ErrorKind.BAD_REQUEST),
        ("a/" * 600, ErrorKind.BAD_REQUEST),
        ("a" * 300, ErrorKind.NOT_FOUND),
    ):
        with pytest.raises(RequestError) as refused:
            await bench.flash(image=image)
        assert (refused.value.info.kind, refused.value.info.key) == (kind, "image"), image
    with pytest.raises(RequestError) as refused:
        allowed(str(path), [])
    assert refused.value.info.kind is ErrorKind.NOT_ALLOWED
    assert (bench.hands.log, bench.maintenance) == ([], False)


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        ({"sha256": "0" * 64}, ErrorKind.BAD_REQUEST, "has the SHA-256"),
        ({"sha256": "short"}, ErrorKind.BAD_REQUEST, "64 hexadecimal digits"),
        ({"method": "other"}, ErrorKind.NOT_FOUND, "none of this name: system"),
        ({"check_only": 1}, ErrorKind.BAD_REQUEST, "true or false"),
    ],
)
async def test_what_is_wrong_with_a_request_is_said_before_anything_is_switched(bench, data, kind, words):
    with pytest.raises(RequestError) as refused:
        await bench.flash(image=str(bench.image()), **data)
    assert refused.value.info.kind is kind
    assert words in refused.value.info.message
    assert bench.hands.log == []


async def test_an_image_for_another_board_is_not_flashed(bench):
    path = bench.image()
    (bench.images / "good.img.boardhand.toml").write_text('compatible = ["ti,am625-sk"]')
    with pytest.raises(RequestError, match="is for ti,am625-sk, and imx is fsl,imx8mm-evk"):
        await bench.flash(image=str(path))
    assert bench.hands.log == []


async def test_a_tool_that_fails_leaves_the_board_in_its_safe_mode_and_an_alert_until_it_is_mended(bench):
    bench.mark("break")
    path = bench.image()
    with pytest.raises(RequestError, match=r"the device went away.*flash again; the board is in mode safe") as refused:
        await bench.flash(image=str(path))
    assert refused.value.info.kind is ErrorKind.REFUSED
    assert bench.hands.log[-2:] == ["power off", "strap off"]
    assert "good.img failed" in bench.alert
    # In its safe mode it is not given work, and stays damaged over a restart of the agent.
    assert (bench.record.mode, bench.maintenance, bench.record.under_way) == ("safe", True, None)
    bench.alert = None
    assert await bench.start() == []
    assert "good.img failed" in bench.alert
    bench.heal()
    await bench.flash(image=str(path))
    assert (bench.alert, bench.record.damaged, bench.maintenance) == (None, None, False)
    assert bench.chip() == path.read_bytes()


async def test_a_cancelled_flash_kills_its_tool_and_puts_the_board_back(bench):
    running = await bench.begun()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert bench.hands.log[-2:] == ["power off", "strap off"]
    assert (bench.record.mode, bench.record.under_way) == ("safe", None)
    assert "was cut short; flash again" in bench.alert
    half = bench.chip()
    await asyncio.sleep(0.1)
    assert bench.chip() == half


async def test_an_agent_that_was_killed_in_a_flash_says_so_and_brings_the_board_into_its_safe_mode(bench):
    running = await bench.begun()
    before = len(bench.hands.log)
    # The next agent: nothing of the first is there but the store and the hardware.
    second = Bench(bench.folder, bench.store)
    second.hands, second.maintenance = bench.hands, True
    assert await second.start() == ["imx"]
    assert "the agent was stopped in the middle of flash system: good.img; interrupted: flash again" in second.alert
    with pytest.raises(RequestError, match="is being put back"):
        await second.mode("normal")
    await second.flashes.recover("imx")
    assert second.hands.log[before:] == ["power off", "strap off"]
    assert (second.record.mode, second.record.under_way) == ("safe", None)
    await second.mode("normal")
    assert second.record.damaged is not None
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_board_that_was_off_is_off_again(bench):
    bench.hands.states["power"] = "off"
    await bench.flash(image=str(bench.image()))
    assert bench.hands.log[-2:] == ["power cycle", "power off"]
    assert bench.hands.states == {"power": "off", "strap": "off"}


async def test_a_mode_that_cannot_be_reached_is_left_again(bench):
    bench.hands.broken = {"strap on"}
    with pytest.raises(RequestError, match=r"strap on: strap: does not answer; it is in mode safe again; nothing was"):
        await bench.flash(image=str(bench.image()))
    assert not (bench.folder / "chip").exists()
    assert (bench.alert, bench.record.mode) == (None, "safe")
    bench.hands.broken = {"strap on", "strap off"}
    with pytest.raises(RequestError, match="nobody knows in which mode it is; on the way back: strap off"):
        await bench.mode("flash")
    # It was off before that, in its safe mode.
    assert bench.hands.log[-3:] == ["strap off", "power cycle", "power off"]
    assert (bench.record.mode, bench.maintenance) == (None, True)
    assert "does not answer" in bench.alert


async def test_modes_are_told_and_a_board_in_one_is_in_maintenance(bench):
    answer = await bench.mode("flash")
    assert answer == {"board": "imx", "mode": "flash", "actuators": {"power": "on", "strap": "on"}}
    assert bench.maintenance
    told = (await bench.modes.tell({"board": "imx"}))["boards"][0]
    assert (told["mode"], told["actuators"]["strap"], told["flash"]["system"]["tool"]) == ("flash", "on", "own")
    with pytest.raises(RequestError, match="there is no mode sideways; known are: flash, normal, safe"):
        await bench.mode("sideways")
    with pytest.raises(RequestError):
        await bench.modes.tell({"board": "nobody"})
    with pytest.raises(RequestError):
        await bench.modes.tell({"board": ["imx"]})
    await bench.mode("normal")
    assert not bench.maintenance


async def test_each_boot_on_the_way_is_known_as_the_usual_one_or_not(bench, monkeypatch):
    """The agent's own boot by dialogue asks: its keys would end the fastboot that a mode brings the board into."""
    boots, switch = [], bench.hands.switch

    async def looked(actuator, state):
        if actuator == "power" and state != "off":
            boots.append(bench.modes.is_normal("imx"))
        await switch(actuator, state)

    monkeypatch.setattr(bench.hands, "switch", looked)
    assert bench.modes.is_normal("imx")
    await bench.flash(image=str(bench.image()))
    assert boots == [False, True], "into the mode, and back to work"
    await bench.mode("flash")
    assert not bench.modes.is_normal("imx")
    second = Bench(bench.folder, bench.store)
    await second.start()
    assert not second.modes.is_normal("imx"), "also after the agent's next start"


async def test_what_a_person_took_out_stays_out(bench):
    bench.person = bench.maintenance = True
    await bench.flash(image=str(bench.image()))
    assert (bench.record.took_out, bench.maintenance) == (False, True)


async def test_an_image_that_does_not_boot_is_no_good_flash(tmp_path, store):
    bench = Bench(tmp_path, store, boots=True)
    await bench.start()
    bench.ready = False
    with pytest.raises(RequestError, match=r"did not register within 0\.6 s"):
        await bench.flash(image=str(bench.image()))
    assert "the board did not register" in bench.alert
    bench.ready = None
    with pytest.raises(RequestError, match="came into a fault"):
        await bench.flash(image=str(bench.image()))
    bench.ready = True
    assert (await bench.flash(image=str(bench.image())))["mode"] == "normal"
    assert bench.alert is None


async def test_nothing_is_switched_where_nothing_can_be_stored(bench, monkeypatch):
    async def full(_board, _record):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(bench.modes.records, "put", full)
    with pytest.raises(RequestError, match=r"the state file cannot be written .*disk is full"):
        await bench.flash(image=str(bench.image()))
    assert bench.hands.log == []


async def test_a_board_without_modes_is_flashed_as_it_is(tmp_path, store):
    bench = Bench(tmp_path, store, mode=None)
    await bench.start()
    await bench.flash(image=str(bench.image()))
    assert (bench.hands.log, bench.maintenance) == ([], False)
    bench.mark("break")
    with pytest.raises(RequestError):
        await bench.flash(image=str(bench.image()))
    assert (bench.maintenance, bench.record.under_way) == (False, None)
    assert "failed" in bench.alert


@pytest.mark.parametrize("stored", [None, 3, {}, {"mode": 3, "took_out": "yes", "damaged": None}, {"more": 1}])
def test_a_record_that_cannot_be_read_is_none(stored):
    assert parse(stored) == Record()
