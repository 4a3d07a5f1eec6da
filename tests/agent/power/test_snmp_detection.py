"""Which family a device is of, and recordings of real devices read with its numbers."""

import json
import re
from pathlib import Path

import pytest

from agent.power.drivers.snmp_detection import Identity, last_resorts, suspects
from agent.power.drivers.snmp_family_files import families
from agent.power.drivers.snmp_oid_template import arcs, dotted

RECORDINGS = Path(__file__).parents[4] / "shared" / "recordings"
E = "1.3.6.1.4.1."


@pytest.mark.parametrize(
    ("object_id", "descr", "names"),
    [
        ("318.1.3.4.6", "", ["apc-rpdu2", "apc-rpdu", "apc-spdu"]),
        ("318.1.3.4.8", "", ["apc-rpdu2", "apc-rpdu", "apc-spdu"]),
        ("318.1.3.4.4", "", ["apc-masterswitch-plus", "apc-rpdu2", "apc-rpdu", "apc-spdu"]),
        ("318.1.3.4.9", "", ["apc-epdu", "apc-rpdu2", "apc-rpdu", "apc-spdu"]),
        ("534.6.6.7", "", ["eaton-g3"]),
        ("534.6.6.6", "", ["eaton-revelation"]),
        ("534.6.6.77", "", []),
        ("21239.42.1.55", "", ["vertiv-v5"]),
        ("21239.2", "", ["geist-v3"]),
        ("850.1.1.1", "", ["tripplite-padm", "tripplite-snmpwebcard"]),
        ("28507.58", "", ["gude-epc8226"]),
        ("28507.6", "", ["gude-epc2x6"]),
        ("8072.3.2.10", "Linux ibootpdu 4.4.9 #6 SMP", ["iboot-pdu"]),
        ("8072.3.2.10", "Linux raspberrypi", []),
        ("", "ibootpdu", ["iboot-pdu"]),
        ("3955.1000.3.18.2", "switch", []),
    ],
)
def test_what_a_device_says_of_itself(object_id, descr, names):
    found = suspects(Identity(E + object_id if object_id else "", descr), families().values())
    assert [one.family.name for one in found] == names
    for one in found:
        assert one.why == (
            f"sysObjectID {E}{object_id}" if "8072" not in object_id and object_id else f"sysDescr {descr!r}"
        )


def test_standards_are_the_first_resort_of_unknown_devices():
    assert last_resorts(families().values(), [])[0].name == "poe-rfc3621"
    assert str(Identity("1.3.6", "A\r\n  B")) == "sysObjectID 1.3.6, sysDescr 'A\\r\\n  B'"
    assert Identity.of(None, b"A\r\n  B") == Identity("", "A B")
    assert str(Identity()) == "neither sysObjectID nor sysDescr"


# --- recordings of real devices --------------------------------------------------------------------------------------

THEIR_NAMES = {"eaton-epdu": "eaton-g3", "liebert": "liebert-mph", "poe-mib": "poe-rfc3621"}
THEIR_STATES = {"enabled": "on", "disabled": "off"}
KNOWN = (
    json.loads((RECORDINGS / "ground_truth.json").read_text()) if (RECORDINGS / "ground_truth.json").exists() else {}
)
TABLES = [(file, name) for file in KNOWN for name in KNOWN[file]["families"]]


def names_of(family):
    return [recording.partition(":")[0] for recording in family.recordings]


def recorded(file):
    """OID -> value, as the session would hand it over."""
    values = {}
    for line in (RECORDINGS / file).read_text(errors="replace").splitlines():
        oid, tag, value = line.split("|", 2)
        kind, _, module = tag.partition(":")
        if module:
            value = re.sub(r"^(?:.*,)?(?:initial|value)=([^,]*).*$", r"\1", value)
        if kind in {"4", "4x"}:
            values[oid] = bytes.fromhex(value) if kind == "4x" else value.encode()
        elif kind in {"2", "65", "66", "67", "70"}:
            values[oid] = int(value)
        elif kind == "6":
            values[oid] = value
    return values


@pytest.mark.parametrize(("file", "name"), TABLES)
def test_families_read_recordings_as_is_known_of_them(file, name):
    values, family = recorded(file), families()[THEIR_NAMES.get(name, name)]
    assert file.removesuffix(".snmprec") in names_of(family)
    for outlet in KNOWN[file]["families"][name]["outlets"]:
        index = arcs(outlet["index"])
        index = (index[0] + 1,) if name == "iboot-pdu" else index
        assert family.index.index(dotted(index)) == index
        if "state" in outlet:
            value = values[family.state.column.at(index)]
            assert value == int(outlet["raw_state"])
            assert family.state.power(value, index).value == THEIR_STATES.get(outlet["state"], outlet["state"])
        if "name" in outlet:
            assert values.get(family.label.at(index), b"").decode().rstrip() == outlet["name"].rstrip()
        if "watts" in outlet:
            assert family.watts.watts(values[family.watts.column.at(index)]) == outlet["watts"]


def test_recordings_were_looked_at_where_they_are():
    assert bool(TABLES) == RECORDINGS.exists()
    named = {name for family in families().values() for name in names_of(family)}
    assert not RECORDINGS.exists() or {f"{name}.snmprec" for name in named} <= set(KNOWN)


def test_detection_knows_what_the_recorded_devices_are():
    picked = {}
    for file in KNOWN:
        values = recorded(file)
        identity = Identity.of(values["1.3.6.1.2.1.1.2.0"], values["1.3.6.1.2.1.1.1.0"])
        picked[file] = [one.family.name for one in suspects(identity, families().values())]
    expected = {
        "apc_ap7900b.snmprec": ["apc-rpdu2", "apc-rpdu", "apc-spdu"],
        "apc-8932.snmprec": ["apc-rpdu2", "apc-rpdu", "apc-spdu"],
        "eatonpdu_2.snmprec": ["eaton-g3"],
        "iboot_pdu8-2n15.snmprec": ["iboot-pdu"],
        "liebert_mph2rg.snmprec": ["liebert-mph"],
        "raritan-pdu_px2.snmprec": ["raritan-px2"],
        "sentry4_switched8i.snmprec": ["sentry4"],
        "vertiv-pdu_mg02e4w1.snmprec": ["vertiv-v5"],
        "cyberpower.snmprec": ["cyberpower-epdu2", "cyberpower-epdu"],
        "linksys-ss_lgs318p.snmprec": [],
    }
    assert picked == {file: expected[file] for file in KNOWN}
