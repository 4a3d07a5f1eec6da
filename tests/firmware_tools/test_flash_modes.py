"""Modes: words into steps, dependencies, and the way back, for every state of every actuator."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_tools.flash import modes
from firmware_tools.flash.actuators import Walker
from firmware_tools.flash.errors import ModeError
from firmware_tools.flash.modes import Actuator, Appear, Kind, Rest, Switch
from firmware_tools.flash.passage import TABLE, Passage, Stage, Word

ACTUATORS = {
    "power": Actuator(Kind.POWER),
    "strap": Actuator(Kind.OUTLET, settle_s=0.1),
    "reset": Actuator(Kind.OUTLET),
    "sd": Actuator(Kind.MUX, needs=(("power", "off"),)),
}


def planned(*words):
    return [str(step) for step in modes.plan([modes.parse_step(text, ACTUATORS) for text in words], ACTUATORS)]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("power cycle", Switch("power", "cycle")),
        ("strap on", Switch("strap", "on", 0.1)),
        ("reset press", Switch("reset", "press", 0.0, modes.PRESS_S)),
        ("reset press 1.5", Switch("reset", "press", 0.0, 1.5)),
        ("sd host", Switch("sd", "host")),
        ("wait 2", Rest(2.0)),
        ("wait usb 0483:DF11", Appear("usb", "0483:df11", modes.DEFAULT_WAIT_S)),
        ("wait path /dev/disk/by-id/x 5", Appear("path", "/dev/disk/by-id/x", 5.0)),
    ],
)
def test_words_are_steps(text, step):
    assert modes.parse_step(text, ACTUATORS) == step


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "ACTUATOR STATE"),
        ("strap", "ACTUATOR STATE"),
        ("lid open", "no actuator lid; known are: power, reset, sd, strap"),
        ("sd on", "sd can be board, host, off"),
        ("strap on 3", "nothing comes after on"),
        ("reset press long", "no seconds"),
        ("wait 601", "no seconds"),
        ("wait nan", "no seconds"),
        ("wait usb 483:df11", "no USB device"),
        ("wait path dev/sda", "no absolute path"),
        ("wait for it", "wait SECONDS"),
    ],
)
def test_what_is_no_step_is_said(text, why):
    with pytest.raises(ValueError, match=why):
        modes.parse_step(text, ACTUATORS)


@given(st.text(max_size=60))
def test_any_words_are_a_step_or_a_value_error(text):
    try:
        found = str(modes.parse_step(text, ACTUATORS))
    except ValueError as error:
        found = str(error)
    assert found


def test_what_an_actuator_needs_comes_before_it_once():
    assert planned("sd host") == ["power off", "sd host"]
    assert planned("power off", "sd host") == ["power off", "sd host"]
    assert planned("power on", "sd host", "power on", "sd board") == [
        "power on", "power off", "sd host", "power on", "power off", "sd board"
    ]  # fmt: skip
    assert planned("power cycle", "sd off") == ["power cycle", "power off", "sd off"]


def test_needs_in_a_circle_are_refused():
    circle = {
        "a": Actuator(Kind.OUTLET, needs=(("b", "on"),)),
        "b": Actuator(Kind.OUTLET, needs=(("a", "on"),)),
    }
    with pytest.raises(ValueError, match="circle: a -> b -> a"):
        modes.plan([Switch("a", "on")], circle)


def test_modes_that_cannot_be_left_are_found_before_they_are_entered():
    def said(**table):
        return list(modes.objections(table, ACTUATORS))

    assert said() == []
    assert said(normal=["strap off", "power cycle"], flash=["strap on", "power cycle"]) == []
    assert said(flash=["strap on"]) == [("", "there is no mode normal: say how the board is brought back to work")]
    assert said(normal=["power cycle"], flash=["strap on"]) == [
        ("normal", "mode flash switches strap, and mode normal does not say how it has to be")
    ]
    # What a need switches counts as well.
    assert said(normal=["sd board"], flash=["sd host"]) == []
    assert said(normal=["sd sideways"])[0][0] == "normal"
    bad = {**ACTUATORS, "sd": Actuator(Kind.MUX, needs=(("power", "cycle"),))}
    assert next(iter(modes.objections({}, bad)))[0] == ""


STEPS = [Switch("strap", "on"), Switch("power", "cycle"), Switch("strap", "off")]
BACK = [Switch("strap", "off"), Switch("power", "cycle")]


def walked(fails):
    """A passage through which the steps with these numbers, counted through, fail."""
    passage, tried = Passage("flash", STEPS, "normal", BACK), []
    while (step := passage.next()) is not None:
        tried.append(str(step))
        if len(tried) - 1 in fails:
            passage.failed(f"no {step}")
        else:
            passage.done()
    return passage, tried


def test_a_passage_arrives_returns_or_strands():
    passage, tried = walked(set())
    assert (passage.stage, passage.mode, len(tried)) == (Stage.ARRIVED, "flash", 3)
    passage, tried = walked({1})
    assert (passage.stage, passage.mode, passage.why) == (Stage.RETURNED, "normal", "no power cycle")
    assert tried == ["strap on", "power cycle", "strap off", "power cycle"]
    # The strap cannot be reached on the way back; the power is cycled all the same.
    passage, tried = walked({1, 2})
    assert (passage.stage, passage.mode, passage.also) == (Stage.STRANDED, None, ["no strap off"])
    assert tried[-1] == "power cycle"


@given(st.sets(st.integers(0, 6)))
def test_a_passage_always_ends_and_says_where(fails):
    passage, tried = walked(fails)
    assert passage.stage in {Stage.ARRIVED, Stage.RETURNED, Stage.STRANDED}
    assert len(tried) <= len(STEPS) + len(BACK)
    assert (passage.mode is None) == (passage.stage is Stage.STRANDED)
    assert (passage.stage is Stage.ARRIVED) == (not fails & {0, 1, 2})
    if passage.stage is not Stage.ARRIVED:
        assert tried[-len(BACK) :] == [str(step) for step in BACK]


def test_every_word_at_every_stage_is_in_the_table_or_a_defect():
    for stage, word in itertools.product(Stage, Word):
        passage = Passage("flash", STEPS, "normal", BACK)
        passage.stage = stage
        if (stage, word) in TABLE:
            passage._move(word)
            assert passage.stage is TABLE[stage, word]
        else:
            with pytest.raises(RuntimeError, match=f"a passage that is {stage} was told {word}"):
                passage._move(word)


def test_a_passage_turns_back_after_it_has_arrived():
    passage, _ = walked(set())
    passage.turn_back("the tool failed")
    assert (passage.stage, passage.why, passage.next()) == (Stage.BACK, "the tool failed", BACK[0])
    passage.turn_back("again")
    assert passage.why == "the tool failed"


class Hands:
    """Actuators that do as they are told, but for what is `stuck`, and fail where `broken`."""

    def __init__(self, stuck=(), broken=(), blind=()):
        self.states = {"power": "on", "strap": "off", "reset": "off", "sd": "board"}
        self.stuck, self.broken, self.blind, self.log = stuck, broken, blind, []

    async def switch(self, actuator, state):
        self.log.append(f"{actuator} {state}")
        if actuator in self.broken:
            raise ModeError(f"{actuator}: does not answer")
        if actuator not in self.stuck:
            self.states[actuator] = "on" if state == "cycle" else state

    async def look(self, actuator):
        return None if actuator in self.blind else self.states[actuator]


async def rest(_seconds):
    await asyncio.sleep(0)


async def test_what_reads_back_otherwise_has_failed():
    hands = Hands(stuck={"strap"})
    passage = Passage("flash", STEPS, "normal", BACK)
    await Walker(hands, ACTUATORS, rest).walk(passage)
    assert passage.stage is Stage.RETURNED
    assert "strap: was switched to on, and reads off" in passage.why


async def test_what_cannot_be_read_back_is_believed_and_told_as_unknown():
    hands = Hands(blind={"strap"})
    walker = Walker(hands, ACTUATORS, rest)
    passage = Passage("flash", STEPS, "normal", BACK)
    await walker.walk(passage)
    assert passage.stage is Stage.ARRIVED
    assert (await walker.states())["strap"] is None


async def test_a_button_is_let_go_however_it_ends():
    hands, held = Hands(), asyncio.Event()

    async def hold(_seconds):
        held.set()
        await asyncio.Event().wait()

    passage = Passage("recovery", [Switch("reset", "press", 0.0, 9.0)], "normal", BACK)
    walking = asyncio.create_task(Walker(hands, ACTUATORS, hold).walk(passage))
    await held.wait()
    assert hands.states["reset"] == "on"
    walking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await walking
    assert hands.states["reset"] == "off"


async def test_a_device_that_does_not_appear_is_named(tmp_path):
    device = tmp_path / "bus/usb/devices/1-2"
    device.mkdir(parents=True)
    (device / "idVendor").write_text("0483\n")
    walker = Walker(Hands(), ACTUATORS, rest, tmp_path)
    for there in (False, True):
        passage = Passage("flash", [Appear("usb", "0483:df11", 1.0)], "normal", BACK)
        if there:
            (device / "idProduct").write_text("df11\n")
        await walker.walk(passage)
        assert (passage.stage is Stage.ARRIVED) is there
        if not there:
            assert "usb 0483:df11 did not appear within 1 s" in passage.why
