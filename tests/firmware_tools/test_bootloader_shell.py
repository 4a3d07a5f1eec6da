"""Commands, variables and netboot at a boot loader's prompt, against one with the habits of real ones."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_tools.bootloader import environment, shell
from firmware_tools.bootloader.command import Command, Ended
from firmware_tools.bootloader.console_text import PARTIAL_MOST, ConsoleText, plain
from firmware_tools.bootloader.dialect import DIALECTS, Kind, Status, quoted
from firmware_tools.bootloader.errors import CommandError, LeftError, WordsError
from firmware_tools.bootloader.netboot import Booted, NetbootOrder, filled, netboot
from firmware_tools.bootloader.pacing import Pace, Pacer
from tests.firmware_tools.bootloader_double import FakeUboot
from tests.firmware_tools.bootloader_drive import Clock, at_prompt, follow, line_of

U_BOOT = DIALECTS[Kind.U_BOOT]
TEXT = st.text(string.ascii_letters + string.digits + " '\"\\$&|;#{}=.,:/!?*()", min_size=1, max_size=120)


class Bench:
    """A fake U-Boot that was caught."""

    def __init__(self, pieces=lambda data: [data], line=None, pace=None, **fake):
        self.how = {"pieces": pieces} | ({"pace": pace} if pace else {})
        self.clock, self.fake = Clock(), FakeUboot(**fake)
        self.shell = at_prompt(self.fake, self.clock, line or line_of(pace), **self.how)
        self.fake.commands.clear()
        self.clock.typed = b""

    def follow(self, flow):
        return follow(flow, self.fake, self.clock, **self.how)

    def run(self, command, **how):
        return self.follow(shell.run(self.shell, command, **how))


@pytest.mark.parametrize("kind", ["code", "branch"])
@pytest.mark.parametrize("echo", [True, False])
def test_a_command_has_outcome_and_output(kind, echo):
    bench = Bench(speaks=kind, echo=echo)
    said = bench.run("echo one; echo two")
    assert (said.ended, said.ok, said.output) == (Ended.DONE, True, "one\ntwo")
    failed = bench.run("false")
    assert (failed.ended, failed.status, failed.ok, failed.output) == (Ended.DONE, 1, False, "")
    unknown = bench.run("nosuch")
    assert unknown.ok is False
    assert unknown.output.startswith("Unknown command 'nosuch'")


def test_a_shell_that_tells_no_outcome_is_not_believed_to_have_told_success():
    bench = Bench(speaks="none")
    assert bench.shell.status is Status.NONE
    assert (bench.run("false").ok, bench.run("true").ok) == (None, None)
    assert bench.run("nosuch").ok is False


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.booleans())
def test_output_is_the_same_however_it_is_cut(sizes, echo):
    def pieces(data):
        found, at, number = [], 0, 0
        while at < len(data):
            size = sizes[number % len(sizes)]
            found.append(data[at : at + size])
            at, number = at + size, number + 1
        return found

    bench = Bench(pieces=pieces, echo=echo)
    assert bench.run("echo => is no prompt; echo bye").output == "=> is no prompt\nbye"


def test_version_prints_a_banner_and_is_no_reset():
    assert Bench().run("version").output.startswith("U-Boot 2024.01")


def test_a_reset_a_kernel_and_a_hang_are_told():
    assert Bench().run("reset").ended is Ended.RESET
    assert Bench(source="kernel").run("source 0").ended is Ended.KERNEL
    assert Bench(source="hang").run("source 0").ended is Ended.HUNG


def test_a_command_that_takes_too_long_is_interrupted_and_the_prompt_is_back():
    bench = Bench()
    late = bench.run("sleep 100", within_s=5.0)
    assert (late.ended, late.ok) == (Ended.TIMEOUT, False)
    assert 5.0 <= late.took_s < 7.0
    assert bench.run("echo there").output == "there"


def test_a_board_that_is_gone_is_told_as_silent():
    bench = Bench()
    bench.fake._state = "dead"
    gone = bench.run("echo there", within_s=5.0)
    assert gone.ended is Ended.SILENT
    with pytest.raises(LeftError, match="nor by Ctrl-C"):
        shell.still_there(gone)


def test_a_lost_line_end_and_a_lost_first_marker_do_not_lose_the_end():
    command = Command(U_BOOT, "echo x", "ab12cd34", Status.CODE, Pace())
    command.begin(0.0)
    command.received(
        b"=> echo 'ab12''cd34B'; echo x; echo 'ab12''cd34E':$?\r\nab12\xffd34B\r\nx\r\nab12cd34E:0=> ", 0.1
    )
    assert command.result.status == 0
    assert command.result.output.endswith("x")
    assert "echo x" not in command.result.output


def test_half_a_status_is_not_taken_for_the_whole():
    command = Command(U_BOOT, "x", "ab12cd34", Status.CODE, Pace())
    command.begin(0.0)
    command.received(b"ab12cd34B\r\nab12cd34E:1", 0.1)
    assert command.result is None
    command.received(b"27\r\n=> ", 0.2)
    assert command.result.status == 127


# --- variables ---------------------------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(TEXT)
def test_any_line_comes_back_as_it_was_set(value):
    bench = Bench()
    bench.follow(shell.write(bench.shell, "foo", value))
    assert bench.fake.env["foo"] == value
    assert bench.follow(shell.read(bench.shell, "foo")) == value
    assert all(len(line) < 240 for line in bench.clock.typed.split(b"\r"))


@settings(max_examples=30, deadline=None)
@given(st.text(string.ascii_letters + ' $;{}"&', min_size=200, max_size=1500), st.integers(256, 600))
def test_long_values_go_in_pieces_and_are_read_whole(value, cbsize):
    """U-Boot cuts what `printenv NAME` prints at its print buffer, without a word."""
    bench = Bench(cbsize=cbsize)
    bench.follow(shell.write(bench.shell, "foo", value))
    assert bench.fake.env["foo"] == value
    assert bench.follow(shell.read(bench.shell, "foo")) == value


def test_a_long_command_is_put_together_in_ram_and_cleared_away():
    bench = Bench(cbsize=256)
    said = bench.run("echo " + "y" * 500)
    assert said.output == "y" * 500
    assert shell.SCRATCH not in bench.fake.env
    assert bench.fake.saved is None


def test_quotes_that_would_not_survive_in_pieces_are_refused_before_anything_is_typed():
    bench = Bench()
    with pytest.raises(WordsError, match="line_most"):
        bench.follow(shell.write(bench.shell, "foo", "it's " * 100))
    assert bench.clock.typed == b""


@pytest.mark.parametrize(
    ("name", "value"), [("a b", "x"), ("", "x"), ("x;reset", "x"), ("x", "two\nlines"), ("x", "ü")]
)
def test_what_cannot_be_typed_is_not_typed(name, value):
    bench = Bench()
    with pytest.raises(WordsError):
        bench.follow(shell.write(bench.shell, name, value))
    assert bench.clock.typed == b""


def test_a_variable_that_is_protected_is_told():
    bench = Bench()
    with pytest.raises(CommandError, match="ethaddr: is not set, after it was set to") as told:
        bench.follow(shell.write(bench.shell, "ethaddr", "52:54:00:00:00:01"))
    assert "Can't overwrite" in " ".join(told.value.lines)


def test_ram_and_saved_are_two():
    bench = Bench()
    bench.follow(shell.write(bench.shell, "foo", "1"))
    assert bench.fake.saved is None
    bench.follow(shell.save(bench.shell))
    assert bench.fake.saved["foo"] == "1"
    bench.follow(shell.write(bench.shell, "foo", None))
    assert bench.follow(shell.read(bench.shell, "foo")) is None
    broken = Bench(saves=False)
    with pytest.raises(CommandError, match="saveenv: failed"):
        broken.follow(shell.save(broken.shell))


def test_all_variables_with_values_of_several_lines():
    env = {"a": "1", "menu": "first\nz=not a variable\nlast", "nothing": "", "x": "a=b=c"}
    bench = Bench(env=dict(env))
    assert bench.follow(shell.read_all(bench.shell)) == env
    assert bench.follow(shell.read(bench.shell, "menu")) == env["menu"]


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[a-z_][a-z0-9_]{0,12}", fullmatch=True), st.text(string.printable[:94], max_size=30)
    )
)
def test_environments_of_single_lines_come_back_exactly(env):
    printed = "".join(f"{name}={env[name]}\n" for name in sorted(env)) + "\nEnvironment size: 9/8188 bytes"
    assert environment.all_values(U_BOOT, printed) == env


def test_bareboxs_variables():
    printed = "* autoboot_timeout: 3\n  boot.default: net\nnoise\n* user: "
    dialect = DIALECTS[Kind.BAREBOX]
    assert environment.all_values(dialect, printed) == {"autoboot_timeout": "3", "boot.default": "net", "user": ""}
    assert environment.set_command(dialect, "global.bootm.image", quoted("/k")) == "global bootm.image='/k'"
    assert environment.set_command(dialect, "nv.user", "") == "nv -r user"


# --- netboot -----------------------------------------------------------------------------------------------------

ORDER = NetbootOrder(address="10.0.0.5", netmask="255.255.255.0", server="10.0.0.1", within_s=60.0)


@pytest.mark.parametrize("kind", ["code", "branch", "none"])
def test_a_boot_from_the_net_changes_nothing_that_is_saved(kind):
    bench = Bench(speaks=kind)
    assert isinstance(bench.follow(netboot(bench.shell, ORDER)), Booted)
    steps = [command for command in bench.fake.commands if not command.startswith(("echo", "printenv"))]
    assert steps == ["setenv autoload no", "dhcp", "setenv serverip 10.0.0.1",
                     "tftpboot 0x40200000 boot.scr.uimg", "source 0x40200000"]  # fmt: skip
    assert bench.fake.saved is None


def test_a_network_card_that_sleeps_is_woken():
    bench = Bench(network="asleep")
    assert bench.follow(netboot(bench.shell, ORDER)).line.startswith("Starting kernel")
    assert bench.fake.commands.count("dhcp") == 2
    assert "usb start" in bench.fake.commands


def test_without_dhcp_the_address_of_the_settings_is_taken():
    bench = Bench(network="no-dhcp")
    bench.follow(netboot(bench.shell, ORDER))
    assert (bench.fake.env["ipaddr"], bench.fake.env["netmask"]) == ("10.0.0.5", "255.255.255.0")


def test_without_scripts_the_pxe_file_is_taken():
    bench = Bench(source="missing")
    bench.follow(netboot(bench.shell, ORDER))
    assert bench.fake.commands[-1] == "pxe boot"


def test_a_boot_that_comes_back_has_its_lines_and_its_prompt():
    bench = Bench(source="back")
    with pytest.raises(CommandError, match="no kernel was started") as told:
        bench.follow(netboot(bench.shell, ORDER))
    assert "Bad Linux ARM64 Image magic!" in told.value.lines
    assert bench.run("echo there").output == "there"


def test_a_boot_that_resets_and_one_that_hangs_are_told_apart():
    bench = Bench(source="reset")
    with pytest.raises(LeftError, match="began anew") as told:
        bench.follow(netboot(bench.shell, ORDER))
    assert told.value.again
    assert any("Bad FIT" in line for line in told.value.lines)
    hung = Bench(source="hang")
    with pytest.raises(LeftError, match="only a reset helps") as told:
        hung.follow(netboot(hung.shell, ORDER))
    assert not told.value.again


def test_no_network_is_told_in_its_own_words():
    bench = Bench(network="dead")
    with pytest.raises(CommandError, match="'dhcp' failed: No ethernet found"):
        bench.follow(netboot(bench.shell, ORDER))


def test_no_address_to_load_to_is_told():
    bench = Bench(env={"bootcmd": "x"})
    with pytest.raises(CommandError, match="none of scriptaddr, loadaddr, kernel_addr_r is set"):
        bench.follow(netboot(bench.shell, ORDER))


def test_commands_of_the_settings_are_taken_instead():
    commands = ("setenv serverip {server}", "echo ${loadaddr} {other}", "source {boot_file}")
    bench = Bench()
    bench.follow(netboot(bench.shell, NetbootOrder(server="10.0.0.9", commands=commands, within_s=30)))
    assert bench.fake.env["serverip"] == "10.0.0.9"
    assert list(filled(("a {x} ${x} {y}",), {"x": "1"})) == ["a 1 ${x} {y}"]
    bad = Bench()
    with pytest.raises(CommandError, match="'false' failed"):
        bad.follow(netboot(bad.shell, NetbootOrder(commands=("false", "source 0"))))


def test_barebox_needs_commands():
    bench = Bench()
    barebox = shell.Shell(DIALECTS[Kind.BAREBOX], "", Status.CODE, "barebox", Pace(), lambda: "ab12cd34")
    with pytest.raises(WordsError, match="boot_commands"):
        bench.follow(netboot(barebox, ORDER))


# --- text and pace -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a\b \bb", "b"),
        ("one\rtwo", "two"),
        ("\x1b[2Jhi\x1b[0m", "hi"),
        ("stop:  3 \b\b\b 2 ", "stop:  2 "),
        ("\x07x\x00", "x"),
    ],
)
def test_a_line_is_as_it_stands_at_last(raw, shown):
    assert plain(raw) == shown


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=400), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_lines_are_the_same_however_they_are_cut(data, sizes):
    whole, cut = ConsoleText(), ConsoleText()
    lines = whole.feed(data)
    found, at, number = [], 0, 0
    while at < len(data):
        found += cut.feed(data[at : at + sizes[number % len(sizes)]])
        at, number = at + sizes[number % len(sizes)], number + 1
    assert (found, cut.partial) == (lines, whole.partial)


def test_noise_without_line_ends_is_bounded():
    text = ConsoleText()
    for _ in range(100):
        text.feed(b"x" * 1000)
    assert len(text.partial) <= PARTIAL_MOST + 1000


def test_characters_are_typed_with_their_pauses():
    pacer = Pacer(Pace(char_s=0.01, line_s=0.5))
    pacer.put(b"a\rb")
    assert (pacer.due(0.0), pacer.due(0.005), pacer.due(0.01), pacer.due(0.4), pacer.due(0.53)) == (
        b"a",
        b"",
        b"\r",
        b"",
        b"b",
    )
    assert pacer.is_empty
    assert pacer.wake_at is None


def test_an_echo_lets_the_next_character_go_and_a_lost_one_is_given_up():
    pacer = Pacer(Pace(echo=True))
    pacer.put(b"abc")
    assert (pacer.due(0.0), pacer.due(0.1)) == (b"a", b"")
    pacer.heard(b"a")
    assert (pacer.due(0.11), pacer.due(0.2), pacer.due(0.32)) == (b"b", b"", b"c")


def test_a_slow_uart_loses_nothing_at_its_pace():
    pace = Pace(char_s=0.02, line_s=0.05)
    bench = Bench(line=line_of(pace), pace=pace, char_least_s=0.015)
    assert bench.run("echo " + "z" * 100).output == "z" * 100
