"""The history of boots under anything at all."""

from datetime import datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.boot_diagnosis import diagnose
from netboot.boot_history import BOOTS_KEPT, BootHistory
from netboot.boot_record import MAX_MISSING, MAX_REQUESTS, MAX_TEXT, Boot, Outcome, phases
from netboot.events import DhcpSeen, FileFailed, FileRefused, FileRequested, FileSent
from tests.netboot.boot_story import ADDRESS, MAC, NOON, UBOOT, Story

NAMES = st.sampled_from(["boot.scr.uimg", "kernel", "initrd", "x\n\x1b", "ü" * 300])
STEPS = st.one_of(
    st.tuples(st.just("power"), st.booleans()),
    st.tuples(st.just("cycled"), st.floats(0, 50)),
    st.tuples(st.just("dhcp"), st.sampled_from(["DISCOVER", "REQUEST", "", "INFORM"]),
              st.sampled_from(["", "OFFER", "ACK", "NAK"]), st.sampled_from(["", UBOOT, "udhcp"]), st.booleans()),
    st.tuples(st.just("ask"), NAMES, st.sampled_from(["config", "kernel", "other"]), st.integers(0, 3)),
    st.tuples(st.just("sent"), NAMES, st.sampled_from(["config", "kernel", "other"]), st.integers(0, 3)),
    st.tuples(st.just("failed"), NAMES, st.sampled_from(["config", "kernel", "other"]), st.integers(0, 3)),
    st.tuples(st.just("refused"), NAMES, st.booleans(), st.booleans(), st.integers(0, 3)),
    st.tuples(st.just("registered"), st.sampled_from(["one", "two"])),
    st.tuples(st.just("wait"), st.floats(-100, 1000)),
)  # fmt: skip


def take(history: BootHistory, step: tuple[Any, ...], now: datetime) -> None:
    match step:
        case ("power", on):
            history.power("pi", on=on, at=now)
        case ("cycled", ago_s):
            history.cycled("pi", since=now - timedelta(seconds=ago_s), at=now)
        case ("dhcp", kind, answer, vendor, known):
            history.event(DhcpSeen(MAC, "pi" if known else None, ADDRESS, vendor, kind, answer), now)
        case ("ask", path, role, number):
            history.event(FileRequested("pi", ADDRESS, path, role, number=number), now)
        case ("sent", path, role, number):
            history.event(FileSent("pi", ADDRESS, path, role, 10, 0.1, 2, number=number), now)
        case ("failed", path, role, number):
            history.event(FileFailed("pi", ADDRESS, path, role, "why", number=number), now)
        case ("refused", path, missing, known, number):
            refused = FileRefused(ADDRESS, path, "no", "pi" if known else None, missing=missing, number=number)
            history.event(refused, now)
        case ("registered", boot_id):
            history.registered("pi", boot_id, now)


@settings(max_examples=200, deadline=None)
@given(st.lists(STEPS, max_size=80))
def test_whatever_is_heard_is_bounded_ordered_and_placed(steps: list[tuple[Any, ...]]) -> None:
    history, now, newest = BootHistory(), NOON, 0
    stored: dict[int, Boot] = {}
    for step in steps:
        if step[0] == "wait":
            now += timedelta(seconds=step[1])
        before = history.boots("pi")
        take(history, step, now)
        for boot in history.take_changed(100):
            stored[boot.number] = boot
        boots = history.boots("pi")
        assert len(boots) <= BOOTS_KEPT
        numbers = [boot.number for boot in boots]
        if numbers:
            assert numbers == list(range(numbers[0], numbers[0] - len(numbers), -1))
            assert numbers[0] >= newest
            newest = numbers[0]
        assert len(boots) >= min(len(before), BOOTS_KEPT), "no boot is lost but the oldest"
        assert all(boot.ended is not None for boot in boots[1:])
    assert {boot.number for boot in history.boots("pi")} <= stored.keys(), "each was told to be stored"
    for boot in history.boots("pi"):
        times = [request.at for request in boot.requests]
        assert times == sorted(times)
        assert boot.began <= min(times, default=boot.began)
        assert len(boot.requests) <= MAX_REQUESTS
        assert all(len(r.name) <= MAX_TEXT and r.name.isprintable() for r in boot.requests)
        assert all(seconds >= 0 for _, seconds in phases(boot))
        assert diagnose(boot, now, strangers=history.strangers()).what
        if boot.ended is not None:
            assert all(request.outcome is not Outcome.UNDER_WAY for request in boot.requests)


@given(st.integers(0, 2 * MAX_REQUESTS), st.integers(0, 2 * MAX_MISSING))
def test_a_board_in_a_circle_fills_nothing(circles: int, names: int) -> None:
    story = Story().cycle()
    for number in range(circles):
        story.miss(f"a{number % 2}")
    for number in range(names):
        story.miss(f"name-{number}")
    (boot,) = story.boots
    listed = sum(request.times for request in boot.requests)
    assert listed + boot.not_listed == circles + names
    assert len(boot.requests) <= MAX_REQUESTS
    assert len(boot.missing) <= MAX_MISSING
