import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.supervisor import (
    PAUSE_FIRST_S,
    PAUSE_MOST_S,
    QUICK_ENDS_MOST,
    STEADY_S,
    TABLE,
    Action,
    ChildRule,
    Do,
    State,
    Supervisor,
    Trigger,
    UnexpectedTriggerError,
)

SERVER = ChildRule("server", stage=0, stop_deadline_s=5)
DAEMON = ChildRule("daemon", stage=1, stop_deadline_s=5)
FARM = ChildRule("farm", stage=1, stop_deadline_s=9)

# Pairs that the caller cannot bring about: a child that does not run cannot exit, timers are set for two states only.
IMPOSSIBLE = {
    (state, trigger)
    for state, trigger in itertools.product(State, Trigger)
    if (trigger in {Trigger.EXITED, Trigger.HOPELESS} and state in {State.WAITING, State.ENDED})
    or (trigger is Trigger.DUE and state is not State.WAITING)
    or (trigger is Trigger.DEADLINE and state is not State.STOPPING)
}


@pytest.mark.parametrize(("state", "trigger"), list(itertools.product(State, Trigger)))
def test_every_pair_is_in_the_table_or_known_to_be_impossible(state: State, trigger: Trigger) -> None:
    assert ((state, trigger) in TABLE) != ((state, trigger) in IMPOSSIBLE)


def test_impossible_trigger_names_child_state_and_trigger() -> None:
    core = Supervisor()
    core.add(SERVER, 0)
    with pytest.raises(UnexpectedTriggerError, match="server: exited while waiting"):
        core.exited("server", 0, 1)


def test_starts_at_once_and_again_with_growing_pauses() -> None:
    core = Supervisor()
    core.add(SERVER, 100.0)
    now = 100.0
    pauses = []
    for _ in range(QUICK_ENDS_MOST - 1):
        assert core.poll(now) == [Action("server", Do.START)]
        now += 1
        assert core.exited("server", -9, now) == []
        due = core.next_due()
        assert due is not None
        pauses.append(due - now)
        assert core.poll(due - 0.001) == []
        now = due
    assert pauses == [PAUSE_FIRST_S * 2**n for n in range(QUICK_ENDS_MOST - 1)]
    core.poll(now)
    assert core.exited("server", 1, now + 1) == [Action("server", Do.GIVE_UP)]
    assert core.state("server") is State.ENDED


def test_child_that_lived_long_starts_afresh() -> None:
    core = Supervisor()
    core.add(SERVER, 0)
    now = 0.0
    for _ in range(50):
        assert core.poll(now) == [Action("server", Do.START)]
        now += STEADY_S
        assert core.exited("server", 1, now) == []
        due = core.next_due()
        assert due == now + PAUSE_FIRST_S
        now = due


def test_bad_settings_are_not_tried_again() -> None:
    core = Supervisor()
    core.add(DAEMON, 0)
    core.poll(0)
    assert core.exited("daemon", 2, 1) == [Action("daemon", Do.GIVE_UP)]
    assert core.next_due() is None


def test_stop_goes_by_stages_and_kills_after_the_deadline() -> None:
    core = Supervisor()
    for rule in (SERVER, DAEMON, FARM):
        core.add(rule, 0)
    core.poll(0)
    assert set(core.stop(10)) == {Action("daemon", Do.TERMINATE), Action("farm", Do.TERMINATE)}
    assert core.stop(10.5) == []
    assert core.exited("daemon", 0, 11) == []
    assert core.poll(18.9) == []
    assert core.poll(19) == [Action("farm", Do.KILL)]
    assert core.exited("farm", -9, 19.1) == [Action("server", Do.TERMINATE)]
    assert not core.ended
    assert core.exited("server", 0, 19.2) == []
    assert core.ended


def test_stop_while_waiting_for_a_restart_starts_nothing() -> None:
    core = Supervisor()
    core.add(SERVER, 0)
    core.poll(0)
    core.exited("server", 1, 1)
    assert core.stop(1.1) == []
    assert core.ended
    assert core.poll(1000) == []
    core.add(DAEMON, 1001)
    assert core.poll(1002) == []
    assert core.ended


@given(st.lists(st.tuples(st.sampled_from(["poll", "exit", "stop"]), st.integers(0, 2), st.floats(0, 40)), max_size=60))
def test_any_story_keeps_the_promises(story: list[tuple[str, int, float]]) -> None:
    rules = [SERVER, DAEMON, FARM]
    core, now, alive, stopping, given_up = Supervisor(), 0.0, set(), False, set()
    for rule in rules:
        core.add(rule, now)

    def take(actions: list[Action]) -> None:
        for action in actions:
            if action.do is Do.START:
                assert not stopping, "nothing is started after stop"
                assert action.name not in alive
                assert action.name not in given_up
                alive.add(action.name)
            elif action.do is Do.GIVE_UP:
                given_up.add(action.name)
            else:
                assert stopping
                assert action.name in alive, "only what lives is signalled"
                if action.name == "server":
                    assert alive == {"server"}, "the server is stopped last"

    for what, which, pause_s in story:
        now += pause_s
        if what == "poll":
            take(core.poll(now))
        elif what == "stop":
            stopping = True
            take(core.stop(now))
        elif rules[which].name in alive:
            alive.discard(rules[which].name)
            take(core.exited(rules[which].name, 1, now))
        due = core.next_due()
        assert due is None or due <= now + max(PAUSE_MOST_S, 9)
    stopping = True
    take(core.stop(now))
    for _ in range(10):
        now += 100
        take(core.poll(now))
        for name in sorted(alive):
            alive.discard(name)
            take(core.exited(name, -9, now))
    assert core.ended
    assert not alive
