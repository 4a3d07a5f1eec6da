"""Catching a boot loader: whatever it prints, however it is cut and spoiled, and what must not deceive."""

import time
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_tools.bootloader.catch import PRESS_EVERY_S, TABLE, Catch, Caught, Manner, Missed, Sight, State
from firmware_tools.bootloader.dialect import DIALECTS, Kind, Status, is_kernel, stop_keys
from firmware_tools.bootloader.errors import NotAtPromptError
from firmware_tools.bootloader.exchange import INTERRUPT
from firmware_tools.bootloader.pacing import Pace
from tests.firmware_tools.bootloader_double import FakeUboot
from tests.firmware_tools.bootloader_drive import Clock, at_prompt, caught, drive, line_of

U_BOOT = DIALECTS[Kind.U_BOOT]


def cut(sizes):
    """Cuts what is said into pieces of these sizes, over and over."""

    def pieces(data):
        at, number, found = 0, 0, []
        while at < len(data):
            size = sizes[number % len(sizes)]
            found.append(data[at : at + size])
            at, number = at + size, number + 1
        return found

    return pieces


@settings(max_examples=60, deadline=None)
@given(
    prompt=st.sampled_from(["=> ", "U-Boot> ", "zynq-uboot> ", "MX8 # ", "(board@1) %", "strange: "]),
    echo=st.booleans(),
    speaks=st.sampled_from(["code", "branch", "none"]),
    delay_s=st.sampled_from([0.0, 1.0, 5.0]),
    banner_s=st.floats(0.0, 8.0),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=5),
)
def test_any_board_is_caught_however_its_words_are_cut(prompt, echo, speaks, delay_s, banner_s, sizes):
    fake = FakeUboot(prompt=prompt, echo=echo, speaks=speaks, delay_s=delay_s, banner_s=banner_s)
    made = at_prompt(fake, Clock(), pieces=cut(sizes))
    assert made.prompt == prompt
    assert made.status is Status(speaks)
    assert made.version == fake.version
    assert fake.boots == 1


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 0.05))
def test_noise_at_power_on_and_in_the_countdown_does_not_save_it(seed, share):
    random = Random(seed)

    def spoiled(data):
        return [bytes(random.randrange(256) if random.random() < share else octet for octet in data)]

    lines = tuple((n / 50, bytes(random.randrange(128) for _ in range(30)).decode()) for n in range(20))
    fake = FakeUboot(boot_lines=lines, delay_s=1.0)
    clock = Clock()
    fake.power_on()
    fake.say(0.0, bytes(random.randrange(256) for _ in range(200)))
    found = caught(fake, clock, Manner(within_s=300.0), pieces=spoiled)
    assert isinstance(found, Caught), found


@pytest.mark.parametrize(
    ("message", "keys"),
    [
        ("Hit any key to stop autoboot:  3 ", b" "),
        ("Hit any to stop autoboot:  3", b" "),
        ("Hit m for menu or any key to stop autoboot:    3", b" "),
        ('Autobooting in 3 seconds, press "<Esc><Esc>" to stop', b"\x1b\x1b"),
        ("Press ESC to abort autoboot in 3 seconds", b"\x1b"),
        ("Hit ESC key to stop autoboot:  3", b"\x1b"),
        ("Press SPACE to abort autoboot in 1 seconds", b" "),
        ("Hit Ctrl-C to stop autoboot:  3", b"\x03"),
        ("Hit ctrl-c to stop autoboot:    3", b"\x03"),
        ("Type 'sesame' to abort the boot", b"sesame"),
        ("Autobooting in 3 seconds, press 'stop' to stop", b"stop"),
        ("Autoboot in 3 seconds", b" "),
        ("the autoboot was fine", None),
    ],
)
def test_the_countdown_says_what_stops_it(message, keys):
    assert stop_keys(U_BOOT, message) == keys


@pytest.mark.parametrize("stop", [b"\x1b\x1b", b"\x03", b"sesame"])
def test_the_keys_of_the_message_are_pressed(stop):
    words = {b"\x1b\x1b": 'Autoboot in {left} seconds, press "<Esc><Esc>" to stop',
             b"\x03": "Hit ctrl-c to stop autoboot: {left}",
             b"sesame": "Type 'sesame' to stop: {left}"}[stop]  # fmt: skip
    assert at_prompt(FakeUboot(stop=stop, countdown=words), Clock()).prompt == "=> "


def test_a_secret_stop_word_comes_from_the_settings():
    fake = FakeUboot(stop=b"letmein", countdown="Autoboot in {left} seconds\n")
    assert at_prompt(fake, Clock(), manner=Manner(stop=b"letmein")).prompt == "=> "
    missed = caught(_powered(FakeUboot(stop=b"letmein", countdown="")), Clock(), Manner(within_s=30))
    assert isinstance(missed, Missed)
    assert missed.kernel
    assert "Starting kernel" in missed.why


def _powered(fake):
    fake.power_on()
    return fake


@pytest.mark.parametrize("line", ["=> ", "U-Boot> ", "root@pi:~# "])
def test_a_prompt_in_a_log_line_does_not_deceive(line):
    """It even stands there for a while before the line goes on, in the middle of the boot."""
    fake = FakeUboot(boot_lines=((0.0, "DRAM"), (0.9, "done"), (3.0, "Net")), delay_s=2.0)
    fake.power_on()
    fake.say(0.4, line)
    found = caught(fake, Clock())
    assert isinstance(found, Caught)
    assert found.prompt == "=> "


def test_lines_of_others_at_the_prompt_do_not_hide_it():
    noisy = tuple((0.05 + n * 0.4, f"\nwatchdog: kicked {n}\n=> ") for n in range(40))
    assert at_prompt(FakeUboot(at_prompt_lines=noisy), Clock()).version.startswith("U-Boot")


def test_a_boot_command_that_is_on_its_way_is_not_too_late():
    """The countdown is over and no kernel came: it stands at its prompt, and prints that once."""
    fake = FakeUboot(kernel=False, delay_s=0.0, stop=b"no way")
    assert at_prompt(fake, Clock()).prompt == "=> "


def test_nothing_is_pressed_at_the_prompt():
    clock = Clock()
    fake = _powered(FakeUboot())
    caught(fake, clock)
    tail = clock.typed[clock.typed.rindex(INTERRUPT) :]
    assert tail.startswith(INTERRUPT + b"echo '")
    assert tail.endswith(b":$?\r")


def test_a_dead_board_is_told_as_silent():
    found = caught(FakeUboot(), Clock(), Manner(within_s=5))
    assert isinstance(found, Missed)
    assert (found.heard, found.lines) == (False, ())


def test_a_system_that_answers_is_no_boot_loader():
    class Ash(FakeUboot):
        def _do_version(self, _words):
            self._print("-/bin/sh: version: not found\n")
            return 127

    with pytest.raises(NotAtPromptError, match="no u-boot: 'version' gives"):
        at_prompt(Ash(prompt="# "), Clock())


def test_without_power_only_a_countdown_is_answered():
    """A running system that shows a prompt is left alone; the countdown of its restart is not."""
    clock = Clock()
    fake = _powered(FakeUboot(stop=b"never", countdown=""))
    fake.say(6.0, "[  OK  ] Started\nroot@pi:~# ")
    manner = Manner(steady=False, within_s=20)
    catch = Catch(U_BOOT, "ab12cd34", manner, Pace())
    assert isinstance(drive(catch, fake, clock), Missed)
    assert clock.typed == b""
    assert isinstance(caught(_powered(FakeUboot(delay_s=3.0)), Clock(), manner), Caught)


def test_asking_at_once_finds_a_prompt_that_is_there_and_gives_up_where_none_is():
    clock = Clock()
    fake = FakeUboot()
    at_prompt(fake, clock)
    manner = Manner(steady=False, at_once=True, tries=2, within_s=15)
    began = clock.now
    assert isinstance(caught(fake, clock, manner), Caught)
    assert clock.now - began < 1.0
    fake._state = "dead"
    missed = caught(fake, clock, manner)
    assert isinstance(missed, Missed)
    assert missed.why == "no boot loader answers"


def test_barebox_is_caught_in_its_own_words():
    fake = FakeUboot(
        prompt="barebox@Phytec phyCARD:/ ", version="barebox 2024.01.0-20240101-1 #1 Mon Jan 1 00:00:00 UTC"
    )
    shell = at_prompt(fake, Clock(), line_of(kind=Kind.BAREBOX))
    assert (shell.prompt, shell.version) == (fake.prompt, fake.version)


def test_a_flood_without_line_ends_is_looked_at_quickly():
    catch = Catch(U_BOOT, "ab12cd34", Manner(within_s=3600.0), Pace())
    catch.begin(0.0)
    began_s = time.process_time()
    for number in range(200):
        catch.received(b"escesc<esc>press hit any key\r" * 200, number / 100)
    assert time.process_time() - began_s < 10.0, "1.2 MB; 0.3 s here"


def test_a_slow_uart_is_typed_to_slowly():
    pace = Pace(char_s=0.02, line_s=0.1)
    assert isinstance(caught(_powered(FakeUboot(char_least_s=0.015)), Clock(), line=line_of(pace), pace=pace), Caught)


def test_echoes_are_waited_for():
    pace = Pace(echo=True)
    assert isinstance(caught(_powered(FakeUboot()), Clock(), line=line_of(pace), pace=pace), Caught)


@pytest.mark.parametrize(
    "line", ["[    0.000000] Linux version 6.1", "\x00\xffStarting kernel ...", "Booting Linux on physical CPU 0x0"]
)
def test_a_kernel_is_known(line):
    assert is_kernel(line)


@pytest.mark.parametrize("line", ["bootcmd: Starting kernel ...", "see Linux version 6.1", "## Starting application"])
def test_a_line_about_a_kernel_is_none(line):
    assert not is_kernel(line)


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("sight", list(Sight))
def test_every_state_has_a_way_out_and_ends_are_ends(state, sight):
    after = TABLE[state].get(sight, state)
    if state in {State.CAUGHT, State.MISSED}:
        assert after is state
    if sight in {Sight.KERNEL, Sight.OVER, Sight.HUNG} and state is not State.CAUGHT:
        assert after is State.MISSED
    if after is State.CAUGHT and state is not State.CAUGHT:
        assert state is State.SETTLING, "only behind an answer"


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=60), st.floats(0.0, 3.0)), max_size=30))
def test_whatever_comes_it_ends_in_time_and_says_what_it_does_next(story):
    catch = Catch(U_BOOT, "ab12cd34", Manner(within_s=20.0), Pace())
    now = 0.0
    catch.begin(now)
    for data, after_s in story:
        until = now + after_s
        while catch.wake_at is not None and catch.wake_at <= until:
            now = max(now, catch.wake_at)
            catch.tick(now)
        now = until
        if catch.result is None:
            catch.received(data, now)
    steps = 0
    while catch.result is None:
        assert catch.wake_at is not None
        now = max(now, catch.wake_at)
        catch.tick(now)
        steps += 1
        assert steps < 20 / PRESS_EVERY_S * 4
    # From Python 3.12 on `sum` rounds floats once, at its end.
    assert now <= max(20.5, sum(after_s for _, after_s in story)) + 1e-6
