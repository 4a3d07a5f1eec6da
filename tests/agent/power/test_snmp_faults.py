"""Faults of SNMP devices on the real protocol: each ends in one typed error, or in success, and in time.

Times are asserted with what they took, so that a failure shows it.
"""

import asyncio
import contextlib

import pytest
from pysnmp.proto import rfc1902, rfc1905

from agent.power.driver_factory import DriverFactory
from agent.power.drivers.snmp_family_files import FOLDER
from agent.power.drivers.snmp_session import MAX_BINDINGS, SnmpSession, _plain, _Reply
from agent.power.errors import AuthenticationError, ConfigurationError, RefusedError, UnreachableError
from agent.power.journal import Journal, MemoryStore
from agent.power.kinds.snmp import SnmpSettings
from agent.power.readings import Listeners
from agent.power.service import PowerService
from agent.power.settings import BoardFeed
from tests import stalls
from virtual_lab.snmp_pdu import DeviceReboot, PduSettings, VirtualPdu
from virtual_lab.snmp_pdu_engine import V3User
from wire.phases import ErrorKind, Power, PowerAction

USER = V3User("simu", "sha", "authpass123", "aes", "privpass123")
SLACK_S = 3.0
"""Two busy cores; the deadlines themselves are the drivers' and the core's."""


@pytest.fixture
def settings(tmp_path):
    """Settings of a controller; 0.2 s for an answer, once asked again."""
    for name, secret in {
        "community": "private", "wrong": "wrong", "auth": "authpass123", "bad": "authpass124", "priv": "privpass123"
    }.items():  # fmt: skip
        (tmp_path / name).write_text(secret)

    def make(pdu, **changes):
        base = {"driver": "snmp", "host": "127.0.0.1", "port": pdu.port, "timeout_s": 0.2, "retries": 1}
        if changes.get("version") == "3":
            base |= {"user": "simu", "auth_protocol": "sha", "auth_key_file": tmp_path / "auth"}
            base |= {"priv_protocol": "aes", "priv_key_file": tmp_path / "priv"}
        else:
            base["community_file"] = tmp_path / "community"
        return SnmpSettings(**(base | changes))

    return make


@pytest.fixture
async def driver(settings):
    factory, drivers = DriverFactory(), []

    def make(pdu, **changes):
        drivers.append(factory("rack", settings(pdu, **changes)))
        return drivers[-1]

    yield make
    for one in drivers:
        await one.close()


@pytest.fixture
async def service(settings, tmp_path):
    """The whole power service over one Eaton G3, board `pi` on outlet 3 and `other` on outlet 4. A lost answer is
    watched for 0.5 s only, instead of 3."""
    quick = tmp_path / "quick.toml"
    quick.write_text((FOLDER / "eaton-g3.toml").read_text() + "[timing]\nsettle_s = 0.5\n")
    async with contextlib.AsyncExitStack() as stack:

        async def make(pdu, **changes):
            store = MemoryStore()
            made = PowerService(
                {"rack": settings(pdu, family_file=quick, **changes)},
                {
                    board: BoardFeed(outlets=[f"rack:{outlet}"], verify_deadline_s=3, min_off_s=0.1, attempts=4)
                    for board, outlet in (("pi", "3"), ("other", "4"))
                },
                journal=Journal(store, "boot"), listeners=Listeners(lambda *_: None), poll_every_s=0,
            )  # fmt: skip
            await made.start()
            stack.push_async_callback(store.close)
            stack.push_async_callback(made.close)
            return made

        yield make


@contextlib.asynccontextmanager
async def within(limit_s):
    with stalls.watch() as took:
        yield
        took_s = took()
    assert took_s <= limit_s + SLACK_S, f"took {took_s:.2f} s of {limit_s:g}"


def named(caught):
    assert (caught.value.controller, caught.value.outlet) == ("rack", "3")
    assert str(caught.value).startswith("rack:3: ")
    return str(caught.value)


@pytest.mark.parametrize("version", ["1", "2c", "3"])
async def test_a_deaf_device(driver, version):
    async with VirtualPdu(PduSettings(model="eaton-g3", users=(USER,))) as pdu:
        device = driver(pdu, version=version)
        assert await device.get("3") is Power.OFF
        pdu.deaf = True
        for call in (lambda: device.get("3"), lambda: device.set("3", True)):
            async with within(0.4):
                with pytest.raises(UnreachableError) as caught:
                    await call()
            assert "no answer from 127.0.0.1" in named(caught)
        async with within(0.4):
            with pytest.raises(UnreachableError):
                await device.get_many([str(n) for n in range(1, 9)])
        pdu.deaf = False
        assert await device.get("3") is Power.OFF


async def test_an_answer_that_comes_late_is_not_taken_for_another_question(driver):
    async with VirtualPdu(PduSettings(model="apc-rpdu2", light=True)) as pdu:
        pdu.press("1", True)
        device = driver(pdu, family="apc-rpdu2", retries=0, timeout_s=0.4)
        assert await device.get("1") is Power.ON
        pdu.late_s = 0.6
        async with within(0.4):
            with pytest.raises(UnreachableError):
                await device.get("1")
        pdu.late_s = 0.3  # the answer about 1 arrives while that about 3 is waited for
        answers = pdu.answers
        assert await device.get("3") is Power.OFF
        assert pdu.answers - answers >= 1
        pdu.late_s = 0
        assert [await device.get(outlet) for outlet in ("1", "3")] == [Power.ON, Power.OFF]


@pytest.mark.parametrize("version", ["1", "2c", "3"])
async def test_an_answer_for_another_index_is_never_a_state(driver, version):
    async with VirtualPdu(PduSettings(model="apc-rpdu2", users=(USER,), initially_on=True)) as pdu:
        device = driver(pdu, family="apc-rpdu2", version=version)
        pdu.wrong_index = True
        for call in (lambda: device.get("3"), lambda: device.set("3", True)):
            async with within(0.4):
                with pytest.raises(RefusedError, match=r"asked for [\d.]+\.3 and answered for [\d.]+\.4") as caught:
                    await call()
            named(caught)
        with pytest.raises(RefusedError, match="answered for"):
            await device.get_many(["3", "4"])
        pdu.wrong_index = False
        assert await device.get("3") is Power.ON


@pytest.mark.parametrize("model", ["apc-rpdu2", "eaton-g3", "aten-pe", "digipower"])
async def test_an_answer_of_another_type_is_never_a_state(driver, model):
    async with VirtualPdu(PduSettings(model=model)) as pdu:
        device = driver(pdu, family=model)
        pdu.wrong_type = model != "digipower"
        if model == "digipower":  # its state belongs to no one outlet, so that the fault above leaves it alone
            device = driver(pdu, family="custom", oids={
                "state": {"oid": "1.3.6.1.2.1.1.5.0", "listed": True, "on": 1, "off": 0},
                "control": {"oid": "1.3.6.1.2.1.1.5.0", "listed": True, "on": 1, "off": 0, "type": "string"},
            })  # fmt: skip
            with pytest.raises(ConfigurationError, match="no such outlet"):
                await device.get("3")
            with pytest.raises(RefusedError, match="where a number is expected"):
                await device.get("1")
            return
        async with within(0.4):
            with pytest.raises(RefusedError, match=r"is '\d+' where a number is expected") as caught:
                await device.get("3")
        named(caught)
        assert isinstance((await device.get_many(["3", "4"]))["4"], RefusedError)


async def test_no_such_instance(driver):
    async with VirtualPdu(PduSettings(model="sentry4", missing=frozenset({"3"}))) as pdu:
        device = driver(pdu)
        for call in (lambda: device.get("3"), lambda: device.set("3", True)):
            async with within(0.4):
                with pytest.raises(ConfigurationError, match="no such outlet") as caught:
                    await call()
            named(caught)
        assert "3" not in [item.outlet for item in await device.describe()]
        answers = await device.get_many(["2", "3", "4"])
        assert [type(answers[outlet]) for outlet in ("2", "3", "4")] == [Power, ConfigurationError, Power]


async def test_wrong_credentials(driver, tmp_path):
    async with VirtualPdu(PduSettings(model="eaton-g3", users=(USER,))) as pdu:
        async with within(0.4):
            with pytest.raises(AuthenticationError) as caught:
                await driver(pdu, version="3", auth_key_file=tmp_path / "bad", family="eaton-g3").get("3")
        named(caught)
        async with within(0.4):
            with pytest.raises(UnreachableError, match="wrong community"):
                await driver(pdu, community_file=tmp_path / "wrong", family="eaton-g3").get("3")


async def test_a_card_that_changes_its_engine_id_while_the_agent_runs(service):
    async with VirtualPdu(PduSettings(model="eaton-g3", users=(USER,))) as pdu:
        power = await service(pdu, version="3")
        assert (await power.switch("pi", PowerAction.ON, operation_id="1")).ok
        pdu.restart("8000013e05736f6d656f6e65")
        async with within(8):
            outcomes = []
            while not outcomes or not outcomes[-1].ok:
                outcomes.append(await power.switch("pi", PowerAction.OFF, operation_id=f"off {len(outcomes)}"))
        assert {outcome.error.kind for outcome in outcomes[:-1]} <= {ErrorKind.UNREACHABLE}
        assert len(outcomes) <= 3
        assert pdu.edges == [("3", True), ("3", False)]


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("carried_out", [True, False])
async def test_a_device_that_reboots_while_a_set_is_under_way(service, answered, carried_out):
    async with VirtualPdu(PduSettings(model="eaton-g3")) as pdu:
        power = await service(pdu)
        pdu.reboot_on_set = DeviceReboot(silent_s=0.8, answered=answered, carried_out=carried_out)
        async with within(6):
            outcome = await power.switch("pi", PowerAction.ON, operation_id="1")
        if outcome.ok:
            assert pdu.on["3"]
        else:
            assert outcome.error.kind in {ErrorKind.UNREACHABLE, ErrorKind.NOT_VERIFIED}
            assert "rack:3" in outcome.error.message
            assert outcome.power is not Power.ON
        assert pdu.boots == 2
        assert pdu.edges.count(("3", True)) <= 1


async def test_every_third_packet_is_dropped(service):
    async with VirtualPdu(PduSettings(model="eaton-g3")) as pdu:
        power = await service(pdu)
        pdu.drop_every = 3
        async with within(6 * 3.5):
            for number, action in enumerate([PowerAction.ON, PowerAction.OFF] * 3):
                outcome = await power.switch("pi", action, operation_id=str(number))
                assert outcome.ok, outcome
                assert pdu.on["3"] is (action is PowerAction.ON)
        assert len(pdu.edges) == 6, "no switch was done twice"


async def test_every_third_answer_is_lost_and_a_cycle_is_one_cycle(service):
    async with VirtualPdu(PduSettings(model="eaton-g3", initially_on=True)) as pdu:
        power = await service(pdu)
        pdu.drop_answer_every = 3
        async with within(3 * 7):
            for number in range(3):
                outcome = await power.switch("pi", PowerAction.CYCLE, operation_id=str(number))
                assert outcome.ok, outcome
        assert pdu.edges == [("3", False), ("3", True)] * 3


async def test_reading_bears_lost_packets_too(driver):
    async with VirtualPdu(PduSettings(model="raritan-px2", outlets=48)) as pdu:
        device = driver(pdu, retries=3)
        pdu.drop_every = 3
        async with within(8):
            assert len(await device.describe()) == 48
            assert len(await device.get_many([str(n) for n in range(1, 49)])) == 48


async def test_a_call_that_is_cancelled_does_not_spoil_the_next(driver):
    async with VirtualPdu(PduSettings(model="eaton-g3", initially_on=True)) as pdu:
        device = driver(pdu)
        for _ in range(3):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.001):
                    await device.get("3")
        assert await device.get("3") is Power.ON


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (rfc1902.Integer32(-1), -1),
        (rfc1902.Integer(7), 7),
        (rfc1902.Gauge32(4294967295), 4294967295),
        (rfc1902.Counter64(2**40), 2**40),
        (rfc1902.TimeTicks(1), 1),
        (rfc1902.OctetString("on"), b"on"),
        (rfc1902.IpAddress("127.0.0.1"), b"\x7f\0\0\1"),
        (rfc1902.ObjectIdentifier("1.3.6"), "1.3.6"),
        (rfc1902.Null(""), None),
        (rfc1905.noSuchInstance, None),
        (rfc1905.noSuchObject, None),
        (rfc1905.endOfMibView, None),
    ],
)
def test_values_leave_pysnmp_plain(value, plain):
    assert _plain(value) == plain
    assert type(_plain(value)) is type(plain)


# --- answers that no virtual device gives ----------------------------------------------------------------------------


class Scripted(SnmpSession):
    """A session whose agent is a function of the request."""

    def __init__(self, settings, agent):
        super().__init__("rack", settings, None)
        self.agent = agent
        self.asked = []

    async def _ask(self, command, wanted, outlet, numbers=()):
        oids = [oid for oid, _, _ in wanted]
        self.asked.append(oids)
        return self.agent(oids)


def scripted(agent, **changes):
    return Scripted(SnmpSettings(driver="snmp", host="pdu", community_env="X", **changes), agent)


def bound(oids):
    return _Reply(0, "", 0, [(oid, int(oid.rpartition(".")[2])) for oid in oids])


OIDS = [f"1.3.6.1.4.1.99.{n}" for n in range(1, 31)]


async def test_too_big_is_asked_in_parts_and_remembered():
    session = scripted(lambda oids: bound(oids) if len(oids) <= 5 else _Reply(1, "tooBig", 0, []))
    assert await session.get(*OIDS) == list(range(1, 31))
    first = len(session.asked)
    assert await session.get(*OIDS) == list(range(1, 31))
    assert max(map(len, session.asked[first:])) <= 6 < MAX_BINDINGS
    alone = scripted(lambda _: _Reply(1, "tooBig", 0, []))
    with pytest.raises(RefusedError, match="tooBig"):
        await alone.get("1.3.6.1")


@pytest.mark.parametrize("says_which", [True, False])
async def test_version_1_says_no_such_name_for_all_and_the_others_are_still_read(says_which):
    gone = {OIDS[3], OIDS[17]}

    def agent(oids):
        missing = next((at for at, oid in enumerate(oids, 1) if oid in gone), 0)
        return _Reply(2, "noSuchName", missing if says_which else 0, []) if missing else bound(oids)

    session = scripted(agent, version="1")
    found = await session.get_each(OIDS)
    assert {oid for oid, value in found.items() if value is None} == gone
    assert len(found) == 30


async def test_one_object_that_fails_leaves_the_others_readable():
    session = scripted(lambda oids: _Reply(5, "genErr", 0, []) if OIDS[7] in oids else bound(oids))
    found = await session.get_each(OIDS)
    assert [oid for oid, value in found.items() if isinstance(value, RefusedError)] == [OIDS[7]]
    with pytest.raises(RefusedError, match="genErr"):
        await session.get(OIDS[7])


@pytest.mark.parametrize(
    "answer",
    [
        [],
        [("1.3.6.1.4.1.99.2", 1)],
        [("1.3.6.1.4.1.99.1", 1), ("1.3.6.1.4.1.99.2", 1)],
    ],
)
async def test_answers_that_do_not_fit_the_question(answer):
    session = scripted(lambda _: _Reply(0, "", 0, answer))
    with pytest.raises(RefusedError, match="cannot be used"):
        await session.get(OIDS[0])


async def test_a_walk_in_circles_ends():
    session = scripted(lambda _: _Reply(0, "", 0, [(OIDS[0], 1)]))
    with pytest.raises(RefusedError, match="asked for what follows"):
        await session.walk("1.3.6.1.4.1.99", 100)
    with pytest.raises(RefusedError, match="asked for what follows"):
        await session.get_next(OIDS[0])
