"""The dialogue with a shell: against one that is made up, in its own time, with everything a serial line does to it."""

import itertools
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.console.shell_dialogue import ShellDialogue
from agent.console.shell_sights import last_line, sight_of
from agent.console.shell_table import TABLE, Ended, Found, Invited, Lost, Output, ShellWays, Sight, State, Type
from agent.console.shell_text import StepOutput, escaped, piece_lengths, piece_lines, run_line
from tests.agent.console.fake_shell import FakeShell

NOISE = b"[   12.345678] usb 1-1: new device\r\n"
NOBODY = ShellWays()
LOGIN = ShellWays(user="root", password="s3cret")


class Talk:
    """A dialogue with a fake shell. `chop` says how long the next piece of what is printed is."""

    def __init__(self, shell, ways=NOBODY, chop=lambda: 4096):
        numbers = itertools.count(0x1000)
        self.dialogue = ShellDialogue(ways, lambda: f"{next(numbers):x}")
        self.shell, self.chop = shell, chop
        self.now, self.pending = 0.0, shell.banner()
        self.output, self.events, self.deaf = b"", [], False

    def step(self, end=float("inf")):
        """Do what is wanted, and hear what comes; where nothing comes, wait for what is due."""
        for action in self.dialogue.take():
            if isinstance(action, Type):
                self.pending += self.shell.typed(action.data)
            elif isinstance(action, Output):
                self.output += action.data
            else:
                self.events.append(action)
        if self.deaf:
            self.pending = b""
        if self.pending:
            size = max(1, self.chop())
            piece, self.pending = self.pending[:size], self.pending[size:]
            self.now += 0.001
            self.dialogue.feed(piece, self.now)
        else:
            due = self.dialogue.deadline()
            self.now = max(self.now + 0.001, min(end, self.now + 1 if due is None else due))
            self.dialogue.tick(self.now)

    def idle(self, seconds):
        end = self.now + seconds
        while self.now < end:
            self.step(end)

    def go(self, until, most_s=300.0):
        """Until an action of this kind; returns it."""
        end = self.now + most_s
        while self.now < end:
            found = next((event for event in self.events if isinstance(event, until)), None)
            if found is not None:
                self.events.remove(found)
                return found
            self.step()
        raise AssertionError(f"no {until} within {most_s} s; state {self.dialogue.state}, events {self.events}")

    def approach(self):
        self.dialogue.approach(self.now)
        return self.go((Found, Lost))

    def run(self, script="true", timeout_s=60.0):
        self.dialogue.run(script, timeout_s, self.now)
        return self.go(Ended)


def test_every_deed_of_the_table_is_there():
    for what, state in TABLE.values():
        assert callable(getattr(ShellDialogue, f"_{what}"))
        assert state in State
    for state in State:
        assert any(before is state for before, _ in TABLE), f"nothing leads out of {state}"


def test_nothing_is_typed_before_somebody_wants_the_shell():
    talk = Talk(FakeShell(login=(b"root", b"x")))
    sight = talk.go(Invited)
    assert (sight.sight, sight.line) == (Sight.LOGIN, "board login: ")
    assert talk.shell.typed_lines == 0


@given(
    data=st.data(),
    output=st.text(alphabet="ab $#@bh0129:e\n~", max_size=300),
    code=st.integers(0, 255),
    echo=st.booleans(),
    end=st.sampled_from([b"\r\n", b"\r\r\n", b"\n"]),
    login=st.booleans(),
    breaks=st.booleans(),
    script=st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=400),
)
@settings(max_examples=150, deadline=None)
def test_output_and_exit_code_come_through_whatever_the_line_does(data, output, code, echo, end, login, breaks, script):
    shell = FakeShell(
        echo=echo, end=end, output=output.encode(), code=code, breaks_mark=breaks,
        login=(b"root", b"s3cret") if login else None,
    )  # fmt: skip
    seed = data.draw(st.lists(st.integers(1, 40), min_size=1, max_size=5))
    sizes = itertools.cycle(seed)
    talk = Talk(shell, LOGIN, lambda: next(sizes))
    assert talk.approach() == Found()
    assert talk.run(script) == Ended(code)
    assert shell.scripts == [script.encode()]
    said = talk.output.decode()
    if not breaks:
        assert said == output
    else:
        assert said.startswith(output), "the broken mark is what is left over"
    assert talk.dialogue.state is State.SHELL
    assert talk.run("again") == Ended(code)


def test_a_kernel_that_talks_on_does_not_hide_the_login():
    talk = Talk(FakeShell(login=(b"root", b"s3cret")), LOGIN)
    shell_typed = talk.shell.typed
    talk.shell.typed = lambda data: shell_typed(data) + NOISE
    talk.pending += NOISE * 3
    assert talk.approach() == Found()


def test_both_marks_broken_are_asked_for():
    talk = Talk(FakeShell(code=5, output=b"words\n", breaks_both=True))
    talk.approach()
    talk.idle(5)  # the prompt is learned while it is quiet
    assert talk.run() == Ended(5)
    assert talk.output.startswith(b"words\n")


def test_lost_characters_are_noticed_and_typed_anew():
    talk = Talk(FakeShell(code=3, loses=frozenset({3, 4})))
    talk.approach()
    assert talk.run("echo " + "x" * 900) == Ended(3)
    assert talk.shell.scripts == [b"echo " + b"x" * 900]
    hopeless = Talk(FakeShell(loses=frozenset(range(3, 400))))
    hopeless.approach()
    assert "char_delay_ms" in hopeless.run("echo " + "x" * 900).problem


@pytest.mark.parametrize("ignores", [0, 1, 3])
def test_a_command_that_hangs_is_ended_and_the_shell_goes_on(ignores):
    talk = Talk(FakeShell(hangs=True, ignores=ignores, output=b"begun\n"))
    talk.approach()
    assert talk.run(timeout_s=9) == Ended(None, "timed out after 9 s", timed_out=True)
    assert talk.output == b"begun\n"
    talk.shell.hangs = False
    assert talk.run() == Ended(0)


def test_a_shell_that_does_not_come_back_is_lost():
    talk = Talk(FakeShell(hangs=True, ignores=100))
    talk.approach()
    ended = talk.run(timeout_s=9)
    assert ended.timed_out
    assert "does not come back" in ended.problem
    assert isinstance(talk.go(Lost), Lost)
    assert talk.dialogue.state is State.WATCHING


def test_a_stop_ends_it_with_its_reason():
    talk = Talk(FakeShell(hangs=True))
    talk.approach()
    talk.dialogue.run("x", 60, talk.now)
    talk.idle(5)
    talk.dialogue.interrupt("stopped: cancelled", talk.now)
    assert talk.go(Ended) == Ended(None, "stopped: cancelled")


@pytest.mark.parametrize(
    ("ways", "why"),
    [
        (ShellWays(), "name no user"),
        (ShellWays(user="root"), "no password_file"),
        (ShellWays(user="root", password="wrong"), "refuses user root"),
    ],
)
def test_a_login_that_cannot_be_passed_says_why(ways, why):
    talk = Talk(FakeShell(login=(b"root", b"s3cret")), ways)
    assert why in talk.approach().why
    assert talk.dialogue.state is State.WATCHING


def test_nothing_there_is_given_up():
    shell = FakeShell()
    shell.typed = lambda _data: b""
    talk = Talk(shell)
    talk.pending = b""
    assert "nothing answers" in talk.approach().why


@pytest.mark.parametrize("when", ["running", "typing", "shell"])
def test_a_restart_ends_what_runs(when):
    talk = Talk(FakeShell(hangs=True))
    talk.approach()
    if when != "shell":
        talk.dialogue.run("x", 60, talk.now)
    if when == "running":
        talk.idle(1)
    talk.dialogue.boot("the board lost its power", talk.now)
    if when != "shell":
        assert talk.go(Ended) == Ended(None, "the board lost its power")
    assert talk.go(Lost) == Lost("the board lost its power")


def test_a_port_that_comes_back_finds_the_end_that_nobody_heard():
    talk = Talk(FakeShell(code=4, output=b"heard\n"))
    talk.approach()
    talk.dialogue.run("x", 60, talk.now)
    while talk.dialogue.state is not State.RUNNING:
        talk.step()
    talk.deaf = True
    talk.idle(1)
    talk.dialogue.port(is_open=False, now=talk.now)
    talk.deaf = False
    talk.dialogue.port(is_open=True, now=talk.now + 5)
    assert talk.go(Ended).exit_code == 4


def test_a_port_that_stays_away_is_the_end():
    talk = Talk(FakeShell(hangs=True))
    talk.approach()
    talk.dialogue.run("x", 600, talk.now)
    talk.idle(1)
    talk.dialogue.port(is_open=False, now=talk.now)
    assert "port was away" in talk.go(Ended).problem


@pytest.mark.parametrize(
    ("line", "sight"),
    [
        (b"buildroot login: ", Sight.LOGIN),
        (b"login:", Sight.LOGIN),
        (b"Last login: ", Sight.OTHER),
        (b"Password: ", Sight.PASSWORD),
        (b"Please press Enter to activate this console. ", Sight.ENTER),
        (b"~ # ", Sight.OTHER),
    ],
)
def test_what_stands_there(line, sight):
    assert sight_of(line) is sight


def test_a_line_is_read_through_escapes_and_a_kernel():
    assert last_line(b"x\r\n\x1b[?2004h~ # \x1b[6n") == b"~ # "
    assert last_line(b"board login: " + NOISE + NOISE[:20]) == b"board login: "


@given(st.binary(max_size=300), st.lists(st.integers(1, 30), min_size=1, max_size=5))
def test_output_of_any_bytes_ends_at_the_mark(said, sizes):
    """What is held back is given out in the end, and nothing of the mark is ever output."""
    output, stream, out, code = StepOutput("12ab"), said + b"\r\n@bh12abe 12ab:7\r\nmore", b"", None
    for size in itertools.cycle(sizes):
        piece, stream = stream[:size], stream[size:]
        found, code = output.feed(piece)
        out += found
        if code is not None or not stream:
            break
    assert code == 7
    assert out.replace(b"\r", b"") == said.replace(b"\r", b"")


@pytest.mark.parametrize("shell", [["dash"], ["bash", "--norc"], ["busybox", "sh"]])
def test_real_shells_read_what_is_typed(shell):
    script = "printf '%s|' \"it's\" 'a\\b' \"$((6*7))\" ü '!x'; printf '\\ttab\\n'\nexit 9"
    lines = [*piece_lines(script, "ab12", 120), run_line("ab12")]
    done = subprocess.run(shell, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=60, check=False)
    assert "it's|a\\b|42|ü|!x|\ttab\n" in done.stdout, done
    assert done.stdout.count("@bhab12e ab12:9\n") == 2
    for n, length in enumerate(piece_lengths(script, 120)):
        assert f"@bhab12n {n}:{length}\n" in done.stdout
    assert max(map(len, lines[:-1])) <= 120
    assert escaped("\n") == "\\0012"
