"""The dialogue with a board's shell: find it, log in, run commands, get it back. Bytes and time in, actions out.

Two rules. Every transition stands in `shell_table.TABLE`. Nothing is typed but when somebody wants the shell
(`approach`) or runs something: a key at the wrong moment stops a boot loader.

A shell is believed to be one when it has answered a probe; a prompt is only where one is looked for.
"""

import re
from collections.abc import Callable

from agent.console import shell_timing as timing
from agent.console.shell_sights import PROMPT, last_line, sight_of
from agent.console.shell_table import (
    AT_EASE,
    AT_WORK,
    TABLE,
    Action,
    Ended,
    Found,
    Invited,
    Lost,
    Output,
    ShellWays,
    Sight,
    State,
    Type,
)
from agent.console.shell_text import MarkKind as Mark
from agent.console.shell_text import (
    StepOutput,
    ask_line,
    mark_of,
    piece_lengths,
    piece_lines,
    probe_line,
    run_line,
)


class ShellDialogue:
    """One console's. The adapter tells what was heard and what time it is, and does what `take` gives."""

    def __init__(self, ways: ShellWays, number: Callable[[], str]) -> None:
        """`number` draws one in hexadecimal that nobody can guess."""
        self.ways = ways
        self.state = State.WATCHING
        self._draw = number
        self._number = ""
        self._out: list[Action] = []
        self._tail, self._line = b"", b""
        self._now = 0.0
        self._heard_at = 0.0
        self._looked = True
        self._due: float | None = None
        self._give_up: float | None = None
        self._refusals = 0
        self._probes = 0
        self._why = ""
        self._script = ""
        self._timeout_s = 0.0
        self._run_until = 0.0
        self._lines: list[str] = []
        self._lengths: list[int] = []
        self._at = 0
        self._transfers = 0
        self._output: StepOutput | None = None
        self._prompt: bytes | None = None
        self._interrupts = 0
        self._working = False
        self._timed_out = False
        self._code: int | None = None
        self._away_since: float | None = None

    # --- what the adapter asks ------------------------------------------------------------------------------------

    def take(self) -> list[Action]:
        """What is to be done now."""
        actions, self._out = self._out, []
        return actions

    @property
    def heard_at(self) -> float:
        """When something changed on the line where the cursor stands; what a kernel says does not count."""
        return self._heard_at

    def deadline(self) -> float | None:
        """When `tick` is wanted."""
        looks = [] if self._looked else [self._heard_at + self._quiet_s()]
        busy = self.state in (*AT_EASE, *AT_WORK)
        away = [self._away_since + timing.AWAY_S] if busy and self._away_since is not None else []
        due = [self._due, self._give_up] if self._away_since is None else []
        return min((at for at in [*due, *looks, *away] if at is not None), default=None)

    # --- what the adapter tells -----------------------------------------------------------------------------------

    def approach(self, now: float) -> None:
        """Somebody wants the shell: look for it, log in where that is asked. `Found` or `Lost` follows."""
        self._now = now
        self._give_up, self._refusals, self._probes = now + timing.APPROACH_S, 0, 0
        self._why = "nothing answers there as a shell"
        self._on(Sight.APPROACH)

    def run(self, script: str, timeout_s: float, now: float) -> None:
        """Run `script` in the shell that was found; `Ended` follows. Its time counts from when it begins."""
        self._now = now
        self._script, self._timeout_s = script, timeout_s
        self._transfers, self._interrupts, self._timed_out, self._code, self._why = 0, 0, False, None, ""
        self._on(Sight.RUN)

    def interrupt(self, why: str, now: float) -> None:
        """End the running command; `Ended` follows, with `why` as its problem."""
        self._now, self._why = now, why
        self._on(Sight.INTERRUPT)

    def boot(self, why: str, now: float) -> None:
        """What ran on the board is gone."""
        self._now, self._tail, self._line, self._prompt, self._why = now, b"", b"", None, why
        self._on(Sight.BOOT)

    def refuse(self, why: str, now: float) -> None:
        """What was to be typed was not let through."""
        self._now = now
        self._lost(why)

    def port(self, *, is_open: bool, now: float) -> None:
        """The console's port opened or went away."""
        self._now = now
        if not is_open:
            self._away_since = now if self._away_since is None else self._away_since
        elif self._away_since is not None:
            self._away_since = None
            if self.state is State.RUNNING and self._due is not None:
                self._type(ask_line(self._number))  # the mark may have come while nobody heard it
                self._due = max(self._due, now + timing.SUSPECT_S)

    def feed(self, data: bytes, now: float) -> None:
        """The board said `data`."""
        self._now = now
        if self.state is State.RUNNING and self._output is not None:
            self._feed_output(self._output, data)
        else:
            self._tail = (self._tail + data)[-timing.TAIL_BYTES :]
        self._read_marks()
        line = last_line(self._tail)
        if line != self._line:  # a kernel that talks on and on is quiet, too
            self._line, self._heard_at, self._looked = line, now, False

    def tick(self, now: float) -> None:
        """Time has passed."""
        self._now = now
        if (
            self._away_since is not None
            and now >= self._away_since + timing.AWAY_S
            and self.state in (*AT_EASE, *AT_WORK)
        ):
            self._lost(f"its console's port was away for {timing.AWAY_S:g} s")
        if not self._looked and now >= self._heard_at + self._quiet_s():
            self._looked = True
            self._look()
        if self._away_since is None and self._give_up is not None and now >= self._give_up:
            self._lost(self._why)
        if self._away_since is None and self._due is not None and now >= self._due:
            self._due = None
            self._on(Sight.DUE)

    # --- what is heard --------------------------------------------------------------------------------------------

    def _quiet_s(self) -> float:
        if self.state in (State.LOGGING_IN, State.PASSWORD_TYPED):
            line = last_line(self._tail)
            asks = sight_of(line) is not Sight.OTHER or (self.ways.prompt or PROMPT).search(line) is not None
            return timing.LOOK_S if asks else timing.LOGIN_ANSWER_S
        return timing.SUSPECT_S if self.state is State.RUNNING else timing.LOOK_S

    def _look(self) -> None:
        """The console is quiet: what stands there?"""
        line = last_line(self._tail)
        sight = sight_of(line)
        if self.state is State.RUNNING:
            self._look_at_run(line, sight)
        elif self.state is State.SHELL:
            self._prompt = line.strip() or self._prompt
            if sight is Sight.LOGIN:
                self._on(sight)
        elif self.state is State.WATCHING:
            prompt = self.ways.prompt or PROMPT
            if sight is not Sight.OTHER or prompt.search(line) is not None:
                self._out.append(Invited(sight, line.decode(errors="replace")[-120:]))
        else:
            self._on(sight)

    def _look_at_run(self, line: bytes, sight: Sight) -> None:
        if sight is Sight.LOGIN and self._now < self._heard_at + timing.GONE_S:
            self._looked, self._heard_at = False, self._heard_at + timing.GONE_S - timing.SUSPECT_S
        elif sight is Sight.LOGIN:
            self._why = "a login prompt stands there: the board has restarted, or its shell has ended"
            self._on(sight)
        elif self._prompt and line.strip() == self._prompt:
            self._type(ask_line(self._number))

    def _read_marks(self) -> None:
        """One mark after the other, as long as there is one that counts in this state."""
        while (reader := _READERS.get(self.state)) is not None and reader(self):
            pass

    def _cut(self, kind: Mark) -> re.Match[bytes] | None:
        match = mark_of(self._number, kind).search(self._tail)
        if match is not None:
            self._tail = self._tail[match.end() :]
        return match

    def _read_probe(self) -> bool:
        if self._cut(Mark.PROBE) is None:
            return False
        self._on(Sight.PROBED)
        return True

    def _read_piece(self) -> bool:
        match = self._cut(Mark.PIECE)
        if match is None:
            return False
        at, length = int(match[1]), int(match[2])
        if at != self._at or length != self._lengths[at]:
            self._due = None
            self._on(Sight.DUE)
        elif at + 1 < len(self._lines):
            self._at += 1
            self._type_piece()
        else:
            self._on(Sight.TYPED)
        return True

    def _read_run(self) -> bool:
        asked = mark_of(self._number, Mark.ASKED).search(self._tail)
        if asked is not None and asked[1]:
            self._tail, self._code = b"", int(asked[1].split(b":")[1])
            self._on(Sight.ENDED)
            return False
        if self._output is not None:
            return False
        match = mark_of(self._number, Mark.BEGIN).search(self._tail)
        end = mark_of(self._number, Mark.END).search(self._tail)
        if match is None and end is None:
            return False
        begin = match.end() if match is not None else self._tail.find(b"\n") + 1
        rest, self._tail = self._tail[begin:], b""
        self._output = StepOutput(self._number)
        self._feed_output(self._output, rest)
        return True

    def _feed_output(self, output: StepOutput, data: bytes) -> None:
        self._tail = (self._tail + data)[-timing.TAIL_BYTES :]
        found, code = output.feed(data)
        if found:
            self._out.append(Output(found))
        if code is not None:
            self._code = code
            self._tail = b""
            self._on(Sight.ENDED)

    def _read_end(self) -> bool:
        ended = self._cut(Mark.END)
        if ended is not None:
            self._code = int(ended[1])
            self._on(Sight.ENDED)
        elif self._cut(Mark.ASKED) is not None:
            self._on(Sight.BACK)  # how it ended does not count any more
        return False

    # --- what is done ---------------------------------------------------------------------------------------------

    def _on(self, sight: Sight) -> None:
        found = TABLE.get((self.state, sight))
        if found is None:
            return
        what, self.state = found
        self._due = None
        getattr(self, f"_{what}")()

    def _lost(self, why: str) -> None:
        self._why = why
        self._on(Sight.LOST)

    def _type(self, line: str) -> None:
        self._out.append(Type(line.encode() + timing.ENTER_KEY))
        if self.state in AT_EASE:
            self._heard_at, self._looked = self._now, False

    def _nudge(self) -> None:
        # What somebody left half-typed, or running, is not to be taken for an answer; at a prompt Ctrl-C is harmless.
        before = timing.CTRL_C if self._probes > 1 else b""
        self._tail = b""
        self._out.append(Type(before + timing.ENTER_KEY))
        self._heard_at, self._looked = self._now, False

    def _probe(self) -> None:
        self._probes += 1
        self._give_up = self._give_up or self._now + timing.APPROACH_S
        self._number, self._tail = self._draw(), b""
        self._out.append(Type(timing.CTRL_U))
        self._type(probe_line(self._number))
        self._due = self._now + timing.PROBE_S + self._typing_s(80)

    def _user(self) -> None:
        if self.ways.user is None:
            self._lost("a login prompt stands there, and the settings name no user for it")
            return
        self._tail = b""
        self._type(self.ways.user)

    def _password(self) -> None:
        if self.ways.password is None:
            self._lost(f"a password is asked for user {self.ways.user}, and the settings name no password_file")
            return
        self._tail = b""
        self._type(self.ways.password)

    def _refused(self) -> None:
        self._refusals += 1
        self._why = f"its login refuses user {self.ways.user}"
        if self._refusals >= timing.MAX_REFUSALS:
            self._lost(self._why)
        else:
            self._nudge()

    def _found(self) -> None:
        self._give_up = None
        self._out.append(Found())

    def _logged_out(self) -> None:
        self._out += [Lost("somebody logged out"), Invited(Sight.LOGIN, "login")]

    def _begin_typing(self) -> None:
        self._working = True
        self._number, self._output, self._tail, self._at = self._draw(), None, b"", 0
        self._lines = piece_lines(self._script, self._number, self.ways.line_characters)
        self._lengths = piece_lengths(self._script, self.ways.line_characters)
        self._type_piece()

    def _type_again(self) -> None:
        self._transfers += 1
        if self._transfers >= timing.TRANSFERS:
            self._lost(
                f"characters were lost on the way to it, {timing.TRANSFERS} times; set char_delay_ms of its console"
            )
            return
        self._out.append(Type(timing.CTRL_C + timing.ENTER_KEY, timing.RETYPE_S))
        self._begin_typing()

    def _type_piece(self) -> None:
        line = self._lines[self._at]
        self._type(line)
        self._due = self._now + timing.ACK_S + self._typing_s(len(line))

    def _typing_s(self, characters: int) -> float:
        return characters * self.ways.char_delay_s

    def _begin_running(self) -> None:
        self._tail = b""
        self._type(run_line(self._number))
        self._due = self._now + self._timeout_s

    def _interrupt(self) -> None:
        if not self._why:
            self._why, self._timed_out = f"timed out after {self._timeout_s:g} s", True
        if self._interrupts >= len(timing.INTERRUPTS):
            self._lost(f"{self._why}; it cannot be ended: its shell does not come back")
            return
        keys, wait_s = timing.INTERRUPTS[self._interrupts]
        self._interrupts += 1
        self._out.append(Type(keys or ask_line(self._number).encode() + timing.ENTER_KEY))
        self._due = self._now + wait_s + self._typing_s(80)

    def _end(self) -> None:
        why, self._why = self._why or None, ""
        self._working = False
        self._give_out_rest()
        self._out.append(Ended(None if why else self._code, why, self._timed_out))

    def _give_out_rest(self) -> None:
        output, self._output = self._output, None
        if output is not None and (rest := output.rest()):
            self._out.append(Output(rest))

    def _lose(self) -> None:
        self._give_up = None
        self._give_out_rest()
        if self._working:
            self._working = False
            self._out.append(Ended(None, self._why, self._timed_out))
        self._out.append(Lost(self._why))


_READERS: dict[State, Callable[[ShellDialogue], bool]] = {
    State.PROBING: ShellDialogue._read_probe,  # noqa: SLF001  # a table of our own methods
    State.TYPING: ShellDialogue._read_piece,  # noqa: SLF001
    State.RUNNING: ShellDialogue._read_run,  # noqa: SLF001
    State.ENDING: ShellDialogue._read_end,  # noqa: SLF001
}
