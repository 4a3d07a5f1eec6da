"""Modes of a board: named sequences of actuators, written as words, planned with their dependencies.

    "power off"         the board's own power: on, off or cycle
    "boot-strap on"     an outlet: on or off
    "reset press 0.2"   an outlet: on, that long, off
    "sd host"           an SD mux: host, board or off
    "wait 1.5"          rest, in seconds
    "wait usb 0483:df11 10"      until such a USB device is there, at most that long
    "wait path /dev/disk/by-id/… 10"

Pure: nothing is switched here. `actuators.Passage` carries a plan out.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

NORMAL = "normal"
"""The mode in which a board works, and into which it is put back."""
POWER = "power"
"""The actuator that every board has."""
WAIT = "wait"
MAX_WAIT_S = 600.0
DEFAULT_WAIT_S = 30.0
"""For a device to appear: a boot ROM takes a second or two, a slow USB hub and udev some more."""
PRESS_S = 0.3
_USB_ID = re.compile(r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}")


class Kind(StrEnum):
    """What an actuator is."""

    POWER = "power"
    OUTLET = "outlet"
    MUX = "mux"


STATES: dict[Kind, frozenset[str]] = {
    Kind.POWER: frozenset({"on", "off", "cycle"}),
    Kind.OUTLET: frozenset({"on", "off", "press"}),
    Kind.MUX: frozenset({"host", "board", "off"}),
}
"""What may be asked of each kind."""
LASTING = {"cycle": "on", "press": "off"}
"""In which state an action leaves its actuator; every other one is the state itself."""


@dataclass(frozen=True, slots=True)
class Actuator:
    """One thing that can be switched.

    Attributes:
        settle_s: rest after it was switched, before the next step.
        needs: what other actuators must be in while this one is switched, as `(name, state)`: an SD mux must not be
            turned under a running board.
    """

    kind: Kind
    settle_s: float = 0.0
    needs: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Switch:
    """Bring `actuator` into `state`. `for_s`: how long a button is pressed."""

    actuator: str
    state: str
    settle_s: float = 0.0
    for_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.actuator} {self.state}"


@dataclass(frozen=True, slots=True)
class Rest:
    """Do nothing for so long."""

    seconds: float

    def __str__(self) -> str:
        return f"wait {self.seconds:g}"


@dataclass(frozen=True, slots=True)
class Appear:
    """Wait until a device is there: `what` is `usb` or `path`."""

    what: str
    name: str
    deadline_s: float

    def __str__(self) -> str:
        return f"wait {self.what} {self.name}"


Step = Switch | Rest | Appear


def parse_step(text: str, actuators: Mapping[str, Actuator]) -> Step:
    """One step as a person writes it.

    Raises:
        ValueError: it names an actuator that is not there, or a state that it cannot have.
    """
    words = text.split()
    if words and words[0] == WAIT:
        return _parse_wait(text, words[1:])
    if len(words) < 2:
        raise ValueError(f"{text!r}: a step is ACTUATOR STATE, or wait SECONDS")
    name, state = words[:2]
    actuator = actuators.get(name)
    if actuator is None:
        known = ", ".join(sorted(actuators))
        raise ValueError(f"{text!r}: there is no actuator {name}; known are: {known}")
    if state not in STATES[actuator.kind]:
        known = ", ".join(sorted(STATES[actuator.kind]))
        raise ValueError(f"{text!r}: {name} can be {known}")
    for_s = PRESS_S if state == "press" else 0.0
    if len(words) == 3 and state == "press":
        for_s = _seconds(text, words[2])
    elif len(words) > 2:
        raise ValueError(f"{text!r}: nothing comes after {state}")
    return Switch(name, state, actuator.settle_s, for_s)


def _parse_wait(text: str, words: list[str]) -> Step:
    if len(words) == 1:
        return Rest(_seconds(text, words[0]))
    if len(words) in {2, 3} and words[0] in {"usb", "path"}:
        what, name = words[:2]
        if what == "usb" and not _USB_ID.fullmatch(name):
            raise ValueError(f"{text!r}: {name!r} is no USB device; write VENDOR:PRODUCT, as 0483:df11")
        if what == "path" and not name.startswith("/"):
            raise ValueError(f"{text!r}: {name!r} is no absolute path")
        deadline_s = _seconds(text, words[2]) if len(words) == 3 else DEFAULT_WAIT_S
        return Appear(what, name.lower() if what == "usb" else name, deadline_s)
    raise ValueError(f"{text!r}: write wait SECONDS, wait usb VENDOR:PRODUCT [SECONDS] or wait path PATH [SECONDS]")


def _seconds(text: str, word: str) -> float:
    try:
        found = float(word)
    except ValueError:
        found = -1.0
    if not 0 < found <= MAX_WAIT_S:
        raise ValueError(f"{text!r}: {word!r} are no seconds from 0 to {MAX_WAIT_S:g}")
    return found


def plan(steps: Sequence[Step], actuators: Mapping[str, Actuator]) -> list[Step]:
    """The steps with what their actuators need before them, where the steps themselves do not see to it.

    What an actuator is before the first step is not known, so every need is said once.

    Raises:
        ValueError: needs go round in a circle.
    """
    found: list[Step] = []
    states: dict[str, str] = {}

    def switch(step: Switch, on_behalf_of: tuple[str, ...]) -> None:
        if step.actuator in on_behalf_of:
            circle = " -> ".join((*on_behalf_of, step.actuator))
            raise ValueError(f"actuators need each other in a circle: {circle}")
        for name, state in actuators[step.actuator].needs:
            if states.get(name) != state:
                switch(Switch(name, state, actuators[name].settle_s), (*on_behalf_of, step.actuator))
        found.append(step)
        states[step.actuator] = LASTING.get(step.state, step.state)

    for step in steps:
        if isinstance(step, Switch):
            switch(step, ())
        else:
            found.append(step)
    return found


def left_in(steps: Sequence[Step]) -> dict[str, str]:
    """The state in which the steps leave each actuator that they touch."""
    return {step.actuator: LASTING.get(step.state, step.state) for step in steps if isinstance(step, Switch)}


def objections(modes: Mapping[str, Sequence[str]], actuators: Mapping[str, Actuator]) -> Iterator[tuple[str, str]]:
    """What is wrong with a board's modes, as `(mode, why)`; the empty mode is the actuators themselves."""
    for name, actuator in actuators.items():
        for other, state in actuator.needs:
            if other not in actuators or state not in STATES[actuators[other].kind] - LASTING.keys():
                yield "", f"actuator {name} needs {other!r} to be {state!r}, which cannot be"
                return
    left: dict[str, dict[str, str]] = {}
    for mode, words in modes.items():
        try:
            left[mode] = left_in(plan([parse_step(text, actuators) for text in words], actuators))
        except ValueError as error:
            yield mode, str(error)
    if not modes:
        return
    if NORMAL not in modes:
        yield "", f"there is no mode {NORMAL}: say how the board is brought back to work"
        return
    for mode, states in left.items():
        for forgotten in sorted(states.keys() - left.get(NORMAL, states).keys()):
            yield NORMAL, f"mode {mode} switches {forgotten}, and mode {NORMAL} does not say how it has to be"
