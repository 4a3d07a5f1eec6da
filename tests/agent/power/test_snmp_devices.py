"""The SNMP driver on the wire: against virtual devices of every family, which were written from the MIBs and not from
our families, and against recordings of real devices."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from agent.power.controller_queue import ControllerQueue
from agent.power.driver import Identifies, ReadsMany, Timing
from agent.power.driver_factory import DriverFactory
from agent.power.drivers.snmp_engine import Credentials, EnginePool
from agent.power.drivers.snmp_family_files import families
from agent.power.errors import ConfigurationError, PowerError, RefusedError
from agent.power.kinds.snmp import SnmpSettings
from virtual_lab.pdu_models import MODELS
from virtual_lab.snmp_pdu import PduSettings, VirtualPdu
from virtual_lab.snmp_pdu_engine import V3User
from virtual_lab.snmp_recording import RecordedDevice
from wire.phases import Power

RECORDINGS = Path(__file__).parents[4] / "shared" / "recordings"
TRUTH = (
    json.loads((RECORDINGS / "ground_truth.json").read_text()) if (RECORDINGS / "ground_truth.json").exists() else {}
)
USER = V3User("simu", "sha", "authpass123", "aes", "privpass123")
OURS = {"gude-epc": "gude-epc8226", "netio": "netio-an11"}
"""Where a model is more special than its name."""
UNMEASURED = {"enlogic"}
"""Whose virtual device measures nothing."""
OF_ALL_SHAPES = ["apc-rpdu2", "aten-pe", "digipower", "eaton-g3", "geist-v3", "iboot-pdu", "liebert-mph", "poe-hp"]
NAMELESS = {"teltronix", "poe-rfc3621", "poe-cisco", "poe-hp", "tplink-poe"}


pytestmark = pytest.mark.asyncio(loop_scope="module")
"""One event loop, so that engines, 0.2 s each, are shared by all tests here."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def factory():
    """Makes drivers; the engines of the two communities stay from test to test."""
    made = DriverFactory()
    pool = made._context.share(EnginePool, EnginePool)
    kept = [await pool.take(Credentials("2c", community=community)) for community in ("private", "public")]
    yield made
    for engine in kept:
        pool.give_back(engine)


@pytest_asyncio.fixture(loop_scope="module")
async def connect(tmp_path, factory):
    """A queue with a driver, for a device."""
    queues = []
    (tmp_path / "community").write_text("private\n")
    (tmp_path / "public").write_text("public\n")
    (tmp_path / "auth").write_text("authpass123")
    (tmp_path / "priv").write_text("privpass123")

    def make(device, **changes):
        base = {"driver": "snmp", "host": "127.0.0.1", "port": device.port, "timeout_s": 0.4, "retries": 1}
        if changes.get("version") == "3":
            base |= {
                "user": "simu", "auth_protocol": "sha", "auth_key_file": tmp_path / "auth",
                "priv_protocol": "aes", "priv_key_file": tmp_path / "priv",
            }  # fmt: skip
        else:
            base["community_file"] = tmp_path / ("public" if isinstance(device, RecordedDevice) else "community")
        queue = ControllerQueue("rack", factory("rack", SnmpSettings(**(base | changes))))
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        await queue.close()


async def test_every_family_has_a_virtual_device_or_a_sister_that_has():
    modelled = {OURS.get(name, name) for name in MODELS}
    files = {families()[name].file for name in modelled}
    without = {family.file for family in families().values()} - files
    assert modelled <= set(families())
    assert without == {"gude-epc", "gude-epc-old", "tripplite-snmpwebcard"}, "these have the tables of others"


@pytest.mark.parametrize("model", sorted(MODELS))
async def test_a_device_of_each_family_is_detected_described_and_switched(connect, model):
    async with VirtualPdu(PduSettings(model=model, outlets=10, light=True)) as pdu:
        queue = connect(pdu)
        said = await queue.identify()
        family = families()[OURS.get(model, model)]
        reasons = ("sysObjectID 1.3.6", "sysDescr", "pethPsePortAdminEnable is there")
        assert said.startswith(tuple(f"{family.name}: {reason}" for reason in reasons))
        measured = family.watts is not None and model not in UNMEASURED
        described = await queue.describe()
        assert [item.name for item in described] == [
            "" if model in NAMELESS else f"Outlet {number}" for number in range(1, 11)
        ]
        outlets = [item.outlet for item in described]
        assert {item.power for item in described} == {Power.OFF}
        for at in (1, 8):
            await queue.set(outlets[at], True)
            assert [number for number, on in pdu.on.items() if on] == [str(at + 1)]
            assert await queue.get(outlets[at]) is Power.ON
            assert await queue.read(outlets[at]) == (pytest.approx(12.0) if measured else None)
            many = await queue.get_many(outlets)
            assert [many[outlet] for outlet in outlets] == [Power.ON if n == at else Power.OFF for n in range(10)]
            watts = await queue.read_many(outlets)
            assert [outlet for outlet in outlets if watts[outlet]] == ([outlets[at]] if measured else [])
            await queue.set(outlets[at], False)
            assert not any(pdu.on.values())
            assert await queue.get(outlets[at]) is Power.OFF
        assert [edge[1] for edge in pdu.edges] == [True, False, True, False]


@pytest.mark.parametrize("model", OF_ALL_SHAPES)
@pytest.mark.parametrize("version", ["1", "3"])
async def test_versions_1_and_3_do_the_same(connect, model, version):
    async with VirtualPdu(PduSettings(model=model, outlets=3, users=(USER,))) as pdu:
        queue = connect(pdu, version=version)
        outlet = (await queue.describe())[2].outlet
        assert await queue.get(outlet) is Power.OFF
        await queue.set(outlet, True)
        assert pdu.on == {"1": False, "2": False, "3": True}
        assert await queue.get(outlet) is Power.ON
        await queue.read(outlet)


@pytest.mark.parametrize("model", OF_ALL_SHAPES)
async def test_an_outlet_that_is_not_there_is_told_so(connect, model):
    async with VirtualPdu(PduSettings(model=model, outlets=3, light=True)) as pdu:
        queue = connect(pdu)
        there = (await queue.describe())[1].outlet
        beyond = there.rpartition(".")[0] + "." * ("." in there) + "77"
        for call in (queue.get(beyond), queue.set(beyond, True)):
            with pytest.raises(ConfigurationError, match="no such outlet") as caught:
                await call
            assert (caught.value.controller, caught.value.outlet) == ("rack", beyond)
        answers = await queue.get_many([there, beyond])
        assert answers[there] is Power.OFF
        assert isinstance(answers[beyond], ConfigurationError)
        assert answers[beyond].outlet == beyond
        assert await queue.read(beyond) is None
        assert not pdu.edges


async def test_the_driver_can_do_what_the_core_asks_of_it(connect):
    async with VirtualPdu(PduSettings(model="eaton-g3")) as pdu:
        driver = connect(pdu).driver
        assert isinstance(driver, ReadsMany)
        assert isinstance(driver, Identifies)
        assert driver.timing.answer_deadline_s == Timing().answer_deadline_s


@pytest.mark.parametrize("version", ["1", "2c"])
async def test_many_outlets_cost_few_questions(connect, version):
    async with VirtualPdu(PduSettings(model="raritan-px2", outlets=48, initially_on=True)) as pdu:
        queue = connect(pdu, version=version)
        outlets = [str(number) for number in range(1, 49)]
        await queue.get("1")
        before = pdu.requests
        assert set((await queue.get_many(outlets)).values()) == {Power.ON}
        assert pdu.requests - before == 2
        assert set((await queue.read_many(outlets)).values()) == {12.0}
        assert pdu.requests - before == 6, "the digits behind the point were asked for as well"
        await queue.read_many(outlets)
        assert pdu.requests - before == 8, "once"
        assert await queue.read_many(["1", "x", "77"]) == {"1": 12.0, "x": None, "77": None}


async def test_a_family_that_the_device_is_not_of_is_a_matter_of_settings(connect):
    async with VirtualPdu(PduSettings(model="eaton-g3")) as pdu:
        queue = connect(pdu, family="apc-rpdu2")
        for call in (lambda: queue.get("1"), lambda: queue.set("1", True)):
            with pytest.raises(ConfigurationError) as caught:
                await call()
            said = str(caught.value)
            assert "rack:1: the device does not answer as apc-rpdu2 (set in the settings)" in said
            assert "it has no rPDU2OutletSwitchedStatusState; it says sysObjectID 1.3.6.1.4.1.534.6.6.7" in said
            assert 'set family = "eaton-g3", or leave it out' in said
        assert (await queue.identify()).startswith("apc-rpdu2: set in the settings; the device says sysObjectID 1.3.6")


async def test_a_switch_of_a_maker_whose_own_tables_it_lacks_is_found_by_the_standard(connect, monkeypatch):
    tp_link = (1, 3, 6, 1, 4, 1, 11863, 5, 99)
    monkeypatch.setitem(MODELS, "poe-rfc3621", replace(MODELS["poe-rfc3621"], sys_object_id=tp_link))
    async with VirtualPdu(PduSettings(model="poe-rfc3621")) as pdu:
        queue = connect(pdu)
        assert (await queue.identify()).startswith("poe-rfc3621: pethPsePortAdminEnable is there; it says sysObjectID")
        await queue.set("3", True)
        assert pdu.on["3"]


async def test_a_device_that_was_swapped_for_another_is_detected_anew(connect):
    async with VirtualPdu(PduSettings(model="eaton-g3")) as pdu:
        queue = connect(pdu)
        assert await queue.get("3") is Power.OFF
        port = pdu.port
    async with VirtualPdu(PduSettings(model="vertiv-v5", port=port, initially_on=True)):
        with pytest.raises(ConfigurationError, match="does not answer as eaton-g3") as caught:
            await queue.get("3")
        assert "it says sysObjectID 1.3.6.1.4.1.21239" in str(caught.value)
        assert "ask again: it is detected anew" in str(caught.value)
        assert await queue.get("3") is Power.ON
        assert (await queue.identify()).startswith("vertiv-v5: sysObjectID")


async def test_a_user_describes_a_device_in_the_settings_or_a_file(connect, tmp_path):
    base = "1.3.6.1.4.1.1418.6.5.1"
    oids = {
        "state": {"oid": f"{base}.6.{{outlet-1}}", "on": 1, "off": 0},
        "control": {"oid": f"{base}.5.{{outlet-1}}", "on": 1, "off": 0},
        "name": {"oid": f"{base}.2.{{outlet-1}}"},
        "timing": {"min_off_s": 7.5},
    }
    file = tmp_path / "mine.toml"
    file.write_text(
        f'[state]\noid = "{base}.6.{{outlet-1}}"\non = 1\noff = 0\n'
        f'[control]\noid = "{base}.5.{{outlet-1}}"\non = 1\noff = 0\n'
    )
    async with VirtualPdu(PduSettings(model="iboot-pdu")) as pdu:
        for settings in ({"family": "custom", "oids": oids}, {"family_file": file}):
            queue = connect(pdu, **settings)
            await queue.set("3", True)
            assert pdu.on["3"]
            assert await queue.get("3") is Power.ON
            await queue.set("3", False)
        custom = connect(pdu, family="custom", oids=oids)
        assert custom.driver.timing.min_off_s == 7.5
        assert (await custom.describe())[0].name == "Outlet 1"
        assert (await custom.identify()).startswith("custom: set in the settings; the device says sysObjectID")


async def test_one_outlet_has_one_name(connect):
    async with VirtualPdu(PduSettings(model="raritan-px2")) as pdu:
        queue = connect(pdu)
        assert await queue.get("1.3") is Power.OFF
        with pytest.raises(ConfigurationError, match=r"3 and 1\.3 are the same outlet; write 1\.3 everywhere"):
            await queue.get("3")
        with pytest.raises(ConfigurationError, match=r"2 numbers with dots, as 1\.3, or 3 for 1\.3"):
            await queue.set("1.1.3", True)


async def test_a_lock_or_a_model_that_only_measures_is_told_apart(connect):
    async with VirtualPdu(PduSettings(model="eaton-g3", unswitched=frozenset({"2"}))) as pdu:
        with pytest.raises(RefusedError, match="notWritable"):
            await connect(pdu).set("2", True)
    recording = RECORDINGS / "eatonpdu_2.snmprec"
    if recording.exists():  # a real one without a single command object
        async with RecordedDevice(recording) as device:
            with pytest.raises(PowerError, match=r"outletControlOnCmd is not there|notWritable|noAccess"):
                await connect(device).set("2", True)


THEIR_NAMES = {"eaton-epdu": "eaton-g3", "liebert": "liebert-mph", "poe-mib": "poe-rfc3621"}
STATES = {"enabled": Power.ON, "disabled": Power.OFF, "on": Power.ON, "off": Power.OFF}


@pytest.mark.parametrize("file", sorted(file for file in TRUTH if TRUTH[file]["families"]))
async def test_recorded_devices_are_what_is_known_of_them(connect, file):
    tables = TRUTH[file]["families"]
    name = "apc-rpdu2" if "apc-rpdu2" in tables else next(iter(tables))
    family = families()[THEIR_NAMES.get(name, name)]
    async with RecordedDevice(RECORDINGS / file, light=True) as device:
        queue = connect(device)
        said = await queue.identify()
        assert said.startswith(f"{family.name}: ")
        if not tables[name]["has_state"]:
            return
        known = {}
        for item in tables[name]["outlets"]:
            parts = tuple(int(part) for part in item["index"].split("."))
            parts = (parts[0] + 1,) if name == "iboot-pdu" else parts
            known[family.index.outlet(parts)] = (item.get("name", ""), STATES[item["state"]], item.get("watts"))
        described = await queue.describe()
        assert {item.outlet: (item.name.rstrip(), item.power) for item in described} == {
            outlet: (label.rstrip(), power) for outlet, (label, power, _) in known.items()
        }
        assert dict(await queue.get_many(list(known))) == {outlet: item[1] for outlet, item in known.items()}
        watts = await queue.read_many(list(known))
        assert {outlet: watts[outlet] for outlet in known if known[outlet][2] is not None} == {
            outlet: item[2] for outlet, item in known.items() if item[2] is not None
        }


@pytest.mark.parametrize("file", sorted(file for file in TRUTH if not TRUTH[file]["families"]))
async def test_recordings_without_outlets_say_what_they_are_and_switch_nothing(connect, file):
    async with RecordedDevice(RECORDINGS / file, light=True) as device:
        queue = connect(device)
        with pytest.raises(ConfigurationError) as caught:
            await queue.get("1")
        assert f"sysObjectID {TRUTH[file]['sysObjectID']}" in str(caught.value)


async def test_recordings_were_played_where_they_are():
    assert (len(TRUTH) > 0) == RECORDINGS.exists()
