"""The power service on drivers without hardware."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.power.errors import ConfigurationError, UnreachableError
from agent.power.feed import OutletRef
from agent.power.journal import JOURNAL_SCHEMA, Journal, MemoryStore
from agent.power.service import FindingKind, Listeners, PowerService
from agent.power.settings import BoardFeed
from daemon.store import Store
from wire.phases import ErrorKind, Phase, Power, PowerAction

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
async def make(fakes):
    """Build a started service from drivers and feeds; closed after the test."""
    services, stores = [], []

    async def build(drivers, feeds, *, store=None, boot="boot-1", poll_every_s=0, controllers=None):
        if store is None:
            store = MemoryStore()
            stores.append(store)
        changes = []
        service = PowerService(
            controllers or {name: fakes.any_settings() for name in drivers},
            {name: BoardFeed(outlets=feed) if isinstance(feed, list) else feed for name, feed in feeds.items()},
            journal=Journal(store, boot),
            listeners=Listeners(lambda board, power: changes.append((board, power))),
            driver_factory=fakes.Factory(lambda name: drivers[name]),
            poll_every_s=poll_every_s,
        )
        services.append(service)
        service.findings = await service.start()
        service.changes = changes
        return service

    yield build
    for service in services:
        await service.close()
    for store in stores:
        await store.close()


async def test_on_off_and_cycle_are_verified_and_told(make, fakes):
    driver = fakes.FakeDriver()
    service = await make({"rack": driver}, {"pi-1": ["rack:3"]})
    assert service.findings == []
    assert service.changes == [("pi-1", Power.OFF)]
    on = await service.switch("pi-1", PowerAction.ON, operation_id="1")
    assert (on.ok, on.power, on.error) == (True, Power.ON, None)
    cycle = await service.switch("pi-1", PowerAction.CYCLE, operation_id="2")
    assert (cycle.ok, cycle.power) == (True, Power.ON)
    assert cycle.took_ms >= 100
    off = await service.switch("pi-1", PowerAction.OFF, operation_id="3")
    assert (off.ok, off.power) == (True, Power.OFF)
    assert [power for _, power in service.changes] == [Power.OFF, Power.ON, Power.OFF, Power.ON, Power.OFF]
    assert [call[2] for call in driver.calls if call[0] == "set"] == [True, False, True, False]
    assert service.last("pi-1") is Power.OFF


async def test_a_quick_outlet_takes_less_than_ten_milliseconds(make, fakes, tmp_path):
    store = await Store.open(tmp_path / "state.db", [JOURNAL_SCHEMA])
    service = await make(
        {"rack": fakes.FakeDriver()}, {"pi-1": BoardFeed(outlets=["rack:3"], min_off_s=0)}, store=store
    )
    took = []
    for number in range(20):
        action = PowerAction.OFF if number % 2 else PowerAction.ON
        took.append((await service.switch("pi-1", action, operation_id=str(number))).took_ms)
    assert min(took) < 10, "of many, as any one may be held up by the machine"
    await store.close()


async def test_three_faults_are_three_errors_and_never_raise(make, fakes):
    drivers = {
        "deaf": fakes.FakeDriver("deaf", error=fakes.silent("deaf")),
        "lying": fakes.FakeDriver("lying", lies=True),
        "broken": fakes.FakeDriver("broken", error=ZeroDivisionError("oops")),
    }
    service = await make(drivers, {name: [f"{name}:1"] for name in drivers})
    kinds = {}
    for name in drivers:
        outcome = await service.switch(name, PowerAction.ON, operation_id=name)
        assert not outcome.ok
        assert f"{name}:1" in outcome.error.message
        kinds[name] = (outcome.error.kind, outcome.power)
    assert kinds == {
        "deaf": (ErrorKind.UNREACHABLE, Power.UNKNOWN),
        "lying": (ErrorKind.NOT_VERIFIED, Power.OFF),
        "broken": (ErrorKind.INTERNAL, Power.UNKNOWN),
    }
    unknown = await service.switch("nobody", PowerAction.ON, operation_id="x")
    assert unknown.error.kind is ErrorKind.UNKNOWN_BOARD


async def test_a_feed_of_several_outlets_is_on_only_when_all_are(make, fakes):
    pdu, hub = fakes.FakeDriver("pdu"), fakes.FakeDriver("hub")
    service = await make({"pdu": pdu, "hub": hub}, {"pi-1": ["pdu:1", "hub:2"]})
    assert (await service.switch("pi-1", PowerAction.ON, operation_id="1")).power is Power.ON
    hub.on["2"] = False
    assert await service.read("pi-1") is Power.UNKNOWN
    pdu.on["1"] = False
    assert await service.read("pi-1") is Power.OFF
    hub.lies = True
    outcome = await service.switch("pi-1", PowerAction.ON, operation_id="2")
    assert (outcome.ok, outcome.power, outcome.error.kind) == (False, Power.UNKNOWN, ErrorKind.NOT_VERIFIED)


async def test_a_change_by_hand_is_noticed(make, fakes, until):
    driver = fakes.FakeDriver(on={"3": True})
    service = await make({"rack": driver}, {"pi-1": ["rack:3"]}, poll_every_s=0.02)
    assert service.last("pi-1") is Power.ON
    driver.on["3"] = False
    await until(lambda: service.last("pi-1") is Power.OFF)
    driver.error = fakes.silent()
    await until(lambda: service.last("pi-1") is Power.UNKNOWN)
    assert service.problem("pi-1").kind is ErrorKind.UNREACHABLE
    assert service.changes == [("pi-1", Power.ON), ("pi-1", Power.OFF), ("pi-1", Power.UNKNOWN)]


async def test_a_silent_controller_is_asked_once_per_round(make, fakes):
    driver = fakes.FakeDriver(error=fakes.silent())
    await make({"rack": driver}, {f"pi-{n}": [f"rack:{n}"] for n in range(10)})
    assert len(driver.calls) == 1


async def test_start_switches_nothing_and_reports_a_split_feed(make, fakes):
    pdu, hub = fakes.FakeDriver("pdu", on={"1": True}), fakes.FakeDriver("hub")
    service = await make({"pdu": pdu, "hub": hub}, {"pi-1": ["pdu:1", "hub:2"]})
    (finding,) = service.findings
    assert finding.kind is FindingKind.SPLIT
    assert not [call for driver in (pdu, hub) for call in driver.calls if call[0] == "set"]


async def test_the_minimum_off_time_survives_a_restart_of_the_agent(make, fakes):
    store = MemoryStore()
    driver = fakes.FakeDriver(on={"3": True})
    feed = {"pi-1": BoardFeed(outlets=["rack:3"], min_off_s=0.4)}
    first = await make({"rack": driver}, feed, store=store)
    assert (await first.switch("pi-1", PowerAction.OFF, operation_id="1")).ok
    second = await make({"rack": driver}, feed, store=store)
    outcome = await second.switch("pi-1", PowerAction.ON, operation_id="2")
    assert outcome.took_ms > 200
    third = await make({"rack": driver}, feed, store=store)
    assert await Journal(store, "boot-1").off_since() == {}
    assert third.last("pi-1") is Power.ON
    await store.close()


async def test_after_a_reboot_of_the_host_an_outlet_is_off_from_the_first_read_back(make, fakes):
    store = MemoryStore()
    await Journal(store, "boot-0").note({OutletRef("rack", "3"): 1e12})
    feed = {"pi-1": BoardFeed(outlets=["rack:3"], min_off_s=0.3)}
    service = await make({"rack": fakes.FakeDriver()}, feed, store=store)
    outcome = await service.switch("pi-1", PowerAction.ON, operation_id="2")
    assert outcome.ok
    assert outcome.took_ms > 200, "the old off time of another boot was believed"
    await store.close()


async def test_switch_ons_of_one_controller_are_spaced(make, fakes):
    service = await make(
        {"rack": fakes.FakeDriver()},
        {f"pi-{n}": BoardFeed(outlets=[f"rack:{n}"], min_off_s=0) for n in range(3)},
        controllers={"rack": fakes.any_settings(inrush_spacing_s=0.1)},
    )
    outcomes = await asyncio.gather(*(service.switch(f"pi-{n}", PowerAction.ON, operation_id=str(n)) for n in range(3)))
    took = sorted(outcome.took_ms for outcome in outcomes)
    assert took[1] >= 100
    assert took[2] >= 200


async def test_operations_on_one_board_wait_for_each_other_and_too_many_are_refused(make, fakes):
    service = await make({"rack": fakes.FakeDriver()}, {"pi-1": ["rack:1"]})
    outcomes = await asyncio.gather(*(service.switch("pi-1", PowerAction.CYCLE, operation_id=str(n)) for n in range(7)))
    kinds = [None if outcome.error is None else outcome.error.kind for outcome in outcomes]
    assert kinds == [None] * 5 + [ErrorKind.BUSY] * 2


async def test_without_read_back_a_switch_is_done_and_power_stays_unknown(make, fakes):
    service = await make({"rack": fakes.FakeDriver(reads_back=False)}, {"pi-1": ["rack:1"]})
    outcome = await service.switch("pi-1", PowerAction.ON, operation_id="1")
    assert (outcome.ok, outcome.power, outcome.error) == (True, Power.UNKNOWN, None)


async def test_describe_names_boards_and_says_what_is_wrong(make, fakes):
    rack, gone = fakes.FakeDriver(on={"1": True, "2": False}), fakes.FakeDriver(error=fakes.silent("gone"))
    drivers = {"rack": rack, "gone": gone}
    service = await make(drivers, {"pi-1": ["rack:1"], "pi-2": ["gone:7"]})
    rack, gone = await service.describe()
    assert [(o.outlet, o.power, o.board) for o in rack.outlets] == [("1", Power.ON, "pi-1"), ("2", Power.OFF, None)]
    assert "silent" in (gone.problem or "")
    assert [(o.outlet, o.power, o.board) for o in gone.outlets] == [("7", Power.UNKNOWN, "pi-2")]


async def test_show_and_watts_go_to_the_feed(make, fakes):
    driver = fakes.FakeDriver(on={"1": True})
    service = await make({"rack": driver}, {"pi-1": ["rack:1"]})
    await service.show("pi-1", Phase.READY)
    assert driver.shown == [("1", Phase.READY)]
    assert await service.watts("pi-1") == 3.5
    driver.error = fakes.silent()
    await service.show("pi-1", Phase.FAULT)
    assert await service.watts("pi-1") is None


@pytest.mark.parametrize(
    ("feeds", "text"),
    [
        ({"pi-1": ["nobody:1"]}, "nobody:1"),
        ({"pi-1": ["rack:1"], "pi-2": ["rack:1"]}, "feeds both pi-1 and pi-2"),
    ],
)
def test_feeds_that_cannot_be_are_refused(fakes, feeds, text):
    with pytest.raises(ConfigurationError, match=text):
        PowerService(
            {"rack": fakes.any_settings()},
            {name: BoardFeed(outlets=feed) for name, feed in feeds.items()},
            journal=None,
            listeners=Listeners(lambda *_: None),
            driver_factory=fakes.Factory(lambda _: fakes.FakeDriver()),
        )


async def test_a_journal_that_cannot_be_written_does_not_hold_the_power(make, fakes, caplog):
    service = await make({"rack": fakes.FakeDriver()}, {"pi-1": ["rack:1"]}, store=(store := MemoryStore()))
    await store.run(lambda db: db.execute("DROP TABLE power_operation"))
    assert (await service.switch("pi-1", PowerAction.ON, operation_id="1")).ok
    assert "journal cannot be written" in caplog.text
    await store.close()


AGENT_THAT_IS_KILLED = """
import asyncio, pathlib, sys
from agent.power.journal import JOURNAL_SCHEMA, Journal
from agent.power.service import Listeners, PowerService
from agent.power.kinds.command import CommandSettings
from agent.power.settings import BoardFeed
from daemon.store import Store
from wire.phases import PowerAction

async def main():
    state = pathlib.Path(sys.argv[1])
    store = await Store.open(state / "state.db", [JOURNAL_SCHEMA])
    flag = str(state / "on")
    settings = CommandSettings(driver="command", on=["touch", flag], off=["rm", "-f", flag],
                               state=["sh", "-c", 'test -e "$0" && echo on || echo off', flag])
    service = PowerService({"plug": settings}, {"pi-1": BoardFeed(outlets=["plug:1"], min_off_s=60)},
                           journal=Journal(store, "boot-1"), poll_every_s=0,
                           listeners=Listeners(lambda b, p: print(p, flush=True)))
    await service.start()
    await service.switch("pi-1", PowerAction.CYCLE, operation_id="op-17")

asyncio.run(main())
"""


async def test_a_kill_during_an_operation_is_found_at_the_next_start(make, fakes, tmp_path):
    (tmp_path / "on").touch()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", AGENT_THAT_IS_KILLED, str(tmp_path), stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    try:
        async with asyncio.timeout(60):
            while (line := await process.stdout.readline()).strip() != b"off":
                assert line, "the agent ended by itself"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    store = await Store.open(tmp_path / "state.db", [JOURNAL_SCHEMA])
    service = await make({"plug": fakes.FakeDriver("plug")}, {"pi-1": ["plug:1"]}, store=store)
    (finding,) = service.findings
    assert finding.kind is FindingKind.INTERRUPTED
    assert (finding.board, finding.operation_id, finding.action) == ("pi-1", "op-17", PowerAction.CYCLE)
    assert finding.power is Power.OFF
    assert finding.error.kind is ErrorKind.INTERRUPTED
    again = await make({"plug": fakes.FakeDriver("plug")}, {"pi-1": ["plug:1"]}, store=store)
    assert again.findings == []
    await store.close()


async def test_close_interrupts_an_operation_at_once_and_the_next_start_finds_it(make, fakes, until):
    store = MemoryStore()
    driver = fakes.FakeDriver(on={"1": True})
    service = await make({"rack": driver}, {"pi-1": BoardFeed(outlets=["rack:1"], min_off_s=60)}, store=store)
    running = asyncio.create_task(service.switch("pi-1", PowerAction.CYCLE, operation_id="op-1"))
    await until(lambda: service.last("pi-1") is Power.OFF)
    async with asyncio.timeout(60):
        await service.close()
        outcome = await running
    assert (outcome.ok, outcome.power, outcome.error.kind) == (False, Power.UNKNOWN, ErrorKind.INTERRUPTED)
    again = await make({"rack": driver}, {"pi-1": ["rack:1"]}, store=store)
    assert [(f.kind, f.operation_id, f.power) for f in again.findings] == [(FindingKind.INTERRUPTED, "op-1", Power.OFF)]
    await store.close()


def test_importing_the_service_imports_no_driver():
    code = "import sys, json, agent.power.service; print(json.dumps(sorted(sys.modules)))"
    modules = json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=REPOSITORY))
    assert not {"pysnmp", "serial", "agent.power.drivers.snmp"} & set(modules)


async def test_errors_are_what_they_say():
    error = UnreachableError("no answer", controller="rack", outlet="3", do="check its cable")
    assert str(error) == "rack:3: no answer; check its cable"
    assert error.info().kind is ErrorKind.UNREACHABLE
