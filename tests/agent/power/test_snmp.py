"""The SNMP driver against the virtual PDU, with net-snmp's own tools as the second opinion."""

import asyncio
import contextlib
import re
import socket

import pytest

from agent.power.controller_queue import ControllerQueue
from agent.power.driver_factory import DriverFactory
from agent.power.drivers.snmp_engine import EnginePool
from agent.power.drivers.snmp_family_files import families
from agent.power.errors import AuthenticationError, ConfigurationError, UnreachableError
from agent.power.journal import Journal, MemoryStore
from agent.power.kinds.snmp import SnmpSettings
from agent.power.service import Listeners, PowerService
from agent.power.settings import BoardFeed
from virtual_lab.snmp_pdu import PduSettings, VirtualPdu
from virtual_lab.snmp_pdu_engine import V3User
from wire.phases import ErrorKind, Power, PowerAction

USER = V3User("simu", "sha", "authpass123", "aes", "privpass123")
RPDU2_STATE, RPDU2_CONTROL = ".1.3.6.1.4.1.318.1.1.26.9.2.3.1.5", ".1.3.6.1.4.1.318.1.1.26.9.2.4.1.5"


@pytest.fixture
def secrets(tmp_path):
    for name, text in (
        ("private", "private\n"),
        ("public", "public"),
        ("wrong", "wrong"),
        ("auth", "authpass123"),
        ("priv", "privpass123"),
        ("bad", "authpass124"),
    ):
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
async def connect(secrets):
    """A queue with a driver, for a PDU; its settings may be changed."""
    factory, queues = DriverFactory(), []

    def make(pdu, *, port=None, **changes):
        base = {"driver": "snmp", "host": "127.0.0.1", "port": port or pdu.port, "timeout_s": 0.3, "retries": 1}
        if changes.get("version") != "3":
            base["community_file"] = secrets / "private"
        queue = ControllerQueue("rack", factory("rack", SnmpSettings(**(base | changes))))
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        await queue.close()


def v3(secrets, **changes):
    return {
        "version": "3", "user": "simu", "auth_protocol": "sha", "auth_key_file": secrets / "auth",
        "priv_protocol": "aes", "priv_key_file": secrets / "priv",
    } | changes  # fmt: skip


async def net_snmp(program, pdu, *arguments):
    """Run a net-snmp tool; returns (exit code, what it said)."""
    process = await asyncio.create_subprocess_exec(
        program, "-t", "2", "-r", "1", "-On", *arguments[:-1], f"127.0.0.1:{pdu.port}", *arguments[-1],
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def foreign_state(pdu, outlet):
    code, said = await net_snmp("snmpget", pdu, "-v2c", "-c", "public", [f"{RPDU2_STATE}.{outlet}"])
    assert code == 0, said
    return {"1": Power.OFF, "2": Power.ON}[re.search(r"INTEGER: (\d)", said)[1]]


@pytest.mark.parametrize("version", ["1", "2c", "3"])
async def test_our_driver_and_net_snmp_agree_both_ways(connect, secrets, version):
    async with VirtualPdu(PduSettings(users=(USER,))) as pdu:
        queue = connect(pdu, **(v3(secrets) if version == "3" else {"version": version}))
        for on in (True, False):
            await queue.set("3", on)
            assert await foreign_state(pdu, 3) is (Power.ON if on else Power.OFF)
            assert await queue.get("3") is await foreign_state(pdu, 3)
        code, said = await net_snmp("snmpset", pdu, "-v2c", "-c", "private", [f"{RPDU2_CONTROL}.3", "i", "1"])
        assert code == 0, said
        assert await queue.get("3") is Power.ON
        assert await queue.get("4") is Power.OFF


async def test_net_snmp_over_v3_reaches_the_virtual_pdu(connect):
    async with VirtualPdu(PduSettings(users=(USER,))) as pdu:
        credentials = ["-v3", "-l", "authPriv", "-u", "simu", "-a", "SHA", "-A", "authpass123", "-x", "AES", "-X"]
        for value, expected in ((1, Power.ON), (2, Power.OFF)):
            said = await net_snmp("snmpset", pdu, *credentials, "privpass123", [f"{RPDU2_CONTROL}.1", "i", str(value)])
            assert said[0] == 0, said
            assert await foreign_state(pdu, 1) is expected
        code, said = await net_snmp("snmpget", pdu, *credentials, "wrongpass12", [f"{RPDU2_STATE}.1"])
        assert code != 0


async def test_walks_of_all_kinds_see_the_same_tables():
    async with VirtualPdu() as pdu:
        walks = [
            await net_snmp(program, pdu, version, "-c", "public", [".1.3.6"])
            for program, version in (("snmpwalk", "-v1"), ("snmpwalk", "-v2c"), ("snmpbulkwalk", "-v2c"))
        ]
        numbered = [set(re.findall(r"^(\.[\d.]+) = \S+ \S+", said, re.MULTILINE)) for _, said in walks]
        assert numbered[0] == numbered[1] == numbered[2]
        assert len(numbered[0]) > 8 * 15


@pytest.mark.parametrize("family", ["apc-rpdu2", "apc-rpdu", "apc-spdu"])
async def test_every_family_is_detected_and_switched(connect, family):
    async with VirtualPdu(PduSettings(families=(family,))) as pdu:
        queue = connect(pdu)
        assert await queue.get("2") is Power.OFF
        await queue.set("2", True)
        assert pdu.on["2"]
        assert await queue.get("2") is Power.ON
        described = await queue.describe()
        assert [(item.outlet, item.name) for item in described] == [(str(n), f"Outlet {n}") for n in range(1, 9)]
        assert [item.power for item in described] == [Power.OFF, Power.ON] + [Power.OFF] * 6
        assert await queue.read("2") == (12.0 if family == "apc-rpdu2" else None)
        assert queue.driver._family is families()[family]
        with pytest.raises(ConfigurationError, match="it has 8"):
            await queue.get("99")
        with pytest.raises(ConfigurationError, match="no such outlet"):
            await queue.set("99", True)


async def test_the_newest_of_several_tables_is_chosen(connect):
    async with VirtualPdu() as pdu:
        queue = connect(pdu)
        await queue.get("1")
        assert queue.driver._family.name == "apc-rpdu2"


async def test_a_device_without_known_tables_is_a_matter_of_settings(connect):
    async with VirtualPdu(PduSettings(families=())) as pdu:
        with pytest.raises(ConfigurationError, match="no known family"):
            await connect(pdu).get("1")


async def test_deaf_refusing_and_lying_are_three_errors(secrets):
    """From the socket to the outcome, through the whole service."""
    async with (
        VirtualPdu(PduSettings(lying=frozenset({"2"}), refusing=frozenset({"3"}))) as pdu,
        _service(pdu, secrets, {"liar": "2", "refuser": "3", "deaf": "4", "fine": "5"}) as service,
    ):
        fine = await service.switch("fine", PowerAction.ON, operation_id="1")
        assert (fine.ok, fine.power) == (True, Power.ON)
        liar = await service.switch("liar", PowerAction.ON, operation_id="2")
        refuser = await service.switch("refuser", PowerAction.ON, operation_id="3")
        pdu.deaf = True
        deaf = await service.switch("deaf", PowerAction.ON, operation_id="4")
        assert [(o.ok, o.error.kind, o.power) for o in (liar, refuser, deaf)] == [
            (False, ErrorKind.NOT_VERIFIED, Power.OFF),
            (False, ErrorKind.REFUSED, Power.OFF),
            (False, ErrorKind.UNREACHABLE, Power.UNKNOWN),
        ]
        assert "genErr" in refuser.error.message
        assert "wrong community" in deaf.error.message
        assert [outlet for outlet, _ in pdu.sets].count("3") == 1, "a refusal is never repeated"
        pdu.deaf = False
        again = await service.switch("deaf", PowerAction.ON, operation_id="5")
        assert (again.ok, again.power) == (True, Power.ON)


@contextlib.asynccontextmanager
async def _service(pdu, secrets, outlets, **more):
    settings = SnmpSettings(
        driver="snmp", host="127.0.0.1", port=pdu.port, community_file=secrets / "private", timeout_s=0.3, retries=0
    )
    store = MemoryStore()
    service = PowerService(
        {"rack": settings},
        {
            board: BoardFeed(outlets=[f"rack:{outlet}"], verify_deadline_s=0.5, min_off_s=0.2, attempts=2)
            for board, outlet in outlets.items()
        },
        journal=Journal(store, "boot"), listeners=Listeners(lambda *_: None), poll_every_s=0, **more,
    )  # fmt: skip
    await service.start()
    try:
        yield service
    finally:
        await service.close()
        await store.close()


async def test_a_state_column_that_follows_late_is_waited_for(secrets):
    async with VirtualPdu(PduSettings(delay_s=0.25)) as pdu, _service(pdu, secrets, {"pi": "1"}) as service:
        outcome = await service.switch("pi", PowerAction.ON, operation_id="1")
        assert outcome.ok
        assert outcome.took_ms > 240
        assert pdu.sets == [("1", 1)]
        cycle = await service.switch("pi", PowerAction.CYCLE, operation_id="2")
        assert cycle.ok
        assert pdu.edges == [("1", True), ("1", False), ("1", True)]


async def test_wrong_credentials_are_told_apart_from_silence(connect, secrets):
    async with VirtualPdu(PduSettings(users=(USER,))) as pdu:
        with pytest.raises(AuthenticationError, match="noAccess"):
            await connect(pdu, community_file=secrets / "public").set("1", True)
        with pytest.raises(UnreachableError, match="wrong community"):
            await connect(pdu, community_file=secrets / "wrong").get("1")
        with pytest.raises(AuthenticationError, match=r"(?i)digest|authentic"):
            await connect(pdu, **v3(secrets, auth_key_file=secrets / "bad")).get("1")
        with pytest.raises(AuthenticationError, match=r"(?i)user"):
            await connect(pdu, **v3(secrets, user="nobody")).get("1")
        assert not pdu.edges


async def test_a_port_where_nobody_listens_and_a_name_that_does_not_resolve(connect):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(UnreachableError, match="no answer"):
            await connect(None, port=sock.getsockname()[1], retries=0).get("1")
    with pytest.raises(UnreachableError, match="cannot be resolved"):
        await connect(None, port=161, host="no-such-host.invalid").get("1")


async def test_secrets_that_are_missing_are_named_and_never_told(connect, secrets, monkeypatch):
    async with VirtualPdu() as pdu:
        with pytest.raises(ConfigurationError, match="nowhere"):
            await connect(pdu, community_file=secrets / "nowhere").get("1")
        with pytest.raises(ConfigurationError, match="BOARDHAND_TEST_COMMUNITY"):
            await connect(pdu, community_file=None, community_env="BOARDHAND_TEST_COMMUNITY").get("1")
        monkeypatch.setenv("BOARDHAND_TEST_COMMUNITY", "private")
        queue = connect(pdu, community_file=None, community_env="BOARDHAND_TEST_COMMUNITY")
        assert await queue.get("1") is Power.OFF
        assert "private" not in repr(queue.driver._session._credentials)


async def test_a_pdu_that_came_back_with_another_engine_id_is_found_again(connect, secrets):
    settings = PduSettings(users=(USER,))
    async with VirtualPdu(settings) as pdu:
        queue = connect(pdu, **v3(secrets))
        assert await queue.get("1") is Power.OFF
        port = pdu.port
    swapped = PduSettings(port=port, users=(USER,), engine_id="8000013e05736f6d656f6e65", initially_on=True)
    failures = 0
    async with VirtualPdu(swapped), asyncio.timeout(60):
        while True:
            try:
                assert await queue.get("1") is Power.ON
                break
            except UnreachableError:
                failures += 1
    assert 1 <= failures <= 4, "an engine that only times out is replaced soon"


async def test_engines_are_shared_per_credential_set(secrets):
    factory = DriverFactory()
    base = {"driver": "snmp", "host": "127.0.0.1", "timeout_s": 2, "retries": 0}
    async with (
        VirtualPdu(PduSettings(users=(USER,))) as one,
        VirtualPdu(
            PduSettings(engine_id="8000013e05736f6d656f6e65", users=(V3User("simu", "sha", "authpass124"),))
        ) as two,
    ):
        others = {"version": "3", "user": "simu", "auth_protocol": "sha", "auth_key_file": secrets / "bad"}
        drivers = [factory(str(n), SnmpSettings(**base, port=one.port, **v3(secrets))) for n in range(3)]
        drivers += [factory(str(n), SnmpSettings(**base, port=two.port, **others)) for n in range(3)]
        answers = await asyncio.gather(*(driver.get("1") for driver in drivers))
        assert answers == [Power.OFF] * 6
        pool = factory._context.share(EnginePool, EnginePool)
        assert [shared.users for shared in pool._engines.values()] == [3, 3]
        for driver in drivers:
            await driver.close()
        assert pool._engines == {}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "exactly one of community_file and community_env"),
        ({"community": "private"}, "community"),
        ({"version": "3"}, "needs user"),
        ({"version": "3", "user": "u", "auth_protocol": "sha"}, "auth_key_file"),
        ({"version": "3", "user": "u", "priv_protocol": "aes", "priv_key_env": "X"}, "needs auth_protocol"),
        ({"version": "3", "user": "u", "community_env": "X"}, "no community"),
        ({"community_env": "X", "user": "u"}, 'version = "3"'),
        ({"community_env": "X", "family": "apc-rpdu3"}, "near to it are apc-rpdu, apc-rpdu2"),
        ({"community_env": "X", "family": "zzz"}, "known are auto, custom, apc-epdu"),
        ({"community_env": "X", "family": "custom"}, "need each other"),
        ({"community_env": "X", "oids": {}}, "need each other"),
        ({"community_env": "X", "family": "custom", "oids": {}}, "oids: state is missing"),
        ({"community_env": "X", "family": "apc-rpdu", "family_file": "x.toml"}, "set one of them"),
        ({"community_env": "X", "family_file": "nowhere.toml"}, "nowhere.toml: cannot be read"),
    ],
)
def test_settings_that_cannot_be_say_why(changes, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        SnmpSettings(driver="snmp", host="pdu", **changes)
