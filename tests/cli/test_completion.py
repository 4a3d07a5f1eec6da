"""Completions by the real shells, and the manual page by the real man."""

import argparse
import re
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest

from cli.command_line import build
from cli.command_table import COMMANDS
from cli.command_tree import pages, tree
from cli.completion import script
from cli.completion_command import COMPLETION
from cli.manual_page import manual_page

_ASK = {
    # The last word is the one that is being typed.
    "bash": """
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_boardhand boardhand "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
""",
    # The functions of zsh's completion need a terminal: these stand in for them and print what they would offer.
    "zsh": """
compdef() { :; }
compadd() { shift; print -rl -- $@ | while read -r w; do [[ $w == ${words[CURRENT]}* ]] && print -r -- $w; done; }
_files() { print FILES; }
_describe() {
    local none=1
    for w in ${(P)4}; do [[ $w == ${words[CURRENT]}* ]] && none=0 && print -r -- ${w%%:*}; done
    return none
}
source $1; shift
words=("$@"); CURRENT=$#
_boardhand
true
""",
    "fish": 'source $argv[1]; complete -C (string join -- " " $argv[2..-1])',
}
_COMMANDS = {
    "bash": ["bash", "--norc", "-c", _ASK["bash"], "bash"],
    "zsh": ["zsh", "-f", "-c", _ASK["zsh"], "zsh"],
    "fish": ["fish", "--no-config", "-c", _ASK["fish"]],
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    found = {}
    for shell in _COMMANDS:
        found[shell] = folder / f"boardhand.{shell}"
        found[shell].write_text(script(shell))
    return found


def offered(scripts, shell, *line):
    done = subprocess.run(
        [*_COMMANDS[shell], str(scripts[shell]), "boardhand", *line],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(scripts[shell].parent), "LC_ALL": "C.UTF-8"},
    )
    assert done.stderr == ""
    return {line.split("\t")[0] for line in done.stdout.splitlines() if line}


@pytest.mark.parametrize("shell", _COMMANDS)
def test_the_shell_offers_what_may_stand_there(scripts, shell):
    assert offered(scripts, shell, "bo") >= {"boards", "board"}
    assert offered(scripts, shell, "mqtt-a") == {"mqtt-acl"}
    assert offered(scripts, shell, "up", "--boa") == {"--boards"}
    assert offered(scripts, shell, "energy", "--by", "") == {"hour", "day"}
    assert offered(scripts, shell, "--mqtt", "mqtt://h", "energy", "--by", "d") == {"day"}
    assert "on" not in offered(scripts, shell, "o")
    assert offered(scripts, shell, "udev", "h") >= {"hubs"}


@pytest.mark.parametrize("shell", _COMMANDS)
def test_every_command_can_be_completed(scripts, shell):
    assert set(COMMANDS) <= offered(scripts, shell, "")


def test_no_page_and_no_option_is_forgotten():
    """The tree is read from argparse's own lists, whose names are not public."""
    named = {page.words: page for page in pages(tree())}
    for name in COMMANDS:
        page = named[name,]
        flags = {flag for option in page.options for flag in option.flags}
        assert {"--json", "--mqtt"} <= flags
    parser = build()
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    assert {words[0] for words in named if words} == set(commands.choices)


def test_the_command_prints_them(capsys):
    assert COMPLETION.run(Namespace(shell="bash")) == 0  # noqa: S604  # no shell is run
    assert capsys.readouterr().out == script("bash")
    assert COMPLETION.run(Namespace(shell="fish", json=True)) == 0  # noqa: S604
    assert '"shell": "fish"' in capsys.readouterr().out


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    page = tmp_path_factory.mktemp("man") / "boardhand.1"
    page.write_text(manual_page())
    done = subprocess.run(
        ["man", "--warnings=w", "--encoding=UTF-8", "-l", str(page)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "200", "MANROFFOPT": "-rHY=0"},
    )
    assert done.stderr == ""
    return done.stdout


def test_the_manual_page_tells_every_command_option_and_exit_code(rendered):
    words = " ".join(re.sub(r".\x08", "", rendered).split())
    for name in COMMANDS:
        assert f"boardhand {name}" in words
    for page in pages(tree()):
        for option in page.options:
            assert option.flags[-1] in words
    for title in ("MQTT SERVER", "ENVIRONMENT", "EXIT STATUS", "EXAMPLES"):
        assert title in words
    assert "BOARDHAND_MQTT" in words
    assert "\\-" not in rendered
    assert "\\e" not in rendered


def test_lines_that_look_like_requests_are_text():
    from cli.manual_page import _text

    assert _text(".br") == "\\&.br"
    assert _text("'quoted'").startswith("\\&\\(aq")
    assert _text("a\\b --c") == "a\\eb \\-\\-c"


def test_the_docs_name_the_page():
    assert "boardhand completion" in Path(__file__).parents[2].joinpath("docs/service.md").read_text()
