"""Rules of sleep one by one, and whatever comes: the caps hold, nothing flaps, no leased board sleeps."""

import random
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from broker import happenings as h
from broker.jobs.labels import Want
from broker.ledger import Policy
from broker.settings import read_settings
from broker.sleep.boot_store import stored_boots
from broker.sleep.day_recording import Day, DayBoard, DayJob, generate
from broker.sleep.policy import QuietHours, SleepRule
from broker.sleep.simulation import SWITCH_S, TICK_S, Simulation
from broker.sleep.wake_forecast import FIRST_GUESS_S, KEPT_BOOTS, WakeForecast
from broker.sleep.wake_room import Shelf
from daemon.settings_file import SettingsError
from wire.phases import JobState, Phase, PowerAction, Purpose

HOUR_S = 3600.0
ROUNDING_S = 1e-6


def switched(world, board):
    return [command.power for command in world.powers if command.board == board]


# --- rules in the scheduler ---------------------------------------------------------------------------------------


def test_the_first_rule_that_fits_holds(make_world):
    rules = (
        SleepRule(boards=frozenset({"b1"}), never=True),
        SleepRule(wants=(Want.parse("fast", True),), idle_s=10, min_on_s=0),
    )
    world = make_world(Policy(idle_s=100, min_on_s=0, sleep=rules), labels={"b1": {"fast": True}, "b2": {"fast": True}})
    for name in ("b1", "b2", "b3"):
        world.up(name)
    world.wait(0)
    world.wait(11)
    assert [command.board for command in world.powers] == ["b2"]
    world.wait(100)
    assert {command.board for command in world.powers} == {"b2", "b3"}


def test_a_warm_minimum_is_woken_within_the_cap_and_kept(make_world):
    world = make_world(Policy(idle_s=50, min_on_s=0, booting_cap=1, sleep=(SleepRule(idle_s=50, min_on_s=0, warm=2),)))
    world.wait(0)
    (first,) = world.powers
    assert (first.power, first.purpose, first.token) == (PowerAction.ON, Purpose.WAKE, None)
    world.obey_power(first)
    world.wait(1)
    assert not world.powers
    world.up(first.board)
    world.wait(1)
    (second,) = world.powers
    world.obey_power(second)
    world.up(second.board)
    for _ in range(5):
        world.wait(100)
    assert not world.powers
    world.submit("name: t\nboard: b1\nsteps: [a]")  # one is at work: the third is woken
    world.accept("b1")
    world.wait(1)
    assert [(command.board, command.power) for command in world.powers] == [("b3", PowerAction.ON)]
    world.obey_power(world.powers[0])
    world.up("b3")
    world.finish("b1")
    world.wait(0)
    world.wait(30)
    assert len([command for command in world.powers if command.power is PowerAction.OFF]) == 1


def test_a_warm_wake_that_fails_is_not_hammered(make_world):
    world = make_world(Policy(sleep=(SleepRule(warm=1),)), boards=("b1",))
    world.wait(0)
    world.obey_power(world.powers[0], ok=False)
    world.wait(30)
    assert not world.powers
    world.wait(31)
    assert len(world.powers) == 1


def test_quiet_hours_and_the_wake_ahead_of_their_end(make_world):
    """The world's clock starts at midnight UTC, one in the morning in Berlin."""
    quiet = QuietHours(time(22), time(6), ZoneInfo("Europe/Berlin"))
    rule = SleepRule(warm=1, quiet=(quiet,), idle_s=HOUR_S, quiet_idle_s=60, min_on_s=0)
    world = make_world(Policy(sleep=(rule,)), boards=("b1",))
    world.scheduler.forecast.restore({"b1": [100.0] * 3})
    world.wait(60)
    assert not world.powers
    world.wait(5 * HOUR_S - 111 - world.mono)  # 05:00 UTC is the end
    assert not world.powers
    world.wait(2)
    assert switched(world, "b1") == [PowerAction.ON]
    world.obey_power(world.powers[0])
    world.wait(60)
    world.up("b1")
    for _ in range(20):
        world.wait(100)
    assert not world.powers
    world.wait(21 * HOUR_S - world.mono)  # 22:00 in Berlin
    world.wait(61)
    assert switched(world, "b1") == [PowerAction.OFF]


def test_a_board_that_must_rest_is_not_woken_even_for_a_job(make_world):
    world = make_world(Policy(idle_s=10, min_on_s=0, min_off_s=100), boards=("b1",))
    world.up("b1")
    world.wait(0)
    world.wait(11)
    world.obey_power(world.powers[0])
    job = world.submit()
    world.wait(99)
    assert world.state(job) is JobState.QUEUED
    assert not world.powers
    world.wait(2)
    assert world.state(job) is JobState.WAKING


def test_boots_are_measured_stored_and_known_after_a_restart(world):
    for _ in range(KEPT_BOOTS + 4):
        world.phase("b1", Phase.SLEEPING)
        world.phase("b1", Phase.STARTING)
        world.mono += 42
        world.up("b1")
    assert stored_boots(world.db) == {"b1": [42.0] * KEPT_BOOTS}
    world.start()
    assert world.scheduler.forecast.typical_s("b1") == 42


def test_a_forecast_is_median_and_spread():
    forecast = WakeForecast()
    assert forecast.lead_s("b1") == FIRST_GUESS_S
    forecast.restore({"b1": [50, 60, 70, 60, 500], "b2": [80, 80, 80]})
    assert forecast.typical_s("b1") == 60
    assert forecast.lead_s("b1") == 60 + 3 * 10
    assert forecast.lead_s("b2") == 88
    assert forecast.lead_s("new") == 80


@pytest.mark.parametrize(
    ("begin", "end", "at", "held"),
    [
        ("22:00", "06:00", "2026-01-01T21:30:00+00:00", True),
        ("22:00", "06:00", "2026-01-01T20:30:00+00:00", False),
        ("22:00", "06:00", "2026-07-01T20:30:00+00:00", True),  # summer time
        ("22:00", "06:00", "2026-01-01T05:00:00+00:00", False),
        ("12:00", "13:00", "2026-01-01T11:59:59+00:00", True),
        ("12:00", "13:00", "2026-01-01T12:00:00+00:00", False),
    ],
)
def test_quiet_hours_by_the_wall_of_their_zone(begin, end, at, held):
    hours = QuietHours(time.fromisoformat(begin), time.fromisoformat(end), ZoneInfo("Europe/Berlin"))
    assert hours.hold(datetime.fromisoformat(at)) is held


# --- settings -----------------------------------------------------------------------------------------------------


def test_rules_in_the_settings(tmp_path):
    path = tmp_path / "farm.toml"
    path.write_text(
        "[broker]\nidle_s = 70\nmin_off_s = 5\n"
        "[[broker.sleep]]\nlabels = { arch = 'arm64' }\nwarm = 2\nquiet_hours = ['22:00-06:30']\n"
        "timezone = 'Europe/Berlin'\nquiet_idle_s = 30\n"
        "[[broker.sleep]]\nboards = ['b1']\nnever = true\n"
        "[[broker.shelves]]\nlabel = 'fuse'\nbooting_cap = 3\nwake_spacing_s = 1.5\n"
    )
    policy = read_settings(path).broker.policy()
    first, second = policy.sleep
    berlin = QuietHours(time(22), time(6, 30), ZoneInfo("Europe/Berlin"))
    assert (first.idle_s, first.warm, first.quiet, first.quiet_idle_s, first.min_off_s) == (70, 2, (berlin,), 30, 5)
    assert (second.boards, second.never) == (frozenset({"b1"}), True)
    assert policy.shelves == (Shelf("fuse", None, 3, 1.5),)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("quiet_hours = ['22-6']", "no hours: write for example 22:00-06:30"),
        ("quiet_hours = ['06:00-06:00']", "begin when they end"),
        ("timezone = 'Berlin'", "no time zone"),
        ("timezone = '../../etc/passwd'", "no time zone"),
        ("quiet_idle_s = 5", "without quiet_hours"),
        ("labels = { memory_mb = '>= much' }", "compares with no number"),
        ("warm = -1", "greater than or equal to 0"),
        ("wram = 1", "wram"),
    ],
)
def test_what_is_wrong_in_a_rule_is_said(tmp_path, line, told):
    path = tmp_path / "farm.toml"
    path.write_text(f"[[broker.sleep]]\n{line}\n")
    with pytest.raises(SettingsError, match=told):
        read_settings(path)


# --- whatever comes -----------------------------------------------------------------------------------------------


class Watch:
    """Checks every action of a simulated day against its policy."""

    def __init__(self, day, policy):
        self.policy, self.leased, self.on_at, self.off_at, self.last_wake = policy, set(), {}, {}, {}
        self.booting = {}  # board -> when it is up
        self.boots = {board.name: board.boot_s for board in day.boards}
        self.count = dict.fromkeys(self.boots, 0)
        self.shelf = {board.name: board.labels["shelf"] for board in day.boards}

    def __call__(self, action, now):
        match action:
            case h.PutLease(board):
                self.leased.add(board)
            case h.ClearLease(board):
                self.leased.discard(board)
            case h.SendPower(board, PowerAction.OFF):
                assert board not in self.leased, f"{board} is put to sleep while leased"
                assert now - self.on_at[board] >= self.policy.min_on_s - SWITCH_S - ROUNDING_S, f"{board} flaps"
                self.off_at[board] = now
            case h.SendPower(board, PowerAction.ON):
                self.woken(board, now)

    def woken(self, board, now):
        if board in self.off_at:
            assert now - self.off_at[board] >= self.policy.min_off_s - ROUNDING_S, f"{board} is woken too soon"
        self.booting = {name: up for name, up in self.booting.items() if up > now}
        on_shelf = [name for name in self.booting if self.shelf[name] == self.shelf[board]]
        (shelf,) = self.policy.shelves
        assert len(self.booting) < self.policy.booting_cap, "more boards boot than may"
        assert len(on_shelf) < shelf.booting_cap, "more boards boot on a shelf than may"
        since = now - self.last_wake.get(self.shelf[board], -1e9)
        assert since >= shelf.wake_spacing_s - ROUNDING_S, "two wakes of a shelf came too close"
        self.last_wake[self.shelf[board]] = now
        self.on_at[board] = now
        took_s = self.boots[board][self.count[board] % len(self.boots[board])]
        self.count[board] += 1
        self.booting[board] = now + SWITCH_S + took_s


policies = st.builds(
    lambda idle_s, min_on_s, min_off_s, cap, shelf_cap, spacing_s, warm: Policy(
        idle_s=idle_s,
        min_on_s=min_on_s,
        min_off_s=min_off_s,
        booting_cap=cap,
        shelves=(Shelf(booting_cap=shelf_cap, wake_spacing_s=spacing_s),),
        sleep=(SleepRule(warm=warm, idle_s=idle_s, min_on_s=min_on_s, min_off_s=min_off_s),),
    ),
    st.sampled_from([1, 30, 600]),
    st.sampled_from([0, 60, 300]),
    st.sampled_from([0, 40, 200]),
    st.integers(1, 4),
    st.integers(1, 2),
    st.sampled_from([0, 7, 30]),
    st.integers(0, 3),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(policies, st.integers(1, 10**6))
def test_caps_hold_nothing_flaps_no_leased_board_sleeps_and_every_job_is_done(policy, seed):
    chance = random.Random(seed)
    boards = [
        DayBoard(name=f"b{n}", labels={"shelf": "xy"[n % 2]}, boot_s=[chance.uniform(5, 100) for _ in range(3)])
        for n in range(6)
    ]
    jobs = [
        DayJob(
            at_s=chance.uniform(0, HOUR_S),
            took_s=chance.uniform(1, 200),
            labels=chance.choice([{}, {"shelf": "x"}]),
            board=chance.choice([None, None, "b1"]),
        )
        for _ in range(25)
    ]
    jobs = [job.model_copy(update={"labels": {}}) if job.board else job for job in jobs]
    day = Day(begin=datetime(2026, 1, 1, tzinfo=UTC), length_s=2 * HOUR_S, boards=boards, jobs=jobs)
    tally = Simulation(day, policy, watch=Watch(day, policy)).run("any")
    assert (tally.done, tally.left) == (25, {})
    assert tally.most_booting <= policy.booting_cap


def test_a_warm_board_is_ready_when_quiet_hours_end():
    """By the measured boots: not a minute late, not an hour early."""
    quiet = QuietHours(time(20), time(6), ZoneInfo("UTC"))
    policy = Policy(sleep=(SleepRule(warm=2, quiet=(quiet,), quiet_idle_s=60, min_on_s=0),))
    begin = datetime(2026, 1, 1, 12, tzinfo=UTC)
    boards = [DayBoard(name=f"b{n}", boot_s=[90.0, 95.0, 85.0]) for n in range(2)]
    woken = []

    def watch(action, now):
        if isinstance(action, h.SendPower) and action.power is PowerAction.ON:
            woken.append(begin + timedelta(seconds=now))

    day = Day(begin=begin, length_s=86400, boards=boards, jobs=[DayJob(at_s=6 * HOUR_S, took_s=10)])
    Simulation(day, replace(policy, booting_cap=2), watch=watch).run("warm")
    morning = [at for at in woken if at.hour < 7]
    assert len(morning) == 2
    for at in morning:
        early_s = (datetime(2026, 1, 2, 6, tzinfo=UTC) - at).total_seconds()
        assert 95 <= early_s <= 150 + TICK_S


def test_generated_days_are_the_same_for_a_seed():
    assert generate(3) == generate(3)
    assert generate(3) != generate(4)
