"""Families of SNMP devices: their own numbers, written here a second time, their templates and their files."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.power.drivers.snmp_family import IndexScheme, WrongTypeError
from agent.power.drivers.snmp_family_files import families, family_of_file, parse_family
from agent.power.drivers.snmp_family_table import FamilyError
from agent.power.drivers.snmp_oid_template import Column, OidTemplate, dotted
from agent.power.kinds.snmp import KIND, SnmpSettings
from wire.phases import Power

ON, OFF, UNKNOWN = Power.ON, Power.OFF, Power.UNKNOWN
E = "1.3.6.1.4.1."

# family: (outlet, its state OID, {answer: state}, (OID, value) for on, for off, (watts OID, answer, watts) or None)
NUMBERS = {
    "apc-spdu": ("3", "318.1.1.4.4.2.1.3.3", {1: ON, 2: OFF, 4: UNKNOWN},
                 ("318.1.1.4.4.2.1.3.3", 1), ("318.1.1.4.4.2.1.3.3", 2), None),
    "apc-rpdu": ("3", "318.1.1.12.3.5.1.1.4.3", {1: ON, 2: OFF},
                 ("318.1.1.12.3.3.1.1.4.3", 1), ("318.1.1.12.3.3.1.1.4.3", 2), None),
    "apc-rpdu2": ("3", "318.1.1.26.9.2.3.1.5.3", {1: OFF, 2: ON},
                  ("318.1.1.26.9.2.4.1.5.3", 1), ("318.1.1.26.9.2.4.1.5.3", 2),
                  ("318.1.1.26.9.4.3.1.7.3", 12, 12.0)),
    "apc-masterswitch-plus": ("3", "318.1.1.6.7.1.1.5.1.1.3", {1: ON, 2: OFF, 3: UNKNOWN},
                              ("318.1.1.6.5.1.1.5.1.1.3", 1), ("318.1.1.6.5.1.1.5.1.1.3", 3), None),
    "apc-epdu": ("3", "318.1.1.30.6.1.1.4.3", {1: OFF, 2: ON, -1: UNKNOWN},
                 ("318.1.1.30.6.2.1.4.3", 1), ("318.1.1.30.6.2.1.4.3", 2), None),
    "raritan-px1": ("3", "13742.4.1.2.2.1.3.3", {-1: UNKNOWN, 0: OFF, 1: ON, 2: UNKNOWN},
                    ("13742.4.1.2.2.1.3.3", 1), ("13742.4.1.2.2.1.3.3", 0), ("13742.4.1.2.2.1.7.3", 60, 60.0)),
    "raritan-px2": ("3", "13742.6.4.1.2.1.3.1.3", {7: ON, 8: OFF, -1: UNKNOWN},
                    ("13742.6.4.1.2.1.2.1.3", 1), ("13742.6.4.1.2.1.2.1.3", 0),
                    ("13742.6.5.4.3.1.4.1.3.5", 60, 60.0)),
    "eaton-g3": ("3", "534.6.6.7.6.6.1.2.0.3", {0: OFF, 1: ON, 2: UNKNOWN, 3: UNKNOWN},
                 ("534.6.6.7.6.6.1.4.0.3", 0), ("534.6.6.7.6.6.1.3.0.3", 0), ("534.6.6.7.6.5.1.3.0.3", 80, 80.0)),
    "eaton-revelation": ("0", "534.6.6.6.1.2.2.1.3.0", {-1: UNKNOWN, 0: OFF, 1: ON, 2: UNKNOWN},
                         ("534.6.6.6.1.2.2.1.3.0", 1), ("534.6.6.6.1.2.2.1.3.0", 0), ("534.6.6.6.1.2.2.1.7.0", 5, 5.0)),
    "eaton-pulizzi": ("3", "20677.2.6.3.3.0", {1: ON, 2: OFF},
                      ("20677.2.6.2.4.0", 1), ("20677.2.6.2.4.0", 2), None),
    "eaton-nlogic": ("3", "534.7.1.5.2.1.1.1.3", {1: OFF, 2: ON, 3: UNKNOWN, 4: UNKNOWN},
                     ("534.7.1.5.2.1.10.1.3", 2), ("534.7.1.5.2.1.10.1.3", 1), ("534.7.1.5.1.1.13.1.3", 9, 9.0)),
    "panduit-g5": ("3", "19536.10.1.5.2.1.1.1.3", {1: OFF, 2: ON, 3: UNKNOWN, 4: UNKNOWN},
                   ("19536.10.1.5.2.1.10.1.3", 2), ("19536.10.1.5.2.1.10.1.3", 1), ("19536.10.1.5.1.1.13.1.3", 9, 9.0)),
    "enlogic": ("3", "38446.1.5.4.1.4.1.3", {0: OFF, 1: ON, 2: UNKNOWN},
                ("38446.1.5.5.1.4.1.3", 2), ("38446.1.5.5.1.4.1.3", 1), ("38446.1.5.9.1.6.1.3", 9, 9.0)),
    "hpe-g2": ("3", "232.165.7.5.2.1.1.1.3", {0: UNKNOWN, 1: OFF, 2: ON, 3: UNKNOWN, 4: UNKNOWN},
               ("232.165.7.5.2.1.3.1.3", 0), ("232.165.7.5.2.1.2.1.3", 0), ("232.165.7.5.1.1.14.1.3", 9, 9.0)),
    "hpe-g3": ("3", "232.165.11.5.2.1.1.1.3", {0: UNKNOWN, 1: OFF, 2: ON, 3: UNKNOWN, 4: UNKNOWN},
               ("232.165.11.5.2.1.3.1.3", 0), ("232.165.11.5.2.1.2.1.3", 0), ("232.165.11.5.1.1.13.1.3", 9, 9.0)),
    "sentry3": ("3", "1718.3.2.3.1.5.1.1.3", {0: OFF, 1: ON, 2: UNKNOWN, 3: UNKNOWN, 6: UNKNOWN},
                ("1718.3.2.3.1.11.1.1.3", 1), ("1718.3.2.3.1.11.1.1.3", 2), ("1718.3.2.3.1.14.1.1.3", -1, None)),
    "sentry4": ("3", "1718.4.1.8.3.1.1.1.1.3", {0: UNKNOWN, 1: ON, 2: OFF},
                ("1718.4.1.8.5.1.2.1.1.3", 1), ("1718.4.1.8.5.1.2.1.1.3", 2), ("1718.4.1.8.3.1.7.1.1.3", 7, 7.0)),
    "cyberpower-epdu": ("3", "3808.1.1.3.3.5.1.1.4.3", {1: ON, 2: OFF},
                        ("3808.1.1.3.3.3.1.1.4.3", 1), ("3808.1.1.3.3.3.1.1.4.3", 2),
                        ("3808.1.1.3.3.5.1.1.8.3", 7, 7.0)),
    "cyberpower-epdu2": ("3", "3808.1.1.6.6.1.4.1.5.3", {1: ON, 2: OFF},
                         ("3808.1.1.6.6.1.5.1.5.3", 1), ("3808.1.1.6.6.1.5.1.5.3", 2),
                         ("3808.1.1.6.6.2.4.1.7.3", 7, 7.0)),
    "liebert-mph": ("1.2.3", "476.1.42.3.8.50.20.1.95.1.2.3", {0: UNKNOWN, 1: OFF, 2: ON, 3: UNKNOWN},
                    ("476.1.42.3.8.50.20.1.100.1.2.3", 1), ("476.1.42.3.8.50.20.1.100.1.2.3", 0),
                    ("476.1.42.3.8.50.20.1.65.1.2.3", 40, 40.0)),
    "vertiv-v5": ("3", "21239.5.2.3.5.1.4.3", {1: ON, 2: OFF, 3: UNKNOWN, 4: UNKNOWN, 7: UNKNOWN},
                  ("21239.5.2.3.5.1.6.3", 2), ("21239.5.2.3.5.1.6.3", 4), ("21239.5.2.3.6.1.12.3", 7, 7.0)),
    "geist-v3": ("3", "21239.2.16.1.3.3", {0: OFF, 1: ON, 3: UNKNOWN},
                 ("21239.2.16.1.3.3", 1), ("21239.2.16.1.3.3", 3), ("21239.2.16.1.15.3", 7, 7.0)),
    "avocent-pm": ("3", "10418.17.2.5.5.1.5.1.1.3", {1: OFF, 2: ON, 3: OFF, 4: ON, 5: UNKNOWN, 12: UNKNOWN},
                   ("10418.17.2.5.5.1.6.1.1.3", 2), ("10418.17.2.5.5.1.6.1.1.3", 3),
                   ("10418.17.2.5.5.1.60.1.1.3", 123, 12.3)),
    "baytech": ("3", "4779.1.3.5.3.1.3.1.3", {0: OFF, 1: ON, 2: UNKNOWN, 3: ON, 4: OFF},
                ("4779.1.3.5.3.1.3.1.3", 1), ("4779.1.3.5.3.1.3.1.3", 0), None),
    "aten-pe": ("9", "21317.1.3.2.2.2.2.11.0", {1: OFF, 2: ON, 3: UNKNOWN, 7: None},
                ("21317.1.3.2.2.2.2.11.0", 2), ("21317.1.3.2.2.2.2.11.0", 1),
                ("21317.1.3.2.2.2.2.1.1.4.9", b"12.5", 12.5)),
    "tripplite-padm": ("3", "850.1.1.3.2.3.3.1.1.4.1.3", {0: UNKNOWN, 1: OFF, 2: ON},
                       ("850.1.1.3.2.3.3.1.1.6.1.3", 2), ("850.1.1.3.2.3.3.1.1.6.1.3", 1),
                       ("850.1.1.3.2.3.3.1.1.9.1.3", 7, 7.0)),
    "tripplite-snmpwebcard": ("3", "850.10.2.3.5.1.2.1.3", {1: OFF, 2: ON},
                              ("850.10.2.3.5.1.4.1.3", 2), ("850.10.2.3.5.1.4.1.3", 1), None),
    "dell-rpdu": ("3", "674.10903.200.2.200.130.1.2.1.4.3", {1: ON, 2: OFF, 3: UNKNOWN},
                  ("674.10903.200.2.200.130.1.4.1.4.3", 1), ("674.10903.200.2.200.130.1.4.1.4.3", 2), None),
    "iboot-pdu": ("3", "1418.6.5.1.6.2", {0: OFF, 1: ON, 2: UNKNOWN, 4: UNKNOWN},
                  ("1418.6.5.1.5.2", 1), ("1418.6.5.1.5.2", 0), None),
    "wti": ("3", "2634.3.100.200.1.3.3", {0: OFF, 1: ON},
            ("2634.3.100.200.1.4.3", 5), ("2634.3.100.200.1.4.3", 6), ("2634.3.100.200.1.8.3", 7, 7.0)),
    "ibm-ipdu": ("3", "2.6.223.8.2.2.1.11.3", {0: OFF, 1: ON},
                 ("2.6.223.8.2.2.1.11.3", 1), ("2.6.223.8.2.2.1.11.3", 0), None),
    "digipower": ("3", "17420.1.2.9.1.13.0", {b"1,1,0,1": OFF, b"0,0,1,0": ON, b"1,1,-2,1": UNKNOWN, b"1,1,-1": None},
                  ("17420.1.2.9.1.13.0", 1), ("17420.1.2.9.1.13.0", 0), None),
    "teltronix": ("3", "23620.1.2.2.1.4.3", {1: OFF, 2: ON},
                  ("23620.1.2.2.1.4.3", 2), ("23620.1.2.2.1.4.3", 1), None),
    "gude-epc1202": ("3", "28507.43.1.3.1.2.1.3.3", {0: OFF, 1: ON},
                     ("28507.43.1.3.1.2.1.3.3", 1), ("28507.43.1.3.1.2.1.3.3", 0), None),
    "gude-epc8226": ("3", "28507.58.1.3.1.2.1.3.3", {0: OFF, 1: ON},
                     ("28507.58.1.3.1.2.1.3.3", 1), ("28507.58.1.3.1.2.1.3.3", 0), ("28507.58.1.5.5.2.1.4.3", 7, 7.0)),
    "gude-epc8x": ("3", "28507.1.1.2.2.1.3.3", {0: OFF, 1: ON},
                   ("28507.1.1.2.2.1.3.3", 1), ("28507.1.1.2.2.1.3.3", 0), None),
    "netio": ("3", "47952.1.1.1.3.3", {0: OFF, 1: ON},
              ("47952.1.1.1.5.3", 1), ("47952.1.1.1.5.3", 0), ("47952.1.1.1.25.3", 0, None)),
    "poe-rfc3621": ("3", "1.3.6.1.2.1.105.1.1.1.3.1.3", {1: ON, 2: OFF},
                    ("1.3.6.1.2.1.105.1.1.1.3.1.3", 1), ("1.3.6.1.2.1.105.1.1.1.3.1.3", 2), None),
    "poe-cisco": ("3", "1.3.6.1.2.1.105.1.1.1.3.1.3", {1: ON, 2: OFF},
                  ("1.3.6.1.2.1.105.1.1.1.3.1.3", 1), ("1.3.6.1.2.1.105.1.1.1.3.1.3", 2),
                  ("9.9.402.1.2.1.9.1.3", 6300, 6.3)),
    "poe-hp": ("1.3", "1.3.6.1.2.1.105.1.1.1.3.1.3", {1: ON, 2: OFF},
               ("1.3.6.1.2.1.105.1.1.1.3.1.3", 1), ("1.3.6.1.2.1.105.1.1.1.3.1.3", 2),
               ("11.2.14.11.1.9.1.1.1.8.1.3", 6300, 6.3)),
    "tplink-poe": ("3", "11863.6.56.1.1.2.1.1.2.3", {0: OFF, 1: ON},
                   ("11863.6.56.1.1.2.1.1.2.3", 1), ("11863.6.56.1.1.2.1.1.2.3", 0),
                   ("11863.6.56.1.1.2.1.1.7.3", 63, 6.3)),
}  # fmt: skip
SAME_AS = {name: "gude-epc1202" for name in families() if families()[name].file == "gude-epc"} | {
    "gude-epc2x6": "gude-epc8x",
    "netio-an11": "netio",
}


def full(oid):
    return oid if oid.startswith("1.3.6.1.2.1.") else E + oid


@pytest.mark.parametrize("name", NUMBERS)
def test_each_family_by_its_own_numbers(name):
    outlet, state, answers, on, off, watts = NUMBERS[name]
    family = families()[name]
    index = family.index.index(outlet)
    assert family.state.column.at(index) == full(state)
    assert {answer: family.state.power(answer, index) for answer in answers} == answers
    assert family.state.power(None, index) is None
    control = family.control
    assert (control.on.at(index), control.on_value) == (full(on[0]), on[1])
    assert (control.off.at(index), control.off_value) == (full(off[0]), off[1])
    if watts is None:
        assert family.watts is None
    else:
        assert family.watts.column.at(index) == full(watts[0])
        assert family.watts.watts(watts[1]) == watts[2]
    for column in (family.state.column, control.on, control.off, family.label, family.watts and family.watts.column):
        if column is not None and column.templates[0].offset is not None:
            assert column.index_of(column.at(index)) == index


def test_no_family_is_without_its_numbers():
    assert {SAME_AS.get(name, name) for name in families()} == set(NUMBERS)
    assert {name for name, family in families().items() if not family.source or not family.vendor} == set()
    assert {family.control.kind for family in families().values()} == {"integer", "gauge", "string"}
    assert families()["geist-v3"].control.kind == "gauge"


READ_AND_WRITTEN_DIFFER = {
    # family: read on, read off, written on, written off, and what the written numbers would mean if they were read
    "apc-rpdu2": (2, 1, 1, 2),
    "liebert-mph": (2, 1, 1, 0),
    "vertiv-v5": (1, 2, 2, 4),
    "geist-v3": (1, 0, 1, 3),
    "apc-masterswitch-plus": (1, 2, 1, 3),
    "enlogic": (1, 0, 2, 1),
    "apc-epdu": (2, 1, 1, 2),
    "eaton-g3": (1, 0, 0, 0),
    "hpe-g2": (2, 1, 0, 0),
    "sentry3": (1, 0, 1, 2),
    "raritan-px2": (7, 8, 1, 0),
    "wti": (1, 0, 5, 6),
    "avocent-pm": (2, 1, 2, 3),
}


@pytest.mark.parametrize("name", READ_AND_WRITTEN_DIFFER)
def test_reading_and_writing_have_numbers_of_their_own(name):
    family, index = families()[name], (1, 1, 1)
    read_on, read_off, write_on, write_off = READ_AND_WRITTEN_DIFFER[name]
    assert family.state.power(read_on, index) is ON
    assert family.state.power(read_off, index) is OFF
    assert (family.control.on_value, family.control.off_value) == (write_on, write_off)


def test_atens_outlets_jump_after_the_eighth():
    column = families()["aten-pe"].state.column
    ends = [column.at((number,)).removeprefix(f"{E}21317.1.3.2.2.2.2.") for number in (1, 8, 9, 21)]
    assert ends == ["2.0", "9.0", "11.0", "23.0"]


@pytest.mark.parametrize("digits", [0, 1, 3])
def test_px2_says_itself_where_its_point_stands(digits):
    family = families()["raritan-px2"]
    assert family.watts.digits.at((1, 3)) == f"{E}13742.6.3.5.4.1.7.1.3.5"
    assert family.watts.watts(1234, digits) == 1234 / 10**digits
    assert family.watts.watts(1234, None) is None


@pytest.mark.parametrize("answer", [-1, 4294967295, -2000000, b"N/A", b"not-support", b"", None, b"nan"])
def test_what_is_not_measured_is_none(answer):
    assert families()["aten-pe"].watts.watts(answer) is None
    assert families()["eaton-g3"].watts.watts(answer) is None


def test_digipowers_string_is_changed_in_one_place():
    control = families()["digipower"].control
    assert control.relisted(b"1,0, 1,-1,-2", (2,), on=True) == "1,1,1,-1,-2"
    assert control.relisted(b"1,0,1,-1,-2", (3,), on=False) == "1,0,0,-1,-2"
    assert control.relisted(b"1,0,1,-1", (4,), on=True) is None
    assert control.relisted(b"1,0,1,-1", (5,), on=True) is None
    with pytest.raises(WrongTypeError):
        control.relisted(7, (1,), on=True)


@pytest.mark.parametrize(("name", "answer"), [("apc-rpdu2", b"on"), ("digipower", 1), ("digipower", b"1,x,1")])
def test_an_answer_of_another_type_is_no_state(name, answer):
    with pytest.raises(WrongTypeError):
        families()[name].state.power(answer, (2,))


# --- templates -------------------------------------------------------------------------------------------------------

ARC = st.integers(0, 2**32 - 1)
HEAD = st.lists(ARC, min_size=1, max_size=12).map(tuple)


@given(
    HEAD,
    st.integers(-3, 3),
    st.lists(ARC, max_size=3).map(tuple),
    st.lists(st.integers(3, 2**31), min_size=1, max_size=4),
)
def test_an_outlet_goes_into_a_template_and_comes_back(head, offset, tail, index):
    template = OidTemplate(head, offset, tail)
    assert OidTemplate.parse(str(template)) == template
    index = tuple(index)
    column = Column((template,))
    assert column.index_of(column.at(index)) == index
    assert column.holds(column.at(index), len(index))
    assert column.at(index).startswith(column.start + ".")


@given(st.integers(1, 300))
def test_ranges_come_back_too(number):
    column = families()["aten-pe"].state.column
    assert column.index_of(column.at((number,))) == (number,)


@given(st.sampled_from(sorted(families())), st.lists(st.integers(0, 500), min_size=1, max_size=4))
def test_an_outlets_name_and_its_index_are_one(name, parts):
    scheme = families()[name].index
    outlet = dotted(parts)
    try:
        index = scheme.index(outlet)
    except ValueError:
        return
    assert len(index) == scheme.parts
    assert scheme.index(scheme.outlet(index)) == index


@pytest.mark.parametrize("outlet", ["", "0", "-1", "03", "1.", ".1", "1..2", "x", "٣", "1 ", "1.2.3.4", "4294967296"])
def test_what_is_no_outlet_is_refused(outlet):
    for scheme in (IndexScheme(), IndexScheme(2, (1,)), IndexScheme(3)):
        with pytest.raises(ValueError, match="an outlet of this device is"):
            scheme.index(outlet)


def test_the_short_and_the_long_name():
    scheme = IndexScheme(3, (1, 1))
    assert scheme.index("3") == scheme.index("1.1.3") == (1, 1, 3)
    assert scheme.outlet((1, 1, 3)) == "3"
    assert scheme.outlet((2, 1, 3)) == "2.1.3"
    assert "1.1.3, or 3 for 1.1.3" in scheme.words


# --- files and settings ----------------------------------------------------------------------------------------------

GOOD = {
    "state": {"oid": "1.3.6.1.4.1.99.1.{outlet}", "on": 1, "off": [0]},
    "control": {"oid": "1.3.6.1.4.1.99.2.{outlet}", "on": 1, "off": 0},
}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"state": {}}, "oids: state.oid is missing"),
        ({"state": {"oid": "1.3.{outlet}", "on": 1}}, "oids: state.off is missing"),
        ({"state": {"oid": "1.3.{outlet}", "on": 1, "off": 1}}, "oids: state.on one value stands in two"),
        ({"state": {"oid": "1.3.{outlet}", "on": 1, "off": "off"}}, "oids: state.on values must be all numbers"),
        ({"state": {"oid": "1.3.{outlet}", "on": True, "off": 0}}, "oids: state.on"),
        ({"state": {"oid": "1.3.6", "on": 1, "off": 0}}, "oids: state.oid needs {outlet}"),
        ({"state": {"oid": "1.3.{outlet}.{outlet}", "on": 1, "off": 0}}, "oids: state.oid is wrong"),
        ({"state": {"oid": "1.3.{port}", "on": 1, "off": 0}}, "oids: state.oid is wrong"),
        ({"state": {"oid": [{"outlets": "9-1", "oid": "1.{outlet}"}], "on": 1, "off": 0}}, "end is before its start"),
        ({"state": {"oid": [{"oid": 7}], "on": 1, "off": 0}}, "oids: state.oid must be an OID, or a list"),
        ({"state": {"oid": "1.3.{outlet}", "on": 1, "off": 0, "onn": 1}}, "oids: state.onn is no such key"),
        ({"control": {"oid": "1.3.{outlet}", "on": 1, "off": 1}}, "oids: control.on is the same as off"),
        ({"control": {"on_oid": "1.3.{outlet}", "on": 1, "off": 1}}, "oids: control.off_oid is missing"),
        ({"control": {"oid": "1.3.{outlet}", "on": 1, "off": 0, "type": "bits"}}, "oids: control.type must be one of"),
        ({"control": {"oid": "1.3.{outlet}", "on": 1, "off": 0, "type": "string"}}, "oids: control.type is string"),
        ({"watts": {"oid": "1.3.{outlet}", "scale": 0}}, "oids: watts.scale"),
        ({"watts": {"oid": "1.3.{outlet}", "scale": "x"}}, "oids: watts.scale must be float"),
        ({"timing": {"min_off_s": -1}}, "oids: timing.min_off_s"),
        ({"timing": {"min_off": 1}}, "oids: timing.min_off is no such key"),
        ({"index": {"parts": 2, "prefix": "1.1"}}, "oids: index.prefix must have 1 parts"),
        ({"detect": {"descr": "("}}, "oids: detect.descr is no regular expression"),
        ({"detect": {"object_ids": ["x"]}}, "oids: detect.object_ids is wrong"),
        ({"stat": {}}, "oids: stat is no such key"),
        ({"state": 1}, "oids: state must be"),
    ],
)
def test_a_wrong_description_names_the_key(change, text):
    with pytest.raises(FamilyError, match=re.escape(text)):
        parse_family("custom", GOOD | change, "oids")
    with pytest.raises(ValueError, match=re.escape(text)):
        SnmpSettings(driver="snmp", host="pdu", community_env="X", family="custom", oids=GOOD | change)


def test_texts_may_be_states_and_commands():
    table = {
        "state": {"oid": "1.3.{outlet}", "on": ["on", "ON"], "off": "off"},
        "control": {"oid": "1.3.{outlet}", "on": "on", "off": "off"},
    }
    family = parse_family("custom", table, "oids")
    assert [family.state.power(said, (1,)) for said in (b"ON", b"off\0", b"?")] == [ON, OFF, UNKNOWN]
    assert (family.control.kind, family.control.on_value) == ("string", "on")
    with pytest.raises(WrongTypeError):
        family.state.power(1, (1,))


def test_a_users_file_is_read_and_its_errors_name_it(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(
        '[state]\noid = "1.3.{outlet}"\non = 1\noff = 0\n[control]\noid = "1.3.{outlet}"\non = 1\noff = 0\n'
    )
    assert family_of_file(file).name == "mine"
    for text, problem in (("[state", "is no TOML"), ("[state]", "state.oid is missing")):
        file.write_text(text)
        with pytest.raises(FamilyError, match=f"mine.toml: {problem}"):
            family_of_file(file)
    with pytest.raises(FamilyError, match=r"nowhere.toml: cannot be read"):
        family_of_file(tmp_path / "nowhere.toml")


def test_the_docs_have_one_line_for_each_file():
    lines = KIND.support()
    files = {family.file for family in families().values()}
    assert len(lines) == len(files) == len(list((Path(__file__).parents[3] / "agent/power/families").glob("*.toml")))
    assert all(line.source and line.discovery and line.device for line in lines)
    unseen = [line.device for line in lines if not line.verified_by.startswith("virtual device")]
    assert len(unseen) == 2
    assert all("gude-epc8x" in device or "snmpwebcard" in device for device in unseen)
    eaton = next(line for line in lines if "`eaton-g3`" in line.device)
    assert "recording eatonpdu_2 of a real device (all but commands)" in eaton.verified_by
    assert eaton.discovery == f"sysObjectID {E}534.6.6.7"
