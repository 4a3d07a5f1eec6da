"""`boardhand board`: a board's health and a person's word, against a broker that is a thread behind Mosquitto."""

import json

import pytest

from tests.cli.farm_double import BrokerDouble, boardhand

FAULT = {
    "board": "b1", "health": "fault", "since": "2026-11-20T10:00:00Z", "why": "failed its health checks 2 times",
    "failures": 2, "boots_s": [20.5, 21.0],
    "evidence": [{"at": "2026-11-20T09:00:00Z", "why": "job-3 failed", "log": "bad\x1b[2J\nline\n",
                  "diagnosis": "no DHCP"}],
}  # fmt: skip


def test_health_is_shown_with_its_evidence(server: int) -> None:
    with BrokerDouble(server, {"health": lambda _: {"boards": [FAULT], "more": False}}) as broker:
        done = boardhand("board", "b1", port=server)
        document = json.loads(boardhand("board", "b1", "health", "--json", port=server).stdout)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "b1: fault since 2026-11-20T10:00:00Z: failed its health checks 2 times",
        "cold boots took 20.5 s, 21 s",
        "2026-11-20T09:00:00Z job-3 failed",
        "  no DHCP",
        "  | bad\\x1b[2J",
        "  | line",
    ]
    assert document["boards"] == [FAULT]
    assert broker.requests[0][1]["data"] == {"board": "b1"}


def test_a_board_without_a_health_job_is_said_to_be_so(server: int) -> None:
    with BrokerDouble(server, {"health": lambda _: {"boards": [], "more": False}}):
        assert boardhand("board", "b1", port=server).stdout == "b1: no health job is set for it: it takes work\n"


@pytest.mark.parametrize(
    ("words", "verb", "data", "said"),
    [
        (["accept"], "accept", {}, "b1 is trusted\n"),
        (["check"], "check", {}, "b1 will be checked before it works again\n"),
        (["retire"], "retire", {}, "b1 is retired\n"),
        (["forget"], "forget", {}, "b1 is forgotten\n"),
        (["maintenance", "on"], "maintenance", {"on": True}, "b1 is in maintenance\n"),
        (["maintenance", "off"], "maintenance", {"on": False}, "b1 is out of maintenance\n"),
    ],
)
def test_a_persons_word(server: int, words: list[str], verb: str, data: dict[str, object], said: str) -> None:
    with BrokerDouble(server, {verb: lambda _: {"board": "b1", "is": "so"}}) as broker:
        done = boardhand("board", "b1", *words, port=server)
    assert (done.returncode, done.stdout) == (0, said)
    assert broker.requests[0][1]["data"] == {"board": "b1"} | data


@pytest.mark.parametrize("words", [["maintenance"], ["accept", "on"], ["burn"]])
def test_wrong_words_are_a_wrong_command_line(words: list[str]) -> None:
    assert boardhand("board", "b1", *words, port=1).returncode == 2


def test_a_refusal_is_told_with_its_exit_code(server: int) -> None:
    error = {"kind": "not-allowed", "message": "board b1 is not retired: retire it first"}
    refused = json.dumps({"transaction": "TRANSACTION", "ok": False, "error": error}).encode()
    with BrokerDouble(server, {"forget": lambda _: refused}):
        done = boardhand("board", "b1", "forget", port=server)
    assert done.returncode == 5
    assert "retire it first" in done.stderr
