"""Every model of a virtual PDU switched by snmpset and read by snmpget of net-snmp, by the vendors' numbers.

The numbers stand here a third time (facts, model, test) on purpose: this is what a person types at a real device.
"""

import asyncio
import re
from dataclasses import dataclass

import pytest

from virtual_lab.pdu_models import MODELS
from virtual_lab.snmp_pdu import PduSettings, VirtualPdu
from virtual_lab.snmp_pdu_engine import V3User

E = ".1.3.6.1.4.1"
USER = V3User("simu", "sha256", "authpass123", "aes", "privpass123")
V3 = ["-v3", "-l", "authPriv", "-u", "simu", "-a", "SHA-256", "-A", "authpass123", "-x", "AES", "-X", "privpass123"]


@dataclass(frozen=True)
class Wanted:
    """Outlet 2 of eight: its objects, and what they read and take. Watts are those of an outlet that draws 12 W."""

    state: str
    read: tuple[str, str]
    on: tuple[str, str, str]
    off: tuple[str, str, str]
    watts: tuple[str, str] | None = None
    name: str | None = None
    count: str | None = None


def one(column, kind, on, off):
    """The on and off of a device with a single control column."""
    return {"on": (column, kind, on), "off": (column, kind, off)}


G3, HPE, RPDU, RPDU2 = f"{E}.534.6.6.7", f"{E}.232.165", f"{E}.318.1.1.12", f"{E}.318.1.1.26"
POE = ".1.3.6.1.2.1.105.1"
PX2, S3, S4 = f"{E}.13742.6", f"{E}.1718.3.2.3.1", f"{E}.1718.4.1.8"
CYBER, GEIST, AVOCENT = f"{E}.3808.1.1", f"{E}.21239", f"{E}.10418.17.2.5"
MPH, ATEN, TRIPP = f"{E}.476.1.42.3.8.50.20.1", f"{E}.21317.1.3.2.2.2.2", f"{E}.850.1.1.3.2"


def poe(**more):
    return Wanted(f"{POE}.1.1.6.1.2", ("3", "1"), **one(f"{POE}.1.1.3.1.2", "i", "1", "2"),
                  name=".1.3.6.1.2.1.31.1.1.1.18.2", **more)  # fmt: skip


def nlogic(root):
    return Wanted(f"{root}.5.2.1.1.1.2", ("2", "1"), **one(f"{root}.5.2.1.10.1.2", "i", "2", "1"),
                  watts=(f"{root}.5.1.1.13.1.2", "12"), name=f"{root}.5.1.1.2.1.2",
                  count=f"{root}.1.2.1.13.1")  # fmt: skip


WANTED = {
    "apc-spdu": Wanted(
        f"{E}.318.1.1.4.4.2.1.3.2", ("1", "2"), **one(f"{E}.318.1.1.4.4.2.1.3.2", "i", "1", "2"),
        name=f"{E}.318.1.1.4.4.2.1.4.2", count=f"{E}.318.1.1.4.4.1.0"),
    "apc-masterswitch-plus": Wanted(
        f"{E}.318.1.1.6.7.1.1.5.1.1.2", ("1", "2"), **one(f"{E}.318.1.1.6.5.1.1.5.1.1.2", "i", "1", "3"),
        name=f"{E}.318.1.1.6.7.1.1.4.1.1.2"),
    "apc-rpdu": Wanted(
        f"{RPDU}.3.5.1.1.4.2", ("1", "2"), **one(f"{RPDU}.3.3.1.1.4.2", "i", "1", "2"),
        name=f"{RPDU}.3.5.1.1.2.2", count=f"{RPDU}.1.8.0"),
    "apc-rpdu2": Wanted(
        f"{RPDU2}.9.2.3.1.5.2", ("2", "1"), **one(f"{RPDU2}.9.2.4.1.5.2", "i", "1", "2"),
        watts=(f"{RPDU2}.9.4.3.1.7.2", "12"), name=f"{RPDU2}.9.2.3.1.3.2", count=f"{RPDU2}.4.2.1.5.1"),
    "apc-epdu": Wanted(
        f"{E}.318.1.1.30.6.1.1.4.2", ("2", "1"), **one(f"{E}.318.1.1.30.6.2.1.4.2", "i", "1", "2"),
        name=f"{E}.318.1.1.30.6.2.1.2.2", count=f"{E}.318.1.1.30.5.0"),
    "raritan-px1": Wanted(
        f"{E}.13742.4.1.2.2.1.3.2", ("1", "0"), **one(f"{E}.13742.4.1.2.2.1.3.2", "i", "1", "0"),
        watts=(f"{E}.13742.4.1.2.2.1.7.2", "12"), name=f"{E}.13742.4.1.2.2.1.2.2", count=f"{E}.13742.4.1.2.1.0"),
    "raritan-px2": Wanted(
        f"{PX2}.4.1.2.1.3.1.2", ("7", "8"), **one(f"{PX2}.4.1.2.1.2.1.2", "i", "1", "0"),
        watts=(f"{PX2}.5.4.3.1.4.1.2.5", "120"), name=f"{PX2}.3.5.3.1.3.1.2", count=f"{PX2}.3.2.2.1.4.1"),
    "eaton-g3": Wanted(
        f"{G3}.6.6.1.2.0.2", ("1", "0"), on=(f"{G3}.6.6.1.4.0.2", "i", "0"), off=(f"{G3}.6.6.1.3.0.2", "i", "0"),
        watts=(f"{G3}.6.5.1.3.0.2", "12"), name=f"{G3}.6.1.1.3.0.2", count=f"{G3}.1.2.1.22.0"),
    "eaton-revelation": Wanted(
        f"{E}.534.6.6.6.1.2.2.1.3.1", ("1", "0"), **one(f"{E}.534.6.6.6.1.2.2.1.3.1", "i", "1", "0"),
        watts=(f"{E}.534.6.6.6.1.2.2.1.7.1", "12"), name=f"{E}.534.6.6.6.1.2.2.1.2.1",
        count=f"{E}.534.6.6.6.1.2.1.0"),
    "eaton-pulizzi": Wanted(
        f"{E}.20677.2.6.3.2.0", ("1", "2"), **one(f"{E}.20677.2.6.2.3.0", "i", "1", "2"),
        name=f"{E}.20677.2.6.1.2.1.0"),
    "eaton-nlogic": nlogic(f"{E}.534.7.1"),
    "panduit-g5": nlogic(f"{E}.19536.10.1"),
    "enlogic": Wanted(
        f"{E}.38446.1.5.4.1.4.1.2", ("1", "0"), **one(f"{E}.38446.1.5.5.1.4.1.2", "i", "2", "1"),
        name=f"{E}.38446.1.5.4.1.3.1.2", count=f"{E}.38446.1.5.1.0"),
    "hpe-g2": Wanted(
        f"{HPE}.7.5.2.1.1.0.2", ("2", "1"), on=(f"{HPE}.7.5.2.1.3.0.2", "i", "0"),
        off=(f"{HPE}.7.5.2.1.2.0.2", "i", "0"),
        watts=(f"{HPE}.7.5.1.1.14.0.2", "12"), name=f"{HPE}.7.5.1.1.2.0.2", count=f"{HPE}.7.1.2.1.12.0"),
    "hpe-g3": Wanted(
        f"{HPE}.11.5.2.1.1.1.2", ("2", "1"), on=(f"{HPE}.11.5.2.1.3.1.2", "i", "0"),
        off=(f"{HPE}.11.5.2.1.2.1.2", "i", "0"), watts=(f"{HPE}.11.5.1.1.13.1.2", "12"),
        name=f"{HPE}.11.5.1.1.2.1.2", count=f"{HPE}.11.1.2.1.13.1"),
    "sentry3": Wanted(
        f"{S3}.5.1.1.2", ("1", "0"), **one(f"{S3}.11.1.1.2", "i", "1", "2"), watts=(f"{S3}.14.1.1.2", "12"),
        name=f"{S3}.3.1.1.2", count=f"{E}.1718.3.2.2.1.9.1.1"),
    "sentry4": Wanted(
        f"{S4}.3.1.1.1.1.2", ("1", "2"), **one(f"{S4}.5.1.2.1.1.2", "i", "1", "2"), watts=(f"{S4}.3.1.7.1.1.2", "12"),
        name=f"{S4}.2.1.3.1.1.2"),
    "cyberpower-epdu": Wanted(
        f"{CYBER}.3.3.5.1.1.4.2", ("1", "2"), **one(f"{CYBER}.3.3.3.1.1.4.2", "i", "1", "2"),
        watts=(f"{CYBER}.3.3.5.1.1.8.2", "12"), name=f"{CYBER}.3.3.5.1.1.2.2", count=f"{CYBER}.3.1.8.0"),
    "cyberpower-epdu2": Wanted(
        f"{CYBER}.6.6.1.4.1.5.2", ("1", "2"), **one(f"{CYBER}.6.6.1.5.1.5.2", "i", "1", "2"),
        watts=(f"{CYBER}.6.6.2.4.1.7.2", "12"), name=f"{CYBER}.6.6.1.4.1.4.2"),
    "liebert-mph": Wanted(
        f"{MPH}.95.1.2.2", ("2", "1"), **one(f"{MPH}.100.1.2.2", "i", "1", "0"), watts=(f"{MPH}.65.1.2.2", "12"),
        name=f"{MPH}.10.1.2.2"),
    "vertiv-v5": Wanted(
        f"{GEIST}.5.2.3.5.1.4.2", ("1", "2"), **one(f"{GEIST}.5.2.3.5.1.6.2", "i", "2", "4"),
        watts=(f"{GEIST}.5.2.3.6.1.12.2", "12"), name=f"{GEIST}.5.2.3.5.1.3.2"),
    "geist-v3": Wanted(
        f"{GEIST}.2.16.1.3.2", ("1", "0"), **one(f"{GEIST}.2.16.1.3.2", "u", "1", "3"),
        watts=(f"{GEIST}.2.16.1.15.2", "12"), name=f"{GEIST}.2.16.1.2.2", count=f"{GEIST}.2.1.8.1.16.0"),
    "avocent-pm": Wanted(
        f"{AVOCENT}.5.1.5.1.1.2", ("2", "1"), **one(f"{AVOCENT}.5.1.6.1.1.2", "i", "2", "3"),
        watts=(f"{AVOCENT}.5.1.60.1.1.2", "120"), name=f"{AVOCENT}.5.1.4.1.1.2", count=f"{AVOCENT}.3.1.8.1.1"),
    "baytech": Wanted(
        f"{E}.4779.1.3.5.3.1.3.1.2", ("1", "0"), **one(f"{E}.4779.1.3.5.3.1.3.1.2", "i", "1", "0"),
        name=f"{E}.4779.1.3.5.3.1.4.1.2", count=f"{E}.4779.1.3.5.2.1.15.1"),
    "aten-pe": Wanted(
        f"{ATEN}.3.0", ("2", "1"), **one(f"{ATEN}.3.0", "i", "2", "1"), watts=(f"{ATEN}.1.1.4.2", "12.000"),
        name=f"{ATEN}.10.1.2.2"),
    "tripplite-padm": Wanted(
        f"{TRIPP}.3.3.1.1.4.1.2", ("2", "1"), **one(f"{TRIPP}.3.3.1.1.6.1.2", "i", "2", "1"),
        watts=(f"{TRIPP}.3.3.1.1.9.1.2", "12"), name=f"{TRIPP}.3.3.1.1.2.1.2", count=f"{TRIPP}.1.2.1.4.1"),
    "dell-rpdu": Wanted(
        f"{E}.674.10903.200.2.200.130.1.2.1.4.2", ("1", "2"),
        **one(f"{E}.674.10903.200.2.200.130.1.4.1.4.2", "i", "1", "2"),
        name=f"{E}.674.10903.200.2.200.130.1.2.1.3.2"),
    "iboot-pdu": Wanted(
        f"{E}.1418.6.5.1.6.1", ("1", "0"), **one(f"{E}.1418.6.5.1.5.1", "i", "1", "0"), name=f"{E}.1418.6.5.1.2.1",
        count=f"{E}.1418.6.1.6.0"),
    "digipower": Wanted(
        f"{E}.17420.1.2.9.1.13.0", ("0,1,0,0,0,0,0,0", "0,0,0,0,0,0,0,0"),
        **one(f"{E}.17420.1.2.9.1.13.0", "s", "0,1,0,0,0,0,0,0", "0,0,0,0,0,0,0,0"),
        name=f"{E}.17420.1.2.9.1.14.2.0"),
    "teltronix": Wanted(
        f"{E}.23620.1.2.2.1.4.2", ("2", "1"), **one(f"{E}.23620.1.2.2.1.4.2", "i", "2", "1")),
    "gude-epc": Wanted(
        f"{E}.28507.58.1.3.1.2.1.3.2", ("1", "0"), **one(f"{E}.28507.58.1.3.1.2.1.3.2", "i", "1", "0"),
        watts=(f"{E}.28507.58.1.5.5.2.1.4.2", "12"), name=f"{E}.28507.58.1.3.1.2.1.2.2",
        count=f"{E}.28507.58.1.3.1.1.0"),
    "netio": Wanted(
        f"{E}.47952.1.1.1.3.2.0", ("1", "0"), **one(f"{E}.47952.1.1.1.5.2.0", "i", "1", "0"),
        watts=(f"{E}.47952.1.1.1.25.2.0", "12"), name=f"{E}.47952.1.1.1.2.2.0"),
    "wti": Wanted(
        f"{E}.2634.3.100.200.1.3.2", ("1", "0"), **one(f"{E}.2634.3.100.200.1.4.2", "i", "5", "6"),
        watts=(f"{E}.2634.3.100.200.1.8.2", "12"), name=f"{E}.2634.3.100.200.1.5.2"),
    "ibm-ipdu": Wanted(
        f"{E}.2.6.223.8.2.2.1.11.2", ("1", "0"), **one(f"{E}.2.6.223.8.2.2.1.11.2", "i", "1", "0"),
        name=f"{E}.2.6.223.8.2.2.1.2.2"),
    "poe-rfc3621": poe(),
    "poe-cisco": poe(watts=(f"{E}.9.9.402.1.2.1.9.1.2", "12000")),
    "poe-hp": poe(watts=(f"{E}.11.2.14.11.1.9.1.1.1.8.1.2", "12000")),
    "tplink-poe": Wanted(
        f"{E}.11863.6.56.1.1.2.1.1.11.2", ("2", "0"), **one(f"{E}.11863.6.56.1.1.2.1.1.2.2", "i", "1", "0"),
        watts=(f"{E}.11863.6.56.1.1.2.1.1.7.2", "120")),
}  # fmt: skip


async def tool(program, pdu, words, credentials=("-v2c", "-c", "private")):
    """Run a tool of net-snmp; returns (exit code, what it said)."""
    process = await asyncio.create_subprocess_exec(
        program, *credentials, "-t", "20", "-r", "0", "-On", f"127.0.0.1:{pdu.port}", *words,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(60):
        said, _ = await process.communicate()
    return process.returncode, said.decode()


async def values(pdu, *oids, credentials=("-v2c", "-c", "public")):
    """What snmpget says of some instances, without the types."""
    code, said = await tool("snmpget", pdu, oids, credentials)
    assert code == 0, said
    found = [re.sub(r"^\S+ = (?:\w+: )?", "", line).strip('"') for line in said.splitlines()]
    assert len(found) == len(oids), said
    return found


async def set_it(pdu, words, credentials=("-v2c", "-c", "private")):
    code, said = await tool("snmpset", pdu, words, credentials)
    assert code == 0, said


def test_every_model_has_its_row():
    assert WANTED.keys() == MODELS.keys()


def test_a_model_that_is_none_is_named():
    with pytest.raises(ValueError, match="no model of a virtual PDU: eaton-g4; there are apc-epdu, "):
        VirtualPdu(PduSettings(model="eaton-g4"))


async def test_outlets_have_the_names_that_they_are_given():
    async with VirtualPdu(PduSettings(model="eaton-g3", names=("rack fan", ""), light=True)) as pdu:
        names = await values(pdu, *(f"{G3}.6.1.1.3.0.{outlet}" for outlet in (1, 2, 3)))
        assert names == ["rack fan", "", "Outlet 3"]


async def test_a_hundred_outlets_in_one_walk():
    async with VirtualPdu(PduSettings(model="eaton-g3", outlets=120, initially_on=True)) as pdu:
        _, said = await tool("snmpbulkwalk", pdu, [f"{G3}.6.6.1.2"])
        assert re.findall(r"\.0\.(\d+) = INTEGER: 1$", said, re.MULTILINE) == [str(n) for n in range(1, 121)]


@pytest.mark.parametrize("model", WANTED)
async def test_net_snmp_switches_and_reads_every_model(model):
    wanted = WANTED[model]
    others = dict.fromkeys("1345678", False)
    async with VirtualPdu(PduSettings(model=model)) as pdu:
        pdu.press("2", True)
        await set_it(pdu, wanted.off)
        assert pdu.on == others | {"2": False}
        assert await values(pdu, wanted.state) == [wanted.read[1]]
        await set_it(pdu, wanted.on)
        assert pdu.on == others | {"2": True}
        identity = "." + ".".join(map(str, MODELS[model].sys_object_id))
        asked = [(wanted.state, wanted.read[0]), (".1.3.6.1.2.1.1.2.0", identity)]
        asked += [(".1.3.6.1.2.1.1.1.0", MODELS[model].sys_descr), (wanted.name, "Outlet 2"), (wanted.count, "8")]
        asked = [(oid, text) for oid, text in (*asked, wanted.watts or (None, "")) if oid is not None]
        assert await values(pdu, *(oid for oid, _ in asked)) == [text for _, text in asked]


@pytest.mark.parametrize("model", ["apc-rpdu2", "eaton-g3", "sentry4", "digipower", "poe-rfc3621"])
@pytest.mark.parametrize("version", ["1", "3"])
async def test_models_over_v1_and_v3_with_privacy(model, version):
    wanted = WANTED[model]
    credentials = V3 if version == "3" else ["-v1", "-c", "private"]
    async with VirtualPdu(PduSettings(model=model, users=(USER,))) as pdu:
        await set_it(pdu, wanted.on, credentials)
        assert pdu.on["2"]
        assert await values(pdu, wanted.state, credentials=credentials) == [wanted.read[0]]


@pytest.mark.parametrize("model", WANTED)
async def test_walks_see_every_instance_in_order(model):
    async with VirtualPdu(PduSettings(model=model, outlets=3, light=True)) as pdu:
        _, said = await tool("snmpwalk", pdu, [".1"])
        seen = [tuple(map(int, oid.split(".")[1:])) for oid in re.findall(r"^(\.[\d.]+) = \w+: ", said, re.MULTILINE)]
        assert seen == sorted(set(seen))
        assert seen == pdu._tables._order


async def refusal(pdu, *words):
    code, said = await tool("snmpset", pdu, words)
    assert code != 0
    return re.search(r"Reason: (\w+)", said)[1]


@pytest.mark.parametrize("model", WANTED)
async def test_values_types_and_rows_that_cannot_be_are_refused(model):
    wanted = WANTED[model]
    control, kind, _ = wanted.on
    bad = {"i": "-7", "u": "77", "s": "2,x"}[kind]
    other = ("s", "on") if kind in "iu" else ("i", "1")
    row = control.rsplit(".", 1)[0] + ".99" if not control.endswith(".0") else control.removesuffix(".0") + ".99.0"
    async with VirtualPdu(PduSettings(model=model, light=True)) as pdu:
        assert await refusal(pdu, control, kind, bad) == "wrongValue"
        assert await refusal(pdu, control, *other) == "wrongType"
        assert await refusal(pdu, row, kind, "1") == "noCreation"
        assert pdu.edges == []


async def test_what_can_only_be_read_is_not_writable():
    async with VirtualPdu(PduSettings(model="sentry4", light=True)) as pdu:
        for words in ((".1.3.6.1.2.1.1.1.0", "s", "x"), (f"{S4}.3.1.1.1.1.2", "i", "1")):
            assert await refusal(pdu, *words) == "notWritable"


@pytest.mark.parametrize(
    ("model", "pending", "on", "off"),
    [
        ("eaton-g3", f"{G3}.6.6.1.2.0.2", "3", "2"),
        ("hpe-g2", f"{HPE}.7.5.2.1.1.0.2", "4", "3"),
        ("eaton-nlogic", f"{E}.534.7.1.5.2.1.1.1.2", "4", "3"),
        ("sentry4", f"{S4}.5.1.1.1.1.2", "8", "9"),
        ("sentry3", f"{S3}.5.1.1.2", "3", "2"),
        ("vertiv-v5", f"{GEIST}.5.2.3.5.1.4.2", "4", "3"),
        ("avocent-pm", f"{AVOCENT}.5.1.5.1.1.2", "7", "6"),
        ("iboot-pdu", f"{E}.1418.6.5.1.6.1", "4", "1"),
        ("apc-rpdu2", f"{RPDU2}.9.2.3.1.6.2", "1", "1"),
        ("aten-pe", f"{ATEN}.3.0", "3", "3"),
        ("poe-rfc3621", f"{POE}.1.1.6.1.2", "2", "1"),
    ],
)
async def test_what_is_under_way_reads_as_pending(model, pending, on, off):
    wanted = WANTED[model]
    async with VirtualPdu(PduSettings(model=model, delay_s=60)) as pdu:
        for order, before, reading in ((wanted.on, False, on), (wanted.off, True, off)):
            pdu.press("2", before)
            await set_it(pdu, order)
            assert pdu.on["2"] is before
            assert await values(pdu, pending) == [reading]


async def test_eaton_counts_seconds_down_and_minus_one_cancels():
    commands = f"{G3}.6.6.1"
    async with VirtualPdu(PduSettings(model="eaton-g3")) as pdu:
        await set_it(pdu, [f"{commands}.4.0.1", "i", "30"])
        waiting = await values(pdu, f"{commands}.2.0.1", f"{commands}.4.0.1", f"{commands}.3.0.1")
        assert waiting[0::2] == ["3", "-1"]
        assert 25 <= int(waiting[1]) <= 30
        await set_it(pdu, [f"{commands}.4.0.1", "i", "-1"])
        assert await values(pdu, f"{commands}.2.0.1", f"{commands}.4.0.1") == ["0", "-1"]
        assert not pdu.is_pending("1")


@pytest.mark.parametrize(
    ("model", "command"),
    [
        ("eaton-g3", [f"{G3}.6.6.1.5.0.2", "i", "0"]),
        ("apc-rpdu2", [f"{RPDU2}.9.2.4.1.5.2", "i", "3"]),
        ("geist-v3", [f"{GEIST}.2.16.1.3.2", "u", "5"]),
        ("sentry4", [f"{S4}.5.1.2.1.1.2", "i", "3"]),
    ],
)
async def test_the_device_reboots_an_outlet_by_itself(model, command):
    async with VirtualPdu(PduSettings(model=model, initially_on=True, reboot_off_s=0.05)) as pdu:
        await set_it(pdu, command)
        async with asyncio.timeout(60):
            while len(pdu.edges) < 2:  # noqa: ASYNC110 - a timer in the device
                await asyncio.sleep(0.01)
        assert pdu.edges == [("2", False), ("2", True)]


@pytest.mark.parametrize(
    ("model", "column"),
    [
        ("eaton-g3", f"{G3}.6.6.1.9.0.2"),
        ("raritan-px2", f"{PX2}.3.5.3.1.28.1.2"),
        ("hpe-g3", f"{HPE}.11.5.2.1.8.1.2"),
        ("eaton-nlogic", f"{E}.534.7.1.5.2.1.8.1.2"),
        ("tripplite-padm", f"{TRIPP}.3.3.1.1.5.1.2"),
    ],
)
async def test_an_outlet_that_is_not_switched_says_so_and_cannot_be_set(model, column):
    wanted = WANTED[model]
    async with VirtualPdu(PduSettings(model=model, unswitched=frozenset({"2"}), initially_on=True)) as pdu:
        assert await values(pdu, column, wanted.state) == ["2", wanted.read[0]]
        assert await refusal(pdu, *wanted.off) == "notWritable"
        assert pdu.on["2"]


async def test_aten_counts_its_scalars_past_the_names_and_says_which_are_not_there():
    async with VirtualPdu(PduSettings(model="aten-pe", outlets=10)) as pdu:
        await set_it(pdu, [f"{ATEN}.11.0", "i", "2"])
        assert pdu.on["9"]
        assert await values(pdu, f"{ATEN}.12.0", f"{ATEN}.13.0", f"{ATEN}.44.0") == ["1", "7", "7"]
        assert await refusal(pdu, f"{ATEN}.13.0", "i", "2") == "notWritable"


async def test_digipower_switches_several_outlets_with_one_string():
    states = f"{E}.17420.1.2.9.1.13.0"
    async with VirtualPdu(PduSettings(model="digipower", outlets=4, missing=frozenset({"4"}))) as pdu:
        assert await values(pdu, states) == ["0,0,0,-1"]
        await set_it(pdu, [states, "s", "1,0,1,-1"])
        assert pdu.edges == [("1", True), ("3", True)]
        assert await values(pdu, states) == ["1,0,1,-1"]
        assert await refusal(pdu, states, "s", "1,0") == "wrongValue"


async def test_a_poe_port_with_nothing_attached_keeps_searching():
    async with VirtualPdu(PduSettings(model="poe-cisco", idle=frozenset({"2"}))) as pdu:
        for port in ("1", "2"):
            await set_it(pdu, [f"{POE}.1.1.3.1.{port}", "i", "1"])
        read = await values(pdu, f"{POE}.1.1.6.1.1", f"{POE}.1.1.6.1.2", f"{E}.9.9.402.1.2.1.9.1.2", f"{POE}.3.1.1.4.1")
        assert read == ["3", "2", "0", "12"]


async def test_a_set_of_several_bindings_is_all_or_nothing():
    control = f"{G3}.6.6.1.4.0"
    async with VirtualPdu(PduSettings(model="eaton-g3")) as pdu:
        code, said = await tool("snmpset", pdu, [f"{control}.1", "i", "0", f"{control}.2", "i", "-9"])
        assert code != 0
        assert "wrongValue" in said
        assert f"Failed object: {control}.2" in said
        assert pdu.edges == []
        await set_it(pdu, [f"{control}.1", "i", "0", f"{control}.2", "i", "0"])
        assert pdu.edges == [("1", True), ("2", True)]
