"""The words are the contract: a script compares with them, so a changed word must change a test."""

import pytest

from wire import phases
from wire.phases import JobState, Phase, Power, PowerAction

WORDS = {
    "Phase": "unclaimed off starting netboot booting ready busy sleeping fault maintenance",
    "Power": "on off unknown",
    "PowerAction": "on off cycle",
    "Presence": "online offline lost",
    "Purpose": "operator sleep wake",
    "ErrorKind": "bad-request expired not-allowed unknown-board not-found configuration authentication unreachable"
    " refused not-verified interrupted busy internal",
    "LeaseKind": "job person",
    "LeaseStage": "waiting held ending ended",
    "JobState": "queued waking offered running passed failed error cancelled",
    "Outcome": "passed failed error",
    "EventType": (
        "power phase netboot registered registration-refused presence alert console hook root action outbox-overflow"
    ),
}


def test_every_set_of_words_is_here():
    sets = {
        name for name, value in vars(phases).items() if isinstance(value, type) and value.__module__ == phases.__name__
    }
    assert sets == WORDS.keys()


@pytest.mark.parametrize("name", WORDS)
def test_words(name):
    """A new word may be added at any time; one that goes or changes breaks somebody's script."""
    assert WORDS[name].split() == [word.value for word in getattr(phases, name)]


def test_cycle_is_an_action_and_never_a_state():
    assert PowerAction.CYCLE.value not in set(Power)


PROPERTIES = {
    # phase: (coming up, in service)
    Phase.UNCLAIMED: (False, False),
    Phase.OFF: (False, True),
    Phase.STARTING: (True, True),
    Phase.NETBOOT: (True, True),
    Phase.BOOTING: (True, True),
    Phase.READY: (False, True),
    Phase.BUSY: (False, True),
    Phase.SLEEPING: (False, True),
    Phase.FAULT: (False, False),
    Phase.MAINTENANCE: (False, False),
}


@pytest.mark.parametrize("phase", Phase)
def test_what_a_phase_means(phase):
    assert (phase.coming_up, phase.in_service) == PROPERTIES[phase]


@pytest.mark.parametrize("state", JobState)
def test_which_jobs_have_ended(state):
    assert state.ended == (state.value in {"passed", "failed", "error", "cancelled"})
