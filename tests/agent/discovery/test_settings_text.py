"""Additions to settings: what a person wrote stays, and what is read is what was added."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.discovery.findings import Candidate, MqttServer, SerialLine, outlets_text, stem_of
from agent.discovery.known import known_devices
from agent.discovery.settings_text import Additions, inserted, missing, named, new_file
from agent.discovery.toml_places import CannotInsertError, value_text
from agent.settings import load as load_agent
from broker.settings import read_settings as load_broker


def plug(topic="attic", stem="attic", about="Tasmota device", **changes):
    keys = {"driver": "tasmota", "topic": topic}
    return Candidate(stem, keys, about, identities=frozenset({f"tasmota:{topic}"}), **changes)


def is_there_in_order(old, new):
    """Whether `new` is `old` with text put between."""
    rest = iter(new)
    return all(char in rest for char in old)


# Pieces of settings as people write them, and as nobody should.
PIECES = st.sampled_from(
    [
        "# a remark\n",
        "\n",
        "   \n",
        '[controllers.rack]\ndriver = "snmp"  # the left one\nhost = "192.0.2.1"\n',
        "[controllers . 'odd name']\ndriver = \"tasmota\"\ntopic = 'x'\n",
        '[controllers.rack.oids]\nindex = 1\nnote = """\n[boards.not-one]\n[controllers.nor-this]\n"""\n',
        '[boards.one]\nfeed = ["rack:1"]  # [controllers.x]\n',
        '[boards.one.console]\ndevice = "/dev/ttyUSB0"\n',
        "[[hooks]]\nat = 'boot'\n",
        "[[hooks]]\nmatrix = [\n  [1, 2], # [controllers.y]\n]\nwhen = nan\n",
        '[agent]\nname = "a"\n',
        "[mqtt]\r\nurl = 'mqtt://h'\r\n",
        "[controllers]\n",
        "[extra]\ncontrollers = { a = 1 }\nat = 1979-05-27T07:32:00Z\n[last]",
        'controllers.top.driver = "qmp"\n',
        "controllers = { inline = { driver = 'qmp' } }\n",
        '"quoted" = "\u2028 line separator"\n',
    ]
)
VALID = st.lists(PIECES, max_size=8).map("".join)


def is_toml(text):
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


TEXTS = st.text(max_size=30)
CANDIDATES = st.lists(
    st.builds(plug, TEXTS, TEXTS.map(lambda text: stem_of(text, "plug")), TEXTS, hints=st.tuples(TEXTS)), max_size=4
)
LINES = st.lists(st.builds(SerialLine, TEXTS.map(lambda text: f"/dev/{text}"), TEXTS), max_size=3)


@given(VALID.filter(is_toml), CANDIDATES, LINES)
def test_what_a_person_wrote_stays_and_the_rest_is_what_was_added(text, candidates, lines):
    old = tomllib.loads(text)
    taken = old.get("controllers", {})
    additions = Additions(named(candidates, taken), lines)
    try:
        new = inserted(text, additions)
    except CannotInsertError:
        assert "controllers = {" in text, "only an inline table has no place for more"
        return
    assert is_there_in_order(text, new)
    for line in text.splitlines():
        assert line in new, "no line is broken"
    read = tomllib.loads(new)
    fresh = {name: {key: _readable(value) for key, value in one.keys.items()}
             for name, one in additions.controllers.items()}  # fmt: skip
    assert {name: read["controllers"][name] for name in fresh} == fresh
    rest = {name: table for name, table in read.get("controllers", {}).items() if name not in fresh}
    assert repr(rest) == repr(dict(taken)) or not taken
    assert {key for key in read if key != "controllers"} == {key for key in old if key != "controllers"}
    again = missing(additions, new, known_devices(read, lambda _: []))
    if all(_readable(value) == value for one in candidates for value in one.keys.values()):
        assert again.empty, "a second run adds nothing"
        assert inserted(new, again) == new


def _readable(value):
    """TOML has no word for half a surrogate pair."""
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@given(st.text())
def test_every_text_is_written_as_toml_reads_it(text):
    assert tomllib.loads(f"a = {value_text(text)}")["a"] == text


PERSONS = """\
# My farm.
[agent]
name = "attic"   # upstairs
state_dir = "state"

[controllers.rack]
driver = "tasmota"
topic = "rack"

# The boards begin here.
[boards.one]
feed = ["rack:1"]
"""


def test_a_new_controller_stands_behind_the_old_ones():
    new = inserted(PERSONS, Additions(named([plug(outlets=("1", "2"))], ())))
    added = (
        'topic = "rack"\n\n# Tasmota device\n# 2 outlets: 1, 2\n[controllers.attic]\ndriver = "tasmota"\n'
        'topic = "attic"\n\n# The boards begin here.\n'
    )
    assert added in new
    assert new.replace(added, 'topic = "rack"\n\n# The boards begin here.\n') == PERSONS


def test_names_that_are_taken_get_a_number():
    found = named([plug("a"), plug("b"), plug("c", unwritten="no")], {"attic"})
    assert list(found) == ["attic-2", "attic-3"]


def test_line_ends_are_those_of_the_file():
    new = inserted(PERSONS.replace("\n", "\r\n"), Additions(named([plug()], ()), [SerialLine("/dev/ttyUSB0", "x")]))
    assert "\n" not in new.replace("\r\n", "")


def test_a_remark_cannot_be_ended_by_a_device():
    new = inserted("", Additions(named([plug(about='x\n[controllers.evil]\ndriver="command"\r\x1b[2J')], ())))
    assert list(tomllib.loads(new)["controllers"]) == ["attic"]
    assert "\x1b" not in new


@pytest.mark.parametrize("text", ["controllers = 3\n", "controllers = {}\n", "[broken", "[[controllers]]\n"])
def test_what_has_no_place_is_refused(text):
    with pytest.raises(CannotInsertError):
        inserted(text, Additions(named([plug()], ())))


@pytest.mark.parametrize("server", [None, MqttServer("mqtt+srv://lab.example", "DNS")])
def test_a_new_file_is_taken_by_agent_and_broker(server, tmp_path):
    additions = Additions(named([plug()], ()), [SerialLine("/dev/serial/by-id/usb-FTDI", "ttyUSB0")])
    path = tmp_path / "boardhand.toml"
    path.write_text(new_file("attic", str(tmp_path / "state"), server, additions))
    settings = load_agent(path)
    assert list(settings.controllers) == ["attic"]
    assert settings.mqtt.url == (server.url if server else "mqtt://127.0.0.1:1883")
    assert load_broker(path).mqtt == settings.mqtt


def test_outlets_are_told_shortly():
    assert outlets_text(()) == ""
    assert outlets_text(("all",)) == "1 outlet: all"
    assert outlets_text(tuple(map(str, range(1, 25)))) == "24 outlets: 1, 2, …, 24"
