"""The judge is no friend of learn's: it sees what is wrong, what is missing, and what was left in another state."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.learn import expected, swappable
from bench.support.learn_cabling import SMALL, Size, shuffled
from bench.support.learn_judge import NOTHING, SOMETHING, Verdict, judge, judge_state
from virtual_lab.cabling import Cabling

TRUTH = shuffled(SMALL)
UNHEARD = "nothing that goes with it was heard in 15 s"


def perfect(truth):
    """What learn would say, if it knew all that can be known."""
    rows, unknown = [], []
    for board in truth.boards.values():
        watts = max(board.watts) if truth.metered.issuperset(board.feed) else None
        row = {"feed": list(board.feed), "macs": list(board.macs), "consoles": list(board.consoles), "usb": []}
        row |= {"links": list(board.links), "boot_s": board.boot_s if board.registers else None}
        row |= {"idle_w": watts, "busy_w": watts}
        if board.heard:
            rows.append(row)
        else:
            words = f", and it draws 4.0 W: {SOMETHING}" if board.feed[0] in truth.metered else ""
            unknown.append({"outlet": board.feed[0], "because": UNHEARD + words})
    for outlet in truth.empty:
        words = f", and it draws 0.0 W: {NOTHING}" if outlet in truth.metered else ""
        unknown.append({"outlet": outlet, "because": UNHEARD + words})
    return {"rows": rows, "unknown": unknown}


@given(seed=st.integers(1, 10_000))
def test_the_truth_is_right_for_every_seed(seed):
    truth = shuffled(replace(Size(), seed=seed))
    verdict = judge(truth, perfect(truth))
    assert verdict.good
    assert len(verdict.right) == 15 and len(verdict.unknown) == 1 + len(truth.empty)
    assert Cabling.from_table(json.loads(truth.cabling.to_json())) == truth.cabling


def row_of(found, name):
    return next(row for row in found["rows"] if row["feed"] == list(TRUTH.boards[name].feed))


def named(wanted):
    return next(board.name for board in TRUTH.boards.values() if wanted(board))


PLAIN = named(lambda board: board.registers and board.links and not board.consoles and len(board.feed) == 1)
OTHER = named(lambda board: board.registers and board.consoles and board.links)
DOUBLE = named(lambda board: len(board.feed) == 2)
SILENT = named(lambda board: not board.heard)
CLIENTLESS = named(lambda board: board.heard and not board.registers)


def swap_macs(found):
    one, other = row_of(found, PLAIN), row_of(found, OTHER)
    one["macs"], other["macs"] = other["macs"], one["macs"]


def swap_consoles(found):
    one, other = row_of(found, "virt-1"), row_of(found, OTHER)
    one["consoles"], other["consoles"] = other["consoles"], one["consoles"]


def half_a_feed(found):
    row_of(found, DOUBLE)["feed"].pop()


def a_row_for_nothing(found):
    found["rows"].append({**row_of(found, PLAIN), "feed": [TRUTH.empty[0]]})


def a_row_for_the_silent_one(found):
    found["rows"].append({**row_of(found, PLAIN), "feed": list(TRUTH.boards[SILENT].feed)})


def twice(found):
    found["rows"].append(row_of(found, PLAIN))


def a_boot_that_nobody_saw(found):
    row_of(found, CLIENTLESS)["boot_s"] = 4.0


def a_boot_too_fast(found):
    row_of(found, PLAIN)["boot_s"] = 0.1


def the_marked_outlet(found):
    found["unknown"].append({"outlet": TRUTH.kept, "because": UNHEARD})


WRONG = [swap_macs, swap_consoles, half_a_feed, a_row_for_nothing, a_row_for_the_silent_one, twice]
WRONG += [a_boot_that_nobody_saw, a_boot_too_fast, the_marked_outlet]


@pytest.mark.parametrize("spoil", WRONG)
def test_what_is_not_so_is_wrong(spoil):
    found = perfect(TRUTH)
    spoil(found)
    assert judge(TRUTH, found).wrong


def no_console(found):
    row_of(found, "virt-1")["consoles"] = []


def no_boot_time(found):
    row_of(found, PLAIN)["boot_s"] = None


def no_row(found):
    found["rows"].remove(row_of(found, PLAIN))
    found["unknown"].append({"outlet": TRUTH.boards[PLAIN].feed[0], "because": UNHEARD})


def no_word(found):
    found["unknown"] = []


@pytest.mark.parametrize("spoil", [no_console, no_boot_time, no_row, no_word])
def test_what_could_have_been_known_is_missed(spoil):
    found = perfect(TRUTH)
    spoil(found)
    verdict = judge(TRUTH, found)
    assert verdict.missed and not verdict.wrong


def test_what_a_meter_shows_is_to_be_said():
    metered = next(
        truth for seed in range(1, 50) if (truth := shuffled(replace(SMALL, seed=seed))).boards
        and truth.metered.issuperset(next(board for board in truth.boards.values() if not board.heard).feed)
    )  # fmt: skip
    found = perfect(metered)
    for item in found["unknown"]:
        item["because"] = item["because"].replace(SOMETHING, NOTHING)
    assert judge(metered, found).wrong


def test_outlets_are_to_be_as_they_were():
    before = {*TRUTH.found_on, TRUTH.kept}
    for on, edges, good in (
        (before, {TRUTH.kept: 1}, True),
        (before | {TRUTH.empty[0]}, {TRUTH.kept: 1}, False),
        (before - {TRUTH.found_on[0]}, {TRUTH.kept: 1}, False),
        (before, {TRUTH.kept: 3}, False),
    ):
        verdict = Verdict()
        judge_state(verdict, TRUTH, on, edges)
        assert verdict.good is good


@given(seed=st.integers(1, 10_000))
def test_two_plugs_can_change_places_for_every_seed(seed):
    truth = shuffled(replace(Size(), seed=seed))
    place, moved = swappable(truth, seed)
    assert place != moved and truth.boards[moved].macs
    assert truth.boards[place].feed[0] in expected(truth, place, moved)
