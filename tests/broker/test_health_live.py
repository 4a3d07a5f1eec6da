"""Health, retirement, hooks before a job and the JSON log on a real MQTT server, with the real broker as a process."""

import asyncio
import json
import subprocess
from datetime import UTC, datetime

import pytest

from daemon.mqtt_link import MqttLink
from daemon.mqtt_settings import MqttSettings
from tests.broker.live import PATIENCE_S, BrokerProcess, LiveFarm, Server
from tests.broker.test_board_webhooks import Receiver
from wire.payloads import AgentInfo, Alert, ErrorInfo, Event, Request, Response, decode, encode
from wire.phases import ErrorKind, EventType, Phase
from wire.topics import Topics


@pytest.fixture
async def server(tmp_path):
    server = Server(tmp_path)
    await server.start()
    yield server
    server.stop()


@pytest.fixture
async def make_broker(tmp_path, server):
    made = []

    def make(**table):
        broker = BrokerProcess(tmp_path, server.port, **table)
        with broker.settings.open("a") as settings:
            settings.write('[log]\nformat = "json"\n')
        made.append(broker)
        broker.start()
        return broker

    yield make
    for broker in made:
        broker.cleanup()
    for line in (tmp_path / "broker.log").read_text().splitlines():
        assert "exception" not in json.loads(line), line


@pytest.fixture
async def farm(server):
    async with LiveFarm(server.port) as farm:
        yield farm


class AgentAsked:
    """The requests to agent lab1; `refuse` is why boards take no jobs, `silent` verbs get no answer."""

    def __init__(self, port, hooks=()):
        self.topics, self.hooks, self.boards = Topics(), list(hooks), ["b1", "b2"]
        self.asked, self.refuse, self.tasks = [], {}, set()
        self.link = MqttLink(
            MqttSettings(url=f"mqtt://127.0.0.1:{port}"), "agent-asked", will=None,
            subscriptions=[self.topics.every_agent_request("lab1")], on_message=self.heard, on_connect=self.say_info,
        )  # fmt: skip

    async def __aenter__(self):
        await self.link.start()
        await self.link.wait_connected(PATIENCE_S)
        return self

    async def __aexit__(self, *_):
        await asyncio.gather(*self.tasks)
        await self.link.stop()

    async def say_info(self):
        info = AgentInfo(version="1", contract="1", host="h", boards=self.boards, hooks=self.hooks)
        await self.link.publish(self.topics.agent_info("lab1"), encode(info), retain=True)

    def heard(self, message):
        verb = self.topics.parse_verb(message.topic, "agent/lab1")
        request = decode(Request, message.payload)
        self.asked.append((verb, request.data))
        why = self.refuse.get(request.data.get("board"))
        error = ErrorInfo(kind=ErrorKind.REFUSED, message=why) if why and verb == "prepare" else None
        data = {"board": request.data.get("board"), "phase": "maintenance"}
        answer = Response(transaction=request.transaction, ok=error is None, data=data, error=error)
        task = asyncio.create_task(self.link.publish(self.topics.agent_response("lab1", verb), encode(answer)))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def rule(tmp_path, step="true", **keys):
    job = tmp_path / "health.yaml"
    job.write_text(f"name: check\nsteps: [{step}]\n")
    more = "".join(f", {key} = {json.dumps(value)}" for key, value in keys.items())
    return f"[{{job = {json.dumps(str(job))}, retry_s = 0{more}}}]"


async def until_health(farm, board, state):
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await farm.ask("health", {"board": board})
            if answer.ok and answer.data["boards"] and answer.data["boards"][0]["health"] == state:
                return answer.data["boards"][0]
            await asyncio.sleep(0.05)


def retained(port, pattern):
    """What a client that comes now is given, by a foreign client."""
    done = subprocess.run(
        ["mosquitto_sub", "-p", str(port), "-t", pattern, "--retained-only", "-W", "4", "-F", "%t"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return set(done.stdout.split())


async def test_boards_are_trained_and_checked_before_their_first_job(farm, make_broker, tmp_path):
    make_broker(idle_s=300, health=rule(tmp_path, train_boots=2))
    await farm.broker_state("online")
    job = await farm.submit()
    await farm.job_is(job, "passed")
    board = farm.boards["b1"]
    assert board.boots == 2
    assert [run[0] for run in board.runs][-1] == job
    assert len(board.runs) == 2
    found = await until_health(farm, "b1", "trusted")
    assert len(found["boots_s"]) == 2
    assert board.runs[0][0] == found["job"]


async def test_a_board_that_fails_is_kept_from_work_over_kill_9_until_a_person_says(
    farm, make_broker, server, tmp_path
):
    receiver = Receiver()
    try:
        hook = f'[{{url = "{receiver.url}", boards = ["b1"], events = ["health", "presence"]}}]'
        broker = make_broker(health=rule(tmp_path, "false", limit=2, boards=["b1"]), webhook=hook)
        await farm.broker_state("online")
        found = await until_health(farm, "b1", "fault")
        assert found["failures"] == 2
        assert found["evidence"][0]["log"] == "$ false\n"
        alert_topic = farm.topics.alert("b1", "health")
        assert retained(server.port, "boardhand/board/+/alert/#") == {alert_topic}
        said = Event(
            type=EventType.PRESENCE, at=datetime.now(UTC), board="b1", agent="lab1", session=1, seq=1, details={}
        )
        await farm.say(farm.topics.event("b1"), encode(said))
        bodies = await receiver.until(2)
        assert [body["type"] for body in bodies] == ["health", "presence"]
        decode(Alert, json.dumps(bodies[0]["alert"]).encode())
        broker.kill()
        broker.start()
        await farm.broker_state("online", 2)
        job = await farm.submit()
        await farm.until("why", lambda: any("failed its health" in (s.reason or "") for s in farm.summaries(job)))
        assert (await farm.ask("accept", {"board": "b1"})).ok
        await farm.job_is(job, "passed")
        assert retained(server.port, "boardhand/board/+/alert/#") == set()
    finally:
        receiver.close()


async def test_a_retired_board_is_forgotten_when_no_agent_has_it(farm, make_broker, server):
    async with AgentAsked(server.port) as agent:
        make_broker()
        await farm.broker_state("online")
        assert (await farm.ask("retire", {"board": "b2"})).data["is"] == "retired"
        job = await farm.submit("name: t\nboard: b2\nsteps: [make]\n")
        await farm.until("why", lambda: any("is retired" in (s.reason or "") for s in farm.summaries(job)))
        refused = await farm.ask("forget", {"board": "b2"})
        assert "agent lab1 still has board b2" in refused.error.message
        agent.boards = ["b1"]
        await agent.say_info()
        del farm.boards["b2"]
        async with asyncio.timeout(PATIENCE_S):
            while not (await farm.ask("forget", {"board": "b2"})).ok:  # noqa: ASYNC110  # the agent's word is under way
                await asyncio.sleep(0.05)
        assert retained(server.port, "boardhand/board/b2/#") == set()
        assert "boardhand/board/b1/state" in retained(server.port, "boardhand/board/b1/#")
        assert [line["board"] for line in (await farm.ask("boards")).data["boards"]] == ["b1"]


async def test_the_agent_is_asked_before_a_job_and_for_maintenance(farm, make_broker, server):
    async with AgentAsked(server.port, ["before-job"]) as agent:
        agent.refuse["b1"] = "the door is open"
        make_broker(bench_s=30)
        await farm.broker_state("online")
        for board in farm.boards.values():
            board.online = True
            await farm.say_self(board)
            await farm.say_state(board, Phase.READY)
        job = await farm.submit("name: t\nsteps: [make]\n")
        await farm.job_is(job, "passed")
        other = await farm.submit("name: t\nboard: b1\nsteps: [make]\n")
        told = farm.summaries  # of one or the other: who asked first is passed over
        await farm.until(
            "its refusal", lambda: any("the door is open" in (s.reason or "") for s in told(job) + told(other))
        )
        assert not farm.boards["b1"].runs
        asked = [data for verb, data in agent.asked if verb == "prepare"]
        assert {data["board"] for data in asked} == {"b1", "b2"}
        assert all(set(data) == {"board", "job", "token"} for data in asked)
        assert (await farm.ask("maintenance", {"board": "b1", "on": True})).data == {"board": "b1", "is": "maintenance"}
        assert ("maintenance", {"board": "b1", "on": True}) in agent.asked
