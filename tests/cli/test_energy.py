"""`boardhand energy`: asked of doubles of agents over a real Mosquitto, and the table alone."""

import json
import os
import threading
from argparse import ArgumentTypeError
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from board.client import MqttConnection
from cli.energy_options import price, since
from cli.energy_table import Line, costs, coverage, duration, energy, estimated, saved, table, total, used
from cli.exits import Exit
from tests.cli.farm_double import DEADLINE_S, boardhand, clean_environment, say
from wire.energy import Basis, BoardEnergy, EnergyFigures, EnergyPeriod

NOON = "2026-11-21T12:00:00+00:00"
DAY = datetime(2026, 11, 20, tzinfo=UTC)


def figures(**changes: Any) -> dict[str, Any]:
    return {
        "total_s": 86400.0, "on_s": 43200.0, "sleeping_s": 43200.0, "measured_s": 86400.0, "unknown_s": 0.0,
        "measured_wh": 60.0, "estimated_wh": 0.0, "saved_wh": 40.0, "saved_basis": "measured",
    } | changes  # fmt: skip


def board(name: str, **changes: Any) -> dict[str, Any]:
    return figures() | {"board": name, "metered": True, "counting_since": NOON} | changes


def unmetered(name: str, **changes: Any) -> dict[str, Any]:
    return board(
        name, metered=False, measured_s=0.0, measured_wh=0.0, estimated_wh=36.0, saved_basis="estimated", **changes
    )


class EnergyAgents:
    """Agents that are a thread: each answers `energy` by what its handler returns; None is no answer."""

    def __init__(self, port: int, agents: dict[str, Callable[[dict[str, Any]], object]]) -> None:
        self.agents = agents
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self._port = port
        self._link = MqttConnection("127.0.0.1", port, f"energy-{os.getpid()}-{port}")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="energy agents")

    def retain(self, tail: str, value: object) -> None:
        say(self._port, f"boardhand/{tail}", json.dumps(value).encode(), retain=True)

    def announce(self, agent: str, boards: list[str], state: str = "online") -> None:
        self.retain(f"agent/{agent}/state", {"state": state, "session": 1, "since": NOON})
        self.retain(
            f"agent/{agent}/info", {"version": "1", "contract": "1.0", "host": "h", "controllers": [], "boards": boards}
        )

    def __enter__(self) -> "EnergyAgents":
        self._link.connect()
        self._link.subscribe("boardhand/agent/+/request/energy")
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)
        self._link.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._link.receive(0.1)
            if message is None:
                continue
            agent = message.topic.split("/")[2]
            request = json.loads(message.payload)
            self.requests.append((agent, request["data"]))
            said = self.agents[agent](request["data"])
            if said is None:
                continue
            answer = said if isinstance(said, dict) and "ok" in said else {"ok": True, "data": said}
            payload = said if isinstance(said, bytes) else json.dumps(
                {"transaction": request["transaction"], **answer}
            ).encode()  # fmt: skip
            self._link.publish(f"boardhand/agent/{agent}/response/energy", payload, wait=False)


def report(*boards: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"since": "2026-11-20T12:00:00+00:00", "until": NOON, "boards": list(boards)} | more


def test_the_whole_farm_as_table_and_json(server: int) -> None:
    agents = {
        "lab-1": lambda _: report(board("virt-2"), board("virt-1", dropped=2)),
        "lab-2": lambda _: report(unmetered("plain")),
    }
    with EnergyAgents(server, agents) as farm:
        farm.announce("lab-1", ["virt-1", "virt-2"])
        farm.announce("lab-2", ["plain"])
        done = boardhand("energy", port=server, PYTHONIOENCODING="utf-8", TZ="UTC")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "since 2026-11-20 12:00 UTC",
            "BOARD   ON      ASLEEP  USED      ESTIMATED  SAVED BY SLEEP  COVERAGE  NOTE",
            "plain   12.0 h  12.0 h  -         ≈ 36.0 Wh  ≈ 40.0 Wh       0 %       no meter",
            "virt-1  12.0 h  12.0 h  60.0 Wh   -          40.0 Wh         100 %     2 readings dropped",
            "virt-2  12.0 h  12.0 h  60.0 Wh   -          40.0 Wh         100 %",
            "TOTAL   36.0 h  36.0 h  120.0 Wh  ≈ 36.0 Wh  ≈ 120.0 Wh      66 %",
            "≈ estimated, for the time that no device measured: from the board's own average or its settings",
        ]
        document = json.loads(boardhand("energy", "--json", "--price", "0.3", port=server).stdout)
    assert [(row["agent"], row["board"], row["measured_wh"]) for row in document["boards"]] == [
        ("lab-2", "plain", 0), ("lab-1", "virt-1", 60), ("lab-1", "virt-2", 60)
    ]  # fmt: skip
    assert document["total"]["measured_wh"] == 120
    assert document["total"]["saved_basis"] == "estimated"
    assert (document["silent"], document["price_per_kwh"]) == ([], 0.3)
    assert [data for _, data in farm.requests] == [{"since": 86400.0}] * 4


def test_only_agents_that_have_the_boards_are_asked(server: int) -> None:
    agents = {
        "lab-1": lambda data: report(*[board(name) for name in ("a", "b") if name in data["boards"]]),
        "lab-2": lambda _: None,
    }
    with EnergyAgents(server, agents) as farm:
        farm.announce("lab-1", ["a", "b"])
        farm.announce("lab-2", ["c"])
        done = boardhand("energy", "b", "--since", "7d", "--by", "day", port=server)
        assert done.returncode == 0, done.stderr
        assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["BOARD", "b"]
        assert farm.requests == [("lab-1", {"since": 7 * 86400.0, "by": "day", "boards": ["b"]})]
        unknown = boardhand("energy", "b", "nope", port=server)
    assert unknown.returncode == Exit.NO_ANSWER
    assert "unknown board nope" in unknown.stderr


def test_an_agent_that_is_lost_is_named_and_the_others_are_shown(server: int) -> None:
    with EnergyAgents(server, {"lab-1": lambda _: report(board("a"))}) as farm:
        farm.announce("lab-1", ["a"])
        farm.announce("lab-2", ["b"], state="lost")
        done = boardhand("energy", port=server)
        assert done.returncode == Exit.NO_ANSWER
        assert "a  " in done.stdout
        assert done.stderr.startswith("boardhand: agent lab-2 is lost: its boards are missing here")
        document = json.loads(boardhand("energy", "--json", port=server).stdout)
        assert boardhand("energy", "a", port=server).returncode == 0, "the lost one does not have it"
    assert document["silent"] == ["lab-2"]
    assert document["error"]["exit"] == Exit.NO_ANSWER
    assert [row["board"] for row in document["boards"]] == ["a"]


def test_an_agent_that_is_lost_while_it_is_asked_is_not_waited_for(server: int) -> None:
    with EnergyAgents(server, {}) as farm:
        farm.announce("lab-1", ["a"])

        def vanish(_: dict[str, Any]) -> None:
            farm.announce("lab-1", ["a"], state="lost")

        farm.agents["lab-1"] = vanish
        done = boardhand("energy", port=server)
    assert done.returncode == Exit.NO_ANSWER
    assert "agent lab-1 is lost" in done.stderr
    assert len(farm.requests) == 1


def test_a_request_that_was_lost_is_sent_again(server: int) -> None:
    times: list[int] = []

    def second(_: dict[str, Any]) -> object:
        times.append(1)
        return None if len(times) == 1 else report(board("a"))

    with EnergyAgents(server, {"lab-1": second}) as farm:
        farm.announce("lab-1", ["a"])
        assert boardhand("energy", port=server).returncode == 0
    assert len(times) == 2


def test_a_long_answer_is_asked_for_in_parts(server: int) -> None:
    def part(data: dict[str, Any]) -> object:
        return report(board("b")) if data.get("after") == "a" else report(board("a"), next="a")

    with EnergyAgents(server, {"lab-1": part}) as farm:
        farm.announce("lab-1", ["a", "b"])
        document = json.loads(boardhand("energy", "--json", port=server).stdout)
    assert [row["board"] for row in document["boards"]] == ["a", "b"]


def refusal(kind: str, message: str) -> dict[str, object]:
    return {"ok": False, "error": {"kind": kind, "message": message}}


def test_agents_that_do_not_meter_are_no_failure_unless_their_boards_are_wanted(server: int) -> None:
    agents = {
        "lab-1": lambda _: report(board("a")),
        "lab-2": lambda _: refusal("configuration", "this agent does not meter: meter_every_s is 0"),
        "lab-3": lambda _: refusal("not-found", "there is no request energy"),
    }
    with EnergyAgents(server, agents) as farm:
        for agent, name in (("lab-1", "a"), ("lab-2", "b"), ("lab-3", "c")):
            farm.announce(agent, [name])
        done = boardhand("energy", port=server)
        assert done.returncode == 0
        assert "agent lab-2 does not meter: this agent" in done.stderr
        assert "agent lab-3 does not meter: there is no" in done.stderr
        assert boardhand("energy", "b", port=server).returncode == Exit.FAILED


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (refusal("internal", "disk \x1b I/O error"), Exit.FAILED, "agent lab-1: disk \\x1b I/O error"),
        (refusal("bad-request", "since: wrong"), Exit.USAGE, "agent lab-1: since: wrong"),
    ],
)
def test_a_refusal_is_said(server: int, answer: dict[str, object], code: Exit, said: str) -> None:
    with EnergyAgents(server, {"lab-1": lambda _: answer}) as farm:
        farm.announce("lab-1", ["a"])
        done = boardhand("energy", port=server)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr


def test_no_agents_is_said_and_is_no_error(server: int) -> None:
    done = boardhand("energy", port=server)
    assert (done.returncode, done.stdout) == (0, "")
    assert "no agents at 127.0.0.1" in done.stderr
    assert json.loads(boardhand("energy", "--json", port=server).stdout)["boards"] == []


def test_a_terminal_without_the_sign_gets_another(server: int) -> None:
    with EnergyAgents(server, {"lab-1": lambda _: report(unmetered("plain"))}) as farm:
        farm.announce("lab-1", ["plain"])
        done = boardhand("energy", port=server, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "~ 36.0 Wh" in done.stdout


# --- the options ------------------------------------------------------------------------------------------------


def test_since_and_price() -> None:
    assert [since(text) for text in ("24h", "7d", "90m", "2w")] == [86400, 604800, 5400, 1209600]
    assert datetime.fromisoformat(str(since("2026-11-01"))).utcoffset() is not None
    assert str(since("2026-11-01T10:00:00+02:00")) == datetime.fromisoformat(
        "2026-11-01T10:00:00+02:00"
    ).astimezone().isoformat()  # fmt: skip
    assert price("0.30") == 0.3
    for text in ("0h", "401d", "yesterday", "", "5", "-1d", "99999999-01-01"):
        with pytest.raises(ArgumentTypeError):
            since(text)
    for text in ("-1", "nan", "inf", "cheap"):
        with pytest.raises(ArgumentTypeError):
            price(text)


@pytest.mark.parametrize("line", [["--since", "x"], ["--price", "-1"], ["--by", "week"], ["B!"]])
def test_wrong_lines_are_exit_2(line: list[str]) -> None:
    assert boardhand("energy", *line).returncode == Exit.USAGE


def test_the_other_commands_do_not_pay_for_it() -> None:
    import subprocess
    import sys

    code = "import sys, cli.command_line as c; c.build(); sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=clean_environment(), check=False).returncode == 0


# --- the table --------------------------------------------------------------------------------------------------


def made(**changes: Any) -> EnergyFigures:
    return EnergyFigures(**figures(**changes) | {"saved_basis": Basis(changes.get("saved_basis", "measured"))})


def test_cells_say_what_is_known_and_no_more() -> None:
    assert used(made(measured_s=0.0, measured_wh=0.0)) == "-"
    assert estimated(made()) == "-"
    gap = {"measured_s": 43200.0}
    assert estimated(made(**gap, estimated_wh=12.5)) == "≈ 12.5 Wh"
    assert estimated(made(**gap, estimated_wh=0.0)) == "≈ 0 Wh"
    assert estimated(made(**gap, unknown_s=40000.0, estimated_wh=2.0)) == "≈ 2.0 Wh + ?"
    assert estimated(made(**gap, unknown_s=43200.0, estimated_wh=None)) == "unknown"
    assert estimated(made(measured_s=86395.0, unknown_s=5.0, estimated_wh=None)) == "-"
    assert estimated(made(measured_s=86000.0, estimated_wh=0.3)) == "-", "less than a hundredth of time and energy"
    assert estimated(made(measured_s=86000.0, estimated_wh=3.0)) == "≈ 3.0 Wh"
    assert saved(made()) == "40.0 Wh"
    assert saved(made(saved_basis="estimated")) == "≈ 40.0 Wh"
    assert saved(made(saved_basis="unknown", saved_wh=None)) == "unknown"
    assert saved(made(sleeping_s=0.0, saved_wh=0.0)) == "-"
    assert saved(made(saved_wh=-3.0)) == "-3.0 Wh"
    assert coverage(made(measured_s=86399.0)) == "99 %"
    assert coverage(made(total_s=0.0)) == "-"
    assert costs(made(), 0.5) == ("0.03", "0.02")
    assert costs(made(estimated_wh=1000.0, saved_basis="estimated"), 0.5) == ("≈ 0.53", "≈ 0.02")
    assert costs(made(measured_s=0.0, measured_wh=0.0, estimated_wh=None, saved_wh=None), 1) == ("unknown", "unknown")


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "-"), (40, "40 s"), (119, "119 s"), (720, "12 min"), (27000, "7.5 h"), (360000, "4.2 d"), (864000, "10.0 d")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("wh", "said"),
    [
        (0, "0 Wh"),
        (0.0001, "0 Wh"),
        (0.0421, "0.042 Wh"),
        (45.24, "45.2 Wh"),
        (999.9, "999.9 Wh"),
        (1234.5, "1.234 kWh"),
    ],
)
def test_energies(wh: float, said: str) -> None:
    assert energy(wh) == said


def line(name: str, **changes: Any) -> Line:
    base = board(name) | changes
    return Line(
        "lab-1", BoardEnergy(**base | {"counting_since": DAY, "saved_basis": Basis(base["saved_basis"])})
    )  # fmt: skip


def test_a_board_without_meter_and_watts_is_told_what_to_do() -> None:
    row = line("a", metered=False, measured_s=0.0, measured_wh=0.0, estimated_wh=None, unknown_s=43200.0,
               saved_wh=None, saved_basis="unknown")  # fmt: skip
    text = table([row, line("b")], 0.25)
    assert "no meter; give it watts_idle in the agent's settings for an estimate" in text[1]
    assert text[1].split()[5:9] == ["-", "unknown", "unknown", "0"]
    assert "40.0 Wh + ?" in text[3]
    assert text[-1].startswith("? ")


def test_periods_stand_below_their_board() -> None:
    periods = [EnergyPeriod(start=DAY + timedelta(hours=hours), **dict(made())) for hours in (0, 5)]
    text = table([line("a", periods=periods)], None)
    assert [entry[:18].strip() for entry in text[1:]] == [
        "a                 "[:18].strip(),
        "2026-11-20",
        "2026-11-20 05:00",
    ]


@given(st.lists(st.sampled_from(["measured", "estimated", "unknown"]), max_size=5))
def test_a_total_is_never_better_founded_than_its_parts(bases: list[str]) -> None:
    parts = [made(saved_basis=basis, saved_wh=None if basis == "unknown" else 10.0) for basis in bases]
    whole = total(parts)
    worst = next((basis for basis in ("unknown", "estimated") if basis in bases), "measured")
    assert whole.saved_basis == worst
    known = [part.saved_wh for part in parts if part.saved_wh is not None]
    assert whole.saved_wh == (sum(known) if known or not parts else None)
    assert whole.measured_wh == 60.0 * len(parts)
