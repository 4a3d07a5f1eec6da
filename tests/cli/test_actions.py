"""`cli.actions` against a real Mosquitto and an agent that answers late, twice, with no, and not at all."""

import json
import math
import os
import threading
import time

import pytest

from board.client import MqttConnection
from cli import actions
from cli.actions import ActionRequest, progress_shown
from cli.exits import CliError, Exit
from cli.target import Target
from tests.cli.farm_double import DEADLINE_S, board_state, mosquitto, say, wait_for

BOARD = "virt-1"
STATE = {"state": "online", "session": 1, "since": "2026-11-20T10:00:00Z"}
PATIENCE_S = 60.0
"""`timeout_s` of requests that end by themselves."""


class ActionAgent:
    """An agent that is a thread: `plan` gets each request that is no repetition, and says what it wants to."""

    def __init__(self, port, plan):
        self.port = port
        self.requests = []
        self.faults = []
        self._plan = plan
        self._seen = set()
        self._link = MqttConnection("127.0.0.1", port, f"actions-{os.urandom(4).hex()}")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="action agent")
        self.seq = 0

    def __enter__(self):
        self._link.connect()
        self.is_now("online")
        say(self.port, f"boardhand/board/{BOARD}/state", json.dumps(board_state()).encode(), retain=True)
        self._link.subscribe("boardhand/agent/lab-1/request/+")
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._stop.set()
        self._thread.join(DEADLINE_S)
        self._link.close()
        assert not self.faults

    def _run(self):
        try:
            while not self._stop.is_set():
                message = self._link.receive(0.05)
                if message is None:
                    continue
                verb, request = message.topic.rsplit("/", 1)[1], json.loads(message.payload)
                self.requests.append((verb, request))
                self._plan(self, verb, request)
        except Exception as fault:
            self.faults.append(fault)
            raise

    def is_new(self, request):
        known = request["transaction"] in self._seen
        self._seen.add(request["transaction"])
        return not known

    def asked(self, verb):
        return [request for name, request in self.requests if name == verb]

    def is_now(self, state, session=1):
        said = STATE | {"state": state, "session": session}
        say(self.port, "boardhand/agent/lab-1/state", json.dumps(said).encode(), retain=True)

    def event(self, transaction, **details):
        self.seq += 1
        event = {"type": "action", "board": BOARD, "agent": "lab-1", "session": 1, "seq": self.seq}
        event |= {"at": STATE["since"], "details": {"action": "flash", "transaction": transaction} | details}
        self._link.publish(f"boardhand/event/{BOARD}", json.dumps(event).encode(), wait=False)

    def answer(self, verb, transaction, **what):
        payload = {"transaction": transaction, "ok": "error" not in what} | what
        self._link.publish(f"boardhand/agent/lab-1/response/{verb}", json.dumps(payload).encode(), wait=False)

    def raw(self, topic, payload):
        self._link.publish(f"boardhand/{topic}", payload, wait=False)


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as found:
        yield found


@pytest.fixture
def farm(port):
    """The port of a server that is empty again afterwards."""
    yield port
    for topic in (f"board/{BOARD}/state", "agent/lab-1/state"):
        say(port, f"boardhand/{topic}", b"", retain=True)


def target(port):
    return Target(f"mqtt://127.0.0.1:{port}", "boardhand", "a test")


def request(port, verb="flash", token=None, **data):
    return ActionRequest(target(port), BOARD, verb, data, token=token)


def heard():
    said = []
    return said, lambda stage, percent, message: said.append((stage, percent, message))


def test_an_action_is_sent_once_and_watched_to_its_end(farm):
    def plan(agent, verb, asked):
        assert agent.is_new(asked), "an agent that has begun is not asked again"
        mine = asked["transaction"]
        agent.event("another", stage="begun", percent=99)
        agent.event(mine, stage="begun")
        agent.raw(f"event/{BOARD}", b"\xff{no event")
        agent.raw(f"event/{BOARD}", json.dumps({"transaction": mine}).encode())
        agent.answer(verb, "another", data={"foreign": True})
        agent.event(mine, stage="write\x1b[2J", percent=50, message="half")
        agent.raw(f"agent/lab-1/response/{verb}", b"{")
        agent.event(mine, stage="done")
        agent.answer(verb, mine, data={"written": 5})

    said, told = heard()
    with ActionAgent(farm, plan) as agent:
        asked = request(farm, token=7, image="a.img")
        assert asked.run(timeout_s=PATIENCE_S, told=told) == {"written": 5}
        (sent,) = agent.asked("flash")
    assert sent["data"] == {"board": BOARD, "timeout_s": PATIENCE_S, "token": 7, "image": "a.img"}
    assert [stage for stage, _, _ in said] == ["begun", "write\\x1b[2J", "done"], "what a terminal would obey is shown"
    assert said[1][1:] == (50.0, "half")


def test_an_agent_that_is_late_is_asked_again_by_the_same_transaction(farm, monkeypatch):
    monkeypatch.setattr(actions, "REPEAT_S", 0.2)

    def plan(agent, verb, asked):
        if len(agent.requests) >= 3:
            agent.answer(verb, asked["transaction"], data={"times": len(agent.requests)})

    _, told = heard()
    with ActionAgent(farm, plan) as agent:
        assert request(farm).run(timeout_s=PATIENCE_S, told=told)["times"] >= 3
        assert len({asked["transaction"] for asked in agent.asked("flash")}) == 1


def test_an_answer_that_was_lost_is_asked_for_again(farm, monkeypatch):
    monkeypatch.setattr(actions, "ANSWER_S", 0.1)

    def plan(agent, verb, asked):
        mine = asked["transaction"]
        if agent.is_new(asked):
            agent.event(mine, stage="begun")
            agent.event(mine, stage="done")
        else:
            agent.answer(verb, mine, data={"again": True})

    _, told = heard()
    with ActionAgent(farm, plan):
        began = time.monotonic()
        assert request(farm).run(timeout_s=PATIENCE_S, told=told) == {"again": True}
    assert time.monotonic() - began < PATIENCE_S


def test_an_agent_that_was_killed_in_the_midst_is_asked_when_it_is_back(farm):
    def plan(agent, verb, asked):
        mine = asked["transaction"]
        if agent.is_new(asked):
            agent.event(mine, stage="begun")
            threading.Thread(target=die_and_return, args=(agent,)).start()
        else:
            error = {"kind": "interrupted", "message": "the agent was stopped while flash was under way"}
            agent.answer(verb, mine, error=error)

    def die_and_return(agent):
        agent.is_now("lost")
        wait_for(lambda: any(stage == "waiting" for stage, _, _ in said), "the command says that the agent is lost")
        agent.is_now("online", session=2)

    said, told = heard()
    with ActionAgent(farm, plan), pytest.raises(CliError, match="the agent was stopped while flash"):
        request(farm).run(timeout_s=PATIENCE_S, told=told)
    assert ("waiting", None, "agent lab-1 is lost") in said


def test_no_is_told_by_its_kind(farm):
    def plan(agent, verb, asked):
        error = {"kind": "not-allowed", "message": f"board {BOARD}: leased by alice", "key": "token"}
        agent.answer(verb, asked["transaction"], error=error)

    _, told = heard()
    with ActionAgent(farm, plan), pytest.raises(CliError, match="leased by alice") as refused:
        request(farm).run(timeout_s=PATIENCE_S, told=told)
    assert refused.value.code is Exit.NOT_ALLOWED


def test_an_answer_to_us_that_cannot_be_read_ends_the_wait(farm):
    def plan(agent, verb, asked):
        payload = json.dumps({"transaction": asked["transaction"], "ok": "perhaps"}).encode()
        agent.raw(f"agent/lab-1/response/{verb}", payload)

    _, told = heard()
    with ActionAgent(farm, plan), pytest.raises(CliError, match="its answer to 'flash' cannot be read"):
        request(farm).run(timeout_s=PATIENCE_S, told=told)


def test_an_agent_that_is_not_there_is_not_waited_for(farm):
    _, told = heard()
    with ActionAgent(farm, lambda *_: None) as agent:
        agent.is_now("lost")
        with pytest.raises(CliError, match=f"did not answer 'flash' for {BOARD}: it is lost") as silent:
            request(farm).run(timeout_s=PATIENCE_S, told=told)
    assert silent.value.code is Exit.NO_ANSWER


def test_an_agent_that_hangs_is_given_up_after_its_time(farm, monkeypatch):
    monkeypatch.setattr(actions, "CANCEL_S", 0.2)
    _, told = heard()

    def plan(agent, _verb, asked):
        agent.event(asked["transaction"], stage="begun")

    with ActionAgent(farm, plan), pytest.raises(CliError, match="did not answer 'flash'") as silent:
        request(farm).run(timeout_s=0.3, told=told)
    assert silent.value.code is Exit.NO_ANSWER


def test_a_board_that_nobody_has(farm):
    _, told = heard()
    with pytest.raises(CliError, match="unknown board nobody"):
        ActionRequest(target(farm), "nobody", "flash", {}).run(timeout_s=1, told=told)


def test_ctrl_c_cancels_it_at_the_agent(farm):
    def plan(agent, verb, asked):
        if verb == "flash":
            agent.event(asked["transaction"], stage="begun")

    def told(stage, _percent, _message):
        if stage == "begun":
            raise KeyboardInterrupt

    with ActionAgent(farm, plan) as agent:
        asked = request(farm, token=7)
        with pytest.raises(KeyboardInterrupt):
            asked.run(timeout_s=PATIENCE_S, told=told)
        wait_for(lambda: agent.asked("cancel-action"), "the agent is told to cancel")
        (cancelled,) = agent.asked("cancel-action")
    assert cancelled["data"] == {"board": BOARD, "transaction": asked.transaction, "token": 7}
    assert cancelled["transaction"] != asked.transaction


def test_progress_as_json_is_a_line_each_and_nothing_that_is_not_known(capsys):
    with progress_shown(as_json=True) as told:
        told("write", 50.0, "half")
        told("done", None, "")
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"stage": "write", "percent": 50.0, "message": "half"},
        {"stage": "done"},
    ]


def test_nothing_is_shown_where_nobody_looks(capsys):
    with progress_shown(as_json=False) as told:
        told("write", math.pi, "half")
    assert capsys.readouterr() == ("", "")
