"""The power cable's protocol, memory, settings and meters, without a board."""

import json
import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_tools.power_cable import settings as cable_settings
from firmware_tools.power_cable.cable import Cable, lit
from firmware_tools.power_cable.edge import Edge
from firmware_tools.power_cable.keeping import STEADY_MS, WRITE_GAP_MS, Flash, first_bits, kept_bits, kept_word
from firmware_tools.power_cable.lines import (
    CHARACTER,
    LINE,
    LINE_BYTES,
    LINE_TIMEOUT_MS,
    LineError,
    Receiver,
    checksum,
    request,
)
from firmware_tools.power_cable.meters import adc_watts, ina219_watts

TAGS = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8)
WORDS = st.lists(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="*@"), min_size=1))


class FakeEdge(Edge):
    """Four outlets; the last one's meter is broken."""

    unique_id = "0011223344556677"

    def __init__(self):
        self.on = [False] * 4
        self.kept = self.stored = 0
        self.restarts = []
        self.leds = {}

    def switch(self, number, on):
        self.on[number] = on

    def outlet_on(self, number):
        return self.on[number]

    def watts(self, number):
        if number == 3:
            raise OSError(5)
        return 2.5 if number == 1 else None

    def set_led(self, number, place, on):
        self.leds[number, place] = on

    def keep(self, word):
        self.kept = word

    def store(self, bits):
        self.stored = bits

    def restart(self, repl):
        self.restarts.append(repl)


def cable(table=None, bits=0):
    edge = FakeEdge()
    return Cable(cable_settings.checked(table or cable_settings.default()), edge, bits, None), edge


def test_a_checksum_of_the_books():
    assert checksum(b"123456789") == "29b1", "CRC-16/CCITT-FALSE of the catalogues"


@given(st.binary(max_size=400), st.lists(st.integers(1, 40)))
def test_how_bytes_are_cut_does_not_matter(data, cuts):
    whole, pieces = Receiver(), Receiver()
    found, rest = [], data
    for cut in cuts:
        found += pieces.feed(rest[:cut], 0)
        rest = rest[cut:]
    found += pieces.feed(rest, 0)
    assert found == whole.feed(data, 0)
    assert pieces.noise == whole.noise
    assert all(len(content) <= LINE_BYTES for _, content in found)


@given(st.binary(max_size=300))
def test_after_whatever_a_line_is_heard(noise):
    receiver = Receiver()
    receiver.feed(noise, 0)
    assert receiver.feed(b"\n@7 get\n", 5)[-1] == (LINE, b"7 get")


@given(st.binary(max_size=300))
def test_what_was_left_half_said_is_over_after_a_while(noise):
    receiver = Receiver()
    receiver.feed(noise, 0)
    assert receiver.feed(b"5", LINE_TIMEOUT_MS + 1) == [(CHARACTER, b"5")]


@given(TAGS, WORDS)
def test_a_request_with_a_checksum_comes_through(tag, words):
    content = " ".join((tag, *words)).encode()
    assert request(content + b"*" + checksum(content).encode()) == (tag, words, True)


@given(TAGS, WORDS, st.data())
def test_no_changed_bit_of_a_checked_request_is_obeyed(tag, words, data):
    content = " ".join((tag, *words)).encode()
    line = bytearray(content + b"*" + checksum(content).encode())
    place = data.draw(st.integers(0, len(line) * 8 - 1))
    line[place // 8] ^= 1 << place % 8
    try:
        found = request(bytes(line), must_be_checked=True)
    except LineError:
        return
    assert found == (tag, words, True), "a hexadecimal digit of the checksum has two forms"


@given(st.binary(max_size=600))
def test_noise_is_harmless_and_answers_are_lines(noise):
    one, edge = cable()
    said = one.take(noise, 0) + one.take(b"\n@z9 get\n", 1)
    one.tick(2)
    states = b" ".join(b"%d=%s" % (n + 1, b"on" if on else b"off") for n, on in enumerate(edge.on))
    assert said.endswith(b"@z9 ok " + states + b"\n")
    assert re.fullmatch(rb"[0-9a-f]*(?:@[0-9a-z-]+ (?:ok|error)[ -~]*\n[0-9a-f]*)*", said)
    assert edge.on[1:] == [False] * 3 or b" set " in noise


SAID = [
    (
        b"@1 id",
        b"@1 ok model=boardhand-cable firmware=1.0.0 protocol=1 id=0011223344556677 outlets=4 read=pin meters=0",
    ),
    (b"@2 get", b"@2 ok 1=off 2=off 3=off 4=off"),
    (b"@3 get 2", b"@3 ok 2=off"),
    (b"@4 set 2 on", b"@4 ok"),
    (b"@5 watts", b"@5 ok 1=- 2=2.500 3=- 4=-"),
    (b"@6 led 1 ready", b"@6 ok"),
    (b"@7 health", b"@7 ok up_s=3 cause=power lines=0 refused=0 noise=0 meter_faults=0"),
    (b"@8 restart", b"@8 ok"),
    (b"@9 repl", b"@9 ok"),
    (b"@a", b"@a error verb known are get health id led repl restart set watts"),
    (b"@b dance", b"@b error verb known are get health id led repl restart set watts"),
    (b"@c get 5", b"@c error outlet there are outlets 1 to 4"),
    (b"@d get 01", b"@d error outlet there are outlets 1 to 4"),
    (b"@e set 1", b"@e error value set OUTLET on, or set OUTLET off"),
    (b"@f set 1 maybe", b"@f error value set OUTLET on, or set OUTLET off"),
    (b"@g led 1 blue", b"@g error value led OUTLET, and dark, coming, ready or fault"),
    (b"@h id now", b"@h error value there is a word too many"),
    (b"@i get 1 2", b"@i error value there is a word too many"),
    (b"@", b"@- error line a line begins with @ and a tag of 1 to 8 of 0-9 a-z"),
    (b"@Tag get", b"@- error line a line begins with @ and a tag of 1 to 8 of 0-9 a-z"),
    (b"@1 g\xc3\xa9t", b"@- error line a line has printable ASCII alone"),
    (b"@1 get*0000", b"@- error checksum the line was changed on its way"),
    (b"@1 " + b"x" * LINE_BYTES, b"@- error line too long"),
]


@pytest.mark.parametrize(("line", "said"), SAID, ids=[row[0].decode("latin-1")[:20] for row in SAID])
def test_what_is_answered(line, said):
    one, edge = cable()
    assert one.take(line + b"\n", 3000) == said + b"\n"
    assert edge.on == [False, line == b"@4 set 2 on", False, False]
    assert edge.restarts == {b"@8 restart": [False], b"@9 repl": [True]}.get(line, [])


def test_an_answer_has_a_checksum_where_the_request_had_one():
    one, _ = cable()
    content = b"q1 get 1"
    said = one.take(b"@" + content + b"*" + checksum(content).encode() + b"\n", 0)
    assert said == b"@q1 ok 1=off*" + checksum(b"q1 ok 1=off").encode() + b"\n"


def test_a_cable_on_a_noisy_line_wants_checksums():
    one, edge = cable({**cable_settings.default(), "checksum": "required"})
    assert one.take(b"@1 set 1 on\n", 0) == b"@- error checksum this cable wants lines with a checksum\n"
    assert not edge.on[0]


def test_one_character():
    one, edge = cable()
    assert one.take(b"?", 0) == b"0"
    assert one.take(b"5?", 0) == b"5"
    assert edge.on == [True, False, False, False]
    assert one.take(b"E?", 0) == b"e"
    assert edge.on == [False] * 4
    assert one.take(b"1 \r\nxyz", 0) == b""
    assert edge.on[0]
    edge.on[0] = False  # the relay fell
    assert one.take(b"?", 0) == b"0", "what is, and not what was asked for"


def test_the_rest_of_a_line_whose_beginning_was_lost_switches_nothing():
    one, edge = cable()
    one.take(b"@1 get\n", 0)
    assert one.take(b"1 set 2 on\n", 100) == b""
    assert edge.on == [False] * 4
    one.take(b"1", 70_000)
    assert edge.on[0], "a minute later it is a command again"


def test_one_character_can_be_switched_off():
    one, edge = cable({**cable_settings.default(), "one_character": False})
    assert one.take(b"1?", 0) == b""
    assert not edge.on[0]


@pytest.mark.parametrize(("word", "shown"), [("dark", {0}), ("coming", {0, 1}), ("ready", {1}), ("fault", {0, 1})])
def test_a_single_led_shows_four_phases(word, shown):
    one, edge = cable()
    one.take(f"@1 led 2 {word}\n".encode(), 0)
    seen = []
    for now in range(0, 2000, 20):
        one.tick(now)
        seen.append(edge.leds[1, 0])
    assert {int(on) for on in seen} == shown
    changes = sum(one != other for one, other in pairwise(seen))
    assert changes == {"coming": 3, "fault": 19}.get(word, 0)
    assert lit(0b110, 100) is False, "a fault is louder than ready"


def test_three_leds():
    table = {"outlets": [{"pin": 2, "led": [3, 4, 5]}]}
    one, edge = cable(table)
    one.take(b"@1 led 1 coming\n", 0)
    assert edge.leds == {(0, 0): True, (0, 1): False, (0, 2): False}


# --- memory ----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 255))
def test_what_is_kept_is_read_again(bits):
    assert kept_bits(kept_word(bits)) == bits


@given(st.integers(0, 2**32 - 1))
def test_what_a_register_holds_by_chance_is_no_state(word):
    assert kept_bits(word) is None or word == kept_word(word & 0xFF)
    assert kept_bits(word ^ 1 << 3) is None or kept_bits(word) is None


@given(st.integers(0, 15), st.integers(0, 15))
def test_a_reset_keeps_and_power_begins_anew(bits, stored):
    wishes = ["off", "on", "last", "last"]
    assert first_bits(kept_word(bits), stored, wishes) == bits
    assert first_bits(0, stored, wishes) == 0b0010 | stored & 0b1100
    assert first_bits(0, None, wishes) == 0b0010


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30_000)), max_size=60))
def test_flash_is_written_seldom_and_in_the_end(steps):
    flash, now, wrote, bits = Flash(None), 0, [], 0
    for bits, wait in [*steps, *[(steps[-1][0] if steps else 0, 20_000)] * 5]:
        now += wait
        if flash.due(bits, now):
            flash.written(bits, now)
            wrote.append((now, bits))
    assert all(later - earlier >= WRITE_GAP_MS for (earlier, _), (later, _) in pairwise(wrote))
    assert wrote[-1][1] == bits
    assert wrote[0][0] >= STEADY_MS


# --- settings --------------------------------------------------------------------------------------------------------

BAD = [
    ([], "no JSON object"),
    ({}, "outlets: a list of 1 to 8"),
    ({"outlets": [{"pin": 1}] * 9}, "outlets: a list of 1 to 8"),
    ({"outlets": [7]}, "outlets[0]: is no object"),
    ({"outlets": [{"pin": 29}]}, "outlets[0].pin: a whole number from 0 to 28"),
    ({"outlets": [{"pin": True}]}, "outlets[0].pin: a whole number from 0 to 28"),
    ({"outlets": [{"pin": 1, "led": [2, 3]}]}, "outlets[0].led: one pin, or three"),
    ({"outlets": [{"pin": 1, "sense": 1}]}, "outlets[0]: pin 1 is that of outlets[0]"),
    ({"outlets": [{"pin": 1}, {"pin": 2, "led": 1}]}, "outlets[1]: pin 1 is that of outlets[0]"),
    ({"outlets": [{"pin": 1, "polarity": "low"}]}, "outlets[0].polarity: known are pin, active"),
    ({"outlets": [{"pin": 1, "active": "yes"}]}, "outlets[0].active: one of high, low"),
    ({"outlets": [{"pin": 1, "at_power_on": 1}]}, "outlets[0].at_power_on: one of off, on, last"),
    ({"outlets": [{"pin": 1, "meter": {"ina219": 64}}]}, "i2c: an INA219 needs it"),
    ({"outlets": [{"pin": 1, "meter": {"ina219": 8}}]}, "outlets[0].meter.ina219: a whole number from 64 to 79"),
    ({"outlets": [{"pin": 1, "meter": {"adc": 2}}]}, "outlets[0].meter.adc: one of 26, 27, 28"),
    ({"outlets": [{"pin": 1, "meter": {"adc": 26, "mv_per_a": 0}}]}, "outlets[0].meter.mv_per_a: a number above 0"),
    ({"outlets": [{"pin": 1}], "watchdog_ms": 9000}, "watchdog_ms: a whole number from 2000 to 8388"),
    ({"outlets": [{"pin": 1}], "i2c": {"sda": 4, "scl": 1}}, "outlets[0]: pin 1 is that of i2c"),
    ({"outlets": [{"pin": 1}], "one_character": "no"}, "one_character: true or false"),
    ({"outlets": [{"pin": 1}], "checksum": "sometimes"}, "checksum: one of optional, required"),
]


@pytest.mark.parametrize(("table", "problem"), BAD, ids=[row[1][:40] for row in BAD])
def test_a_wrong_file_switches_nothing_and_is_named(table, problem):
    found = cable_settings.checked(table)
    assert problem in found.problem
    assert found.outlets == []
    one, _ = cable(table or [1])
    assert one.take(b"1?", 0) == b""
    for line in (b"@1 get\n", b"@1 set 1 on\n", b"@1 watts\n"):
        assert one.take(line, 0).startswith(b"@1 error settings ")
    assert b" outlets=0 " in one.take(b"@1 id\n", 0)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["pin", "led", "meter", "adc", "x"]), inner, max_size=4)
    ),
)


@given(st.fixed_dictionaries({"outlets": JSON}, optional={"i2c": JSON, "watchdog_ms": JSON}))
def test_no_file_ends_the_firmware(table):
    found = cable_settings.checked(table)
    assert bool(found.problem) != bool(found.outlets)


def test_the_file_in_the_docs_is_right():
    text = (Path(__file__).parents[2] / "docs/power-cable.md").read_text()
    (block,) = re.findall(r"^```json\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    found = cable_settings.checked(json.loads(block))
    assert (found.problem, len(found.outlets)) == ("", 3)


def test_the_answers_in_the_docs_are_right():
    text = (Path(__file__).parents[2] / "docs/power-cable.md").read_text()
    rows = re.findall(r"^\| `(@[^`]*)` \| `(@[^`]*)` \|", text, re.MULTILINE)
    assert len(rows) >= 10
    for line, said in rows:
        one, _ = cable()
        ours = one.take(line.encode() + b"\n", 4_711_000).decode().rstrip("\n")
        values = re.compile(r"=[^ ]+")
        assert values.sub("=", ours) == values.sub("=", said), "but for what is measured"


# --- meters ----------------------------------------------------------------------------------------------------------


def test_the_example_of_the_ina219s_data_sheet():
    """TI SBOS448: 12 V and 10 A through 2 milliohms."""
    assert ina219_watts(bytes.fromhex("07d0"), bytes.fromhex("5d98"), 2) == pytest.approx(119.8)


@given(st.binary(min_size=2, max_size=2), st.binary(min_size=2, max_size=2))
def test_watts_are_never_less_than_none(shunt, bus):
    assert 0 <= ina219_watts(shunt, bus, 100) < 110  # 32 V and 3.3 A are the ends of its scales


def test_an_analogue_sensor():
    assert adc_watts(65535, 2500, 185, 5.0) == pytest.approx(800 / 185 * 5)
    assert adc_watts(0, 2500, 185, 5.0) == 0
