"""Hands at the button of a real SNMP PDU (virtual, in its own process), an agent in its own process, MQTT between."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent.bench import Bench, result_of
from tests.cli.farm_double import boardhand

BOARDS = {"adopts": "", "enforces": 'on_change = "enforce"\n', "stays": "never_off = true\n"}


class Pdu:
    """`python -m virtual_lab.snmp_pdu`, told what to do by its control lines."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "virtual_lab.snmp_pdu", "--family", "apc-rpdu2", "--stop-at-eof"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.port = self._line()["port"]

    def _line(self) -> dict:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def tell(self, **order: object) -> dict:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self._line()
        assert answer["ok"], answer
        return answer

    def close(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture
def pdu() -> Iterator[Pdu]:
    pdu = Pdu()
    yield pdu
    pdu.close()


@pytest.fixture
def bench(tmp_path: Path, mqtt, pdu: Pdu) -> Iterator[Bench]:
    bench = Bench(tmp_path, mqtt)
    secret = tmp_path / "community"
    secret.write_text("private\n")
    bench.settings.write_text(
        f'[agent]\nname = "lab"\nstate_dir = "{tmp_path}/state"\nread_back_s = 1\nmeter_every_s = 1\n'
        "force_allowed = true\n"
        f'[mqtt]\nurl = "{mqtt.url}"\n'
        f'[controllers.rack]\ndriver = "snmp"\nhost = "127.0.0.1"\nport = {pdu.port}\ntimeout_s = 0.3\nretries = 0\n'
        f'community_file = "{secret}"\nfamily = "apc-rpdu2"\n'
        + "".join(
            f'[boards.{name}]\nfeed = ["rack:{number}"]\nmin_off_s = 0.0\n{more}'
            for number, (name, more) in enumerate(BOARDS.items(), start=1)
        )
    )
    yield bench
    bench.close()


def ready(bench: Bench):
    heard = bench.listen("boardhand/#")
    bench.start()
    states = {f"boardhand/board/{name}/state" for name in BOARDS}
    while states:
        states.discard(heard.wait(lambda m: m["topic"] in states)["topic"])
    for name in BOARDS:
        bench.publish(f"boardhand/board/{name}/power/set", "on")
        assert heard.wait(result_of(name))["payload"]["ok"]
    return heard


def unexpected(board: str, word: str):
    def wanted(message: dict) -> bool:
        return (
            message["topic"] == f"boardhand/event/{board}"
            and message["payload"].get("details", {}).get("unexpected") == word
        )

    return wanted


def state(board: str, **values: object):
    def wanted(message: dict) -> bool:
        return message["topic"] == f"boardhand/board/{board}/state" and all(
            message["payload"].get(key) == value for key, value in values.items()
        )

    return wanted


def read_on(board: str):
    def wanted(message: dict) -> bool:
        details = message["payload"].get("details", {})
        return message["topic"] == f"boardhand/event/{board}" and details == {"power": "on", "was": "off"}

    return wanted


def test_a_hand_at_the_button_is_adopted_or_undone(bench: Bench, pdu: Pdu) -> None:
    heard = ready(bench)
    pdu.tell(do="press", outlet="1", on=False)
    heard.wait_all(unexpected("adopts", "adopted"), state("adopts", power="off", target="off", phase="off"))
    assert pdu.tell(do="state")["on"]["1"] is False, "adopting switches nothing"
    for _ in range(2):
        pdu.tell(do="press", outlet="2", on=False)
        # States that follow each other quickly are told as the last of them; events are all told.
        heard.wait_all(unexpected("enforces", "enforced"), read_on("enforces"))
        assert pdu.tell(do="state")["on"]["2"] is True
    pdu.tell(do="press", outlet="2", on=False)
    heard.wait_all(unexpected("enforces", "given-up"), state("enforces", power="off", target="off", phase="fault"))
    fault = [m for m in heard.history if state("enforces", phase="fault")(m)][-1]
    assert "3 times" in fault["payload"]["reason"]
    assert pdu.tell(do="state")["on"]["2"] is False, "whoever insists has a reason"


def test_a_silent_pdu_puts_its_boards_aside_and_they_come_back(bench: Bench, pdu: Pdu) -> None:
    heard = ready(bench)
    pdu.tell(do="deaf", value=True)
    raised = "boardhand/board/adopts/alert/unreadable"
    heard.wait_all(lambda m: m["topic"] == raised, state("adopts", power="unknown", phase="fault"))
    alert = [m for m in heard.history if m["topic"] == raised][-1]
    assert "rack" in alert["payload"]["what"]
    pdu.tell(do="deaf", value=False)
    heard.wait_all(
        state("adopts", power="on", target="on", phase="starting"),
        lambda m: m["topic"] == "boardhand/event/adopts" and m["payload"]["details"].get("cleared"),
    )


def test_three_failures_in_a_row_and_what_must_never_go_off(bench: Bench, pdu: Pdu) -> None:
    heard = ready(bench)
    pdu.tell(do="refuse", outlets=["1"])
    for number in range(3):
        bench.publish("boardhand/board/adopts/power/set", json.dumps({"power": "off", "id": f"no-{number}"}))
        error = heard.wait(result_of("adopts", f"no-{number}"))["payload"]["error"]
        assert (error["kind"], error["message"][:15]) == ("refused", "adopts: rack:1:")
    fault = [m for m in heard.history if state("adopts", power="on", phase="fault")(m)][-1]
    assert "3 power commands in a row failed" in fault["payload"]["reason"]
    for number, (action, ok) in enumerate((("off", False), ("cycle", False))):
        bench.publish("boardhand/board/stays/power/set", json.dumps({"power": action, "id": f"never-{number}"}))
        answer = heard.wait(result_of("stays", f"never-{number}"))["payload"]
        assert (answer["ok"], answer["error"]["kind"]) == (ok, "not-allowed")
    assert pdu.tell(do="state")["on"]["3"] is True
    bench.publish("boardhand/board/stays/power/set", '{"power":"off","id":"forced","force":true}')
    assert heard.wait(result_of("stays", "forced"))["payload"]["power"] == "off"
    lease = {"holder": "alice", "token": 3, "expires": "2999-01-01T00:00:00Z"}
    bench.publish("boardhand/board/stays/lease", json.dumps(lease), "-r")
    bench.publish("boardhand/board/stays/power/set", '{"power":"on","id":"over","force":true}')

    def forced(message):
        details = {"forced": "on", "held_by": "alice", "power": "off"}
        return message["topic"] == "boardhand/event/stays" and message["payload"]["details"] == details

    heard.wait_all(result_of("stays", "over"), forced)


def test_what_the_outlets_measure_is_told_and_can_be_asked_for(bench: Bench) -> None:
    heard = ready(bench)
    told = heard.wait(
        lambda m: m["topic"] == "boardhand/board/stays/telemetry" and m["payload"].get("energy_wh", 0) > 0
    )["payload"]
    assert told["power_w"] == 12.0
    for verb in ("energy", "outlets"):
        bench.publish(f"boardhand/agent/lab/request/{verb}", json.dumps({"transaction": verb, "data": {}}))
        answer = heard.wait(lambda m, verb=verb: m["topic"] == f"boardhand/agent/lab/response/{verb}")["payload"]
        assert answer["ok"], answer
    (controller,) = answer["data"]["controllers"]
    assert "apc-rpdu2" in controller["device"]
    third = controller["outlets"][2]
    assert (third["outlet"], third["name"], third["power"], third["board"]) == ("3", "Outlet 3", "on", "stays")


def test_outlets_are_listed_with_what_the_controller_is(bench: Bench, pdu: Pdu) -> None:
    ready(bench)
    told = boardhand("outlets", port=bench.mqtt.port)
    assert told.returncode == 0, told.stderr
    lines = [line.split() for line in told.stdout.splitlines()]
    assert ["rack:3", "on", "stays", "Outlet", "3"] in lines
    assert ["rack:4", "off", "Outlet", "4"] in lines
    assert "apc-rpdu2" in told.stdout
    document = json.loads(boardhand("outlets", "rack", "--json", port=bench.mqtt.port).stdout)
    assert [outlet["outlet"] for outlet in document["controllers"][0]["outlets"]] == [str(n) for n in range(1, 9)]
    pdu.tell(do="deaf", value=True)
    told = boardhand("outlets", port=bench.mqtt.port)
    assert told.returncode == 0, "the agent answered: the PDU did not"
    assert "no answer" in told.stdout
    assert boardhand("outlets", "nobody", port=bench.mqtt.port).returncode == 4
