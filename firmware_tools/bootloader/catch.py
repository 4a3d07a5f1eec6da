"""A boot loader is caught: its countdown stopped, however late or garbled it is seen, and its prompt found.

All that decides stands in `TABLE`. Keys are pressed steadily from the moment the power is to come, because the sight of
a countdown may be garbled, or its message another. What looks like a prompt is believed when a shell behind it has put
the two halves of a marker together: a log line cannot do that, nor can an echo.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

from firmware_tools.bootloader.dialect import (
    Dialect,
    Status,
    is_hung,
    is_kernel,
    looks_like_prompt,
    stop_keys,
)
from firmware_tools.bootloader.exchange import END_OF_LINE, INTERRUPT, Exchange
from firmware_tools.bootloader.pacing import Pace

PRESS_EVERY_S = 0.1
"""U-Boot looks for a key at least every 10 ms of its countdown; with `bootdelay=0` once, at its begin."""
LULL_S = 2.0
"""Without an ended line: it may stand at a prompt of which nothing is known, or that it does not print."""
DRAIN_QUIET_S = 0.2
"""The echo of keys that were pressed too often has come by then: 2 000 characters at 115200 baud."""
CLEAR_QUIET_S = 0.1
SETTLE_QUIET_S = 0.15
LATE_S = {"draining": 2.0, "clearing": 1.0, "probing": 2.0, "settling": 2.0}
"""How long each state waits for what it waits for. A boot loader answers `echo` in milliseconds."""


class State(StrEnum):
    """How far it is."""

    SEEKING = "seeking"
    """Keys are pressed, and the countdown or a prompt is looked for."""
    DRAINING = "draining"
    """This may be a prompt: no key more, until what was typed before has been echoed."""
    CLEARING = "clearing"
    """Ctrl-C was sent, so that nothing stands half typed."""
    PROBING = "probing"
    SETTLING = "settling"
    """A shell has answered; its prompt follows."""
    CAUGHT = "caught"
    MISSED = "missed"


class Sight(StrEnum):
    """What can be seen."""

    COUNTDOWN = "countdown"
    PROMPT = "what looks like a prompt"
    LINE = "another line"
    MARKER = "the marker"
    KERNEL = "a kernel"
    HUNG = "it hangs"
    LULL = "no line for a while"
    QUIET = "nothing for a moment"
    LATE = "no answer"
    OVER = "time is up"


_S, _T = State, Sight
_ENDS = {_T.KERNEL: _S.MISSED, _T.HUNG: _S.MISSED, _T.OVER: _S.MISSED}
_BACK = {**_ENDS, _T.COUNTDOWN: _S.SEEKING}

TABLE: dict[State, dict[Sight, State]] = {
    _S.SEEKING: {**_BACK, _T.PROMPT: _S.DRAINING, _T.LULL: _S.CLEARING},
    # A prompt is the last that it says; behind this one a line went on.
    _S.DRAINING: {**_BACK, _T.LINE: _S.SEEKING, _T.QUIET: _S.CLEARING, _T.LATE: _S.CLEARING},
    _S.CLEARING: {**_BACK, _T.QUIET: _S.PROBING, _T.LATE: _S.PROBING},
    _S.PROBING: {**_BACK, _T.MARKER: _S.SETTLING, _T.LATE: _S.SEEKING},
    _S.SETTLING: {**_BACK, _T.QUIET: _S.CAUGHT, _T.LATE: _S.CAUGHT},
    _S.CAUGHT: {},
    _S.MISSED: {},
}
"""Where a sight is absent, the state stays."""

ECHOES = ("<INTERRUPT>", "^C")
"""Of Ctrl-C, by a line editor: so there is a prompt, whatever it looks like."""


def mermaid() -> str:
    """The table as a Mermaid state diagram; the ways to `missed` are said in a note."""
    lines = ["stateDiagram-v2", "    [*] --> seeking"]
    for state, row in TABLE.items():
        arrows: dict[State, list[str]] = {}
        for sight, after in row.items():
            if after not in {state, State.MISSED}:
                arrows.setdefault(after, []).append(sight.value)
        lines += [f"    {state} --> {after}: {', '.join(sights)}" for after, sights in arrows.items()]
    ends = ", ".join(_ENDS)
    lines.append(f"    note right of seeking: from every state to missed: {ends}, nothing answers as often as allowed")
    return "\n".join([*lines, "    caught --> [*]"]) + "\n"


_QUIET_S = {State.DRAINING: DRAIN_QUIET_S, State.CLEARING: CLEAR_QUIET_S, State.SETTLING: SETTLE_QUIET_S}


@dataclass(frozen=True, slots=True)
class Manner:
    """How one board is caught.

    Attributes:
        prompt: the board's prompt, where it is known.
        stop: what stops its countdown, where settings say; else the countdown's message, or any key.
        steady: press from the begin, and not only at the sight of a countdown.
        at_once: ask whether it stands at its prompt already, and again whenever it looks so.
        tries: how many questions go unanswered before it is given up; None: until time is up.
        within_s: from the begin to the prompt, at most.
    """

    prompt: str | None = None
    stop: bytes | None = None
    steady: bool = True
    at_once: bool = False
    tries: int | None = None
    within_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Caught:
    """It stands at its prompt.

    Attributes:
        prompt: as it printed it behind its answer; empty where it prints none.
        status: how its shell tells outcomes, as far as `echo $?` shows.
        banner: the last that was seen of it since the begin.
    """

    prompt: str
    status: Status
    banner: str | None
    took_s: float


@dataclass(frozen=True, slots=True)
class Missed:
    """It did not stop, or is not there. `heard`: whether anything came; `why` is for people."""

    why: str
    heard: bool
    lines: tuple[str, ...]
    kernel: bool = False


class Catch(Exchange[Caught | Missed]):
    """One try. `marker`: 8 letters and digits that stand nowhere else."""

    stage = "catch"

    def __init__(self, dialect: Dialect, marker: str, manner: Manner, pace: Pace) -> None:
        super().__init__()
        self.state = State.SEEKING
        self._dialect = dialect
        self._marker = marker
        self._manner = manner
        self._press = (manner.stop,) if manner.stop is not None else dialect.press
        half = len(marker) // 2
        self._probe = f"echo '{marker[:half]}''{marker[half:]}':$?".encode() + END_OF_LINE
        self._answer = re.compile(re.escape(marker) + r":(\d+)?")
        # In a line that has not ended more may come, unless noise took its end and the prompt follows.
        self._answer_lost = re.compile(re.escape(marker) + r":(\d+)[^\d\s]")
        self._probe_s = pace.takes_s(self._probe)
        self._every_s = max(PRESS_EVERY_S, *(pace.takes_s(keys) for keys in self._press))
        self._pressing = manner.steady
        self._pressed = 0
        self._unanswered = 0
        self._heard = False
        self._counted = False  # the countdown in the line that has not ended was told
        self._status = Status.NONE
        self._banner: str | None = None
        self._why = ""
        self._kernel = False
        self._began_s = self._over_s = self._last_s = self._line_s = self._entered_s = self._press_s = 0.0

    # --- the exchange --------------------------------------------------------------------------------------------

    def begin(self, now: float) -> bytes:
        self._began_s = self._last_s = self._line_s = self._entered_s = now
        self._press_s = now
        self._over_s = now + self._manner.within_s
        if self._manner.at_once:
            typed = self._enter(State.CLEARING, now)
            self._set_alarm()
            return typed
        return self.tick(now)

    def received(self, data: bytes, now: float) -> bytes:
        if data.strip(b"\0"):
            self._heard = True
        self._last_s = now
        typed = b""
        for line in self.text.feed(data):
            self._counted = False
            for sight in self._judge(line, now):
                typed += self._see(sight, now)
        partial = self.text.partial
        keys = None if self._counted else stop_keys(self._dialect, partial)
        if keys is not None:
            self._counted = True
            typed += self._countdown(keys, now)
        elif self._has_answered(partial, self._answer_lost):
            typed += self._see(Sight.MARKER, now)
        elif self._asks and looks_like_prompt(self._dialect, partial, self._manner.prompt):
            typed += self._see(Sight.PROMPT, now)
        self._set_alarm()
        return typed

    def tick(self, now: float) -> bytes:
        typed = b""
        if self.result is None and now >= self._over_s:
            self._why = self._why or "no prompt was found in time"
            typed += self._see(Sight.OVER, now)
        quiet_s = _QUIET_S.get(self.state)
        if quiet_s is not None and now >= self._last_s + quiet_s and now >= self._entered_s + quiet_s:
            typed += self._see(Sight.QUIET, now)
        elif self.state in LATE_S and now >= self._late_s():
            typed += self._see(Sight.LATE, now)
        if self.state is State.SEEKING:
            typed += self._seek(now)
        self._set_alarm()
        return typed

    def power_came(self, now: float, within_s: float) -> None:
        """The power is on for certain: it has `within_s` seconds from now on to come to its prompt."""
        if self.result is None:
            self._over_s = now + within_s
            self._set_alarm()

    # --- deciding ------------------------------------------------------------------------------------------------

    @property
    def _asks(self) -> bool:
        """Whether what looks like a prompt is asked; else it may be that of a system that runs."""
        return self._pressing or self._manner.at_once

    def _judge(self, line: str, now: float) -> list[Sight]:
        if not line.strip():
            return []
        if line.rstrip().endswith(ECHOES):
            return [Sight.PROMPT] if self._asks else []
        if self._has_answered(line, self._answer):
            return [Sight.MARKER]
        if self.state in {State.SEEKING, State.DRAINING}:
            self._line_s = now
        if self._dialect.banner.match(line):
            self._banner = line.strip()
        if is_kernel(line):
            self._why, self._kernel = f"a kernel was started: {line.strip()}", True
            return [Sight.KERNEL]
        if is_hung(self._dialect, line):
            self._why = f"it hangs: {line.strip()}"
            return [Sight.HUNG]
        return [Sight.LINE]

    def _has_answered(self, line: str, answer: re.Pattern[str]) -> bool:
        match = answer.search(line)
        if match is None or self.state is not State.PROBING:
            return False
        self._status = Status.CODE if match[1] is not None else Status.NONE
        return True

    def _countdown(self, keys: bytes, now: float) -> bytes:
        self._pressing = True
        self._line_s = now
        if self._manner.stop is None:
            self._press = (keys,) if keys != b" " else self._dialect.press
        typed = self._see(Sight.COUNTDOWN, now)
        if self.state is not State.SEEKING:
            return typed
        self._press_s = now + self._every_s
        return typed + self._press[0]

    def _see(self, sight: Sight, now: float) -> bytes:
        state = TABLE[self.state].get(sight)
        if state is None:
            return b""
        if self.state is State.PROBING and state is State.SEEKING:
            self._unanswered += 1
            if self._manner.tries is not None and self._unanswered >= self._manner.tries:
                self._why, state = "no boot loader answers", State.MISSED
        return self._enter(state, now)

    def _enter(self, state: State, now: float) -> bytes:
        self.state = state
        self._entered_s = now
        if state is State.SEEKING:
            self._line_s = now
            self._press_s = now + self._every_s
        elif state is State.CLEARING:
            return INTERRUPT
        elif state is State.PROBING:
            return self._probe
        elif state is State.CAUGHT:
            prompt = self.text.partial
            self.result = Caught(prompt, self._status, self._banner, now - self._began_s)
        elif state is State.MISSED:
            self.result = Missed(self._why, self._heard, tuple(self.text.last_lines()), self._kernel)
        return b""

    def _seek(self, now: float) -> bytes:
        if self._asks and now >= self._line_s + LULL_S:
            return self._see(Sight.LULL, now)
        if not self._pressing or now < self._press_s:
            return b""
        self._press_s = now + self._every_s
        self._pressed += 1
        return self._press[self._pressed % len(self._press)]

    def _late_s(self) -> float:
        return self._entered_s + LATE_S[self.state] + (self._probe_s if self.state is State.PROBING else 0.0)

    def _set_alarm(self) -> None:
        if self.result is not None:
            self.wake_at = None
            return
        times = [self._over_s]
        if self.state in _QUIET_S:
            times.append(max(self._last_s, self._entered_s) + _QUIET_S[self.state])
        if self.state in LATE_S:
            times.append(self._late_s())
        if self.state is State.SEEKING:
            if self._pressing:
                times.append(self._press_s)
            if self._asks:
                times.append(self._line_s + LULL_S)
        self.wake_at = min(times)
