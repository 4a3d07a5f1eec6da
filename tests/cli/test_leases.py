"""What stands on the command line of `reserve` and its kin, what is kept of tokens, and answers that make no sense."""

import json
from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from cli import lease_tokens
from cli.exits import CliError, Exit
from cli.lease_commands import duration
from cli.leases import Wish, me
from cli.target import Target
from tests.cli.farm_double import BrokerDouble, boardhand

LEASE = {
    "lease": "lease-1", "board": "b1", "holder": "alice", "token": 17, "expires": "2026-11-20T10:00:00+00:00",
}  # fmt: skip


@pytest.fixture
def target() -> Target:
    return Target("mqtt://farm.example:1883", "lab/one", "test")


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800.0), ("2h", 7200.0), ("1.5h", 5400.0), ("3d", 259200.0), ("90s", 90.0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "-1h", "0h", "0.1s", "999999w", "1h30m", "\u0662h", "nan", "1e3h"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ArgumentTypeError, match="write 30m, 2h, or 3d"):
        duration(text)


def test_boards_and_labels_are_told_apart() -> None:
    words = ["arch=arm64", "memory_mb>=2048", "vendor != acme", "pi4-2", "usb==yes"]
    data = Wish(words, 60).data()
    assert data["board"] == "pi4-2"
    assert data["labels"] == {"arch": "arm64", "memory_mb": ">= 2048", "vendor": "!= acme", "usb": "yes"}
    assert "off" not in data
    assert Wish(["b1"], 60, off=False).data()["off"] is False


@pytest.mark.parametrize("words", [["b1", "b2"], ["B 1"], ["=x"], ["a="], ["../b1"]])
def test_neither_a_board_nor_labels(words: list[str]) -> None:
    with pytest.raises(CliError) as caught:
        Wish(words, 60).data()
    assert caught.value.code is Exit.USAGE


@pytest.mark.parametrize("name", ["a b", "a/b", "x" * 64, "a\n"])
def test_names_that_nobody_has(name: str) -> None:
    with pytest.raises(CliError, match="is no name"):
        me(name)


def test_a_token_is_kept_for_its_user_alone(tmp_path: Path, target: Target) -> None:
    home = {"XDG_STATE_HOME": str(tmp_path)}
    assert lease_tokens.token_for(target, "b1", home) is None
    assert lease_tokens.keep(target, "b1", 17, home) is None
    assert lease_tokens.keep(target, "b1", 18, home) is None
    assert lease_tokens.token_for(target, "b1", home) == 18
    (kept,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    other = Target("mqtt://farm.example:1883", "lab", "test")
    assert lease_tokens.token_for(other, "b1", home) is None, "another farm's board of that name"
    lease_tokens.forget(target, "b1", home)
    lease_tokens.forget(target, "b1", home)
    assert lease_tokens.token_for(target, "b1", home) is None


@pytest.mark.parametrize("text", ["", "0", "-1", "17x", "9" * 17, "\x00", "\u0661"])
def test_a_spoiled_token_file_is_none(tmp_path: Path, target: Target, text: str) -> None:
    home = {"XDG_STATE_HOME": str(tmp_path)}
    lease_tokens.keep(target, "b1", 17, home)
    (kept,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    kept.write_text(text)
    assert lease_tokens.token_for(target, "b1", home) is None


def test_a_token_file_that_others_can_read_or_that_is_a_link_is_not_believed(tmp_path: Path, target: Target) -> None:
    home = {"XDG_STATE_HOME": str(tmp_path)}
    lease_tokens.keep(target, "b1", 17, home)
    (kept,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    kept.chmod(0o640)
    assert lease_tokens.token_for(target, "b1", home) is None
    kept.chmod(0o600)
    kept.rename(tmp_path / "elsewhere")
    kept.symlink_to(tmp_path / "elsewhere")
    assert lease_tokens.token_for(target, "b1", home) is None


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, target: Target) -> None:
    (tmp_path / "file").write_text("")
    problem = lease_tokens.keep(target, "b1", 17, {"XDG_STATE_HOME": str(tmp_path / "file")})
    assert problem is not None
    assert "Not a directory" in problem


def test_the_token_is_told_where_it_cannot_be_kept(server: int, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with BrokerDouble(server, {"reserve": lambda _: LEASE}) as broker:
        done = boardhand("reserve", "b1", "--holder", "alice", port=server, XDG_STATE_HOME=str(tmp_path / "file"))
    assert done.returncode == 0
    assert "give --token 17 to power commands" in done.stderr
    asked = broker.requests[0][1]["data"]
    assert (asked["holder"], asked["board"], asked["for_s"], asked["wait"]) == ("alice", "b1", 7200.0, False)


@pytest.mark.parametrize("change", [{"board": None}, {"token": "17"}, {"board": "../../etc"}])
def test_an_answer_that_makes_no_sense(server: int, tmp_path: Path, change: dict[str, object]) -> None:
    with BrokerDouble(server, {"reserve": lambda _: LEASE | change}):
        done = boardhand("reserve", "b1", port=server, XDG_STATE_HOME=str(tmp_path / "home"))
    assert done.returncode in {Exit.FAILED, Exit.USAGE}
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "home").exists()


def test_the_list_goes_on_over_several_answers(server: int) -> None:
    def leases(request: dict[str, object]) -> dict[str, object]:
        start = int(str(request["start"]))
        lines = [{"lease": f"lease-{start + 1}", "holder": "alice", "kind": "person", "waits": "waits\x1b[2J for b1"}]
        return {"leases": lines, "next": start + 1, "more": start < 2}

    with BrokerDouble(server, {"leases": leases}):
        done = boardhand("leases", port=server)
        as_json = boardhand("leases", "--json", port=server)
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["LEASE", "lease-1", "lease-2", "lease-3"]
    assert "\x1b" not in done.stdout
    assert len(json.loads(as_json.stdout)["leases"]) == 3


def test_usage_errors(server: int) -> None:
    for words in (("reserve",), ("reserve", "b1", "--for", "2"), ("reserve", "b1", "--off", "--leave-on"), ("extend",)):
        assert boardhand(*words, port=server).returncode == Exit.USAGE
