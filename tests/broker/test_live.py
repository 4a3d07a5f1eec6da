"""The whole broker with a real MQTT server, killed and restarted at will."""

import asyncio
import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from tests.broker.live import PATIENCE_S, ROOT, BrokerProcess, LiveFarm, Server
from wire.payloads import Lease, PowerCommand, WorkAccept, WorkAck, WorkOutcome, decode, encode
from wire.phases import Outcome, Phase


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
        made.append(broker)
        broker.start()
        return broker

    yield make
    for broker in made:
        broker.cleanup()
    log = (tmp_path / "broker.log").read_text()
    assert "Traceback" not in log, log


@pytest.fixture
async def farm(server):
    async with LiveFarm(server.port) as farm:
        yield farm


async def test_submit_wake_run_sleep(farm, make_broker):
    broker = make_broker(idle_s=1)
    await farm.broker_state("online")
    job = await farm.submit("name: build\nlabels: {arch: arm64}\nsteps: [make, {name: check, run: make check}]\n")
    summary = await farm.job_is(job, "passed")
    assert [step.name for step in summary.steps] == ["step 1", "check"]
    states = [s.state.value for s in farm.summaries(job)]
    assert list(dict.fromkeys(states)) == ["queued", "waking", "offered", "running", "passed"]
    board = summary.board
    logs = await farm.ask("logs", {"job": job})
    assert [c["text"] for c in logs.data["chunks"]] == ["$ make\n", "$ make check\n"]
    assert [c["step"] for c in logs.data["chunks"]] == ["step 1", "check"]
    assert logs.data["next"] == 2
    assert logs.data["ended"] is True
    leases = farm.payloads(farm.topics.lease(board))
    assert decode(Lease, leases[0]).holder == f"broker/{job}"
    assert leases[-1] == b""
    await farm.until("sleep", lambda: any(b'"sleep"' in p for p in farm.payloads(farm.topics.power_set(board))))
    wake, sleep = (decode(PowerCommand, p) for p in farm.payloads(farm.topics.power_set(board)))
    assert (wake.token, sleep.token) == (1, None)
    shown = await farm.ask("jobs", {"limit": 5})
    assert [j["state"] for j in shown.data["jobs"]] == ["passed"]
    one = await farm.ask("job", {"job": job})
    (attempt,) = one.data["attempts"]
    assert (attempt["result"], attempt["log_sent"], attempt["log_kept"]) == ("passed", 2, 2)
    assert broker.kill(signal.SIGTERM) == 0
    await farm.broker_state("offline")


KILL_POINTS = {
    "accepted": ("power", "queued"),
    "waking": ("power", "waking"),
    "offered": ("accept", "offered"),
    "running": ("run", "running"),
}


@pytest.mark.parametrize("point", KILL_POINTS)
async def test_kill_9_loses_no_job_and_runs_none_twice(point, farm, make_broker):
    hold, state = KILL_POINTS[point]
    farm.hold.add(hold)
    broker = make_broker(idle_s=0)
    await farm.broker_state("online")
    job = await farm.submit(transaction="once")
    await farm.job_is(job, state)
    broker.kill()
    await farm.broker_state("lost")
    farm.hold.clear()
    broker.start()
    summary = await farm.job_is(job, "passed")
    assert summary.attempt == 1
    assert farm.boards["b1"].runs == [(job, 1)]
    assert sum(s.state == "passed" for s in farm.summaries(job)) == 1
    assert await farm.submit(transaction="once") == job
    assert len((await farm.ask("jobs")).data["jobs"]) == 1


async def test_kill_9_many_times_while_many_jobs_run(farm, make_broker):
    broker = make_broker(idle_s=0)
    await farm.broker_state("online")
    jobs = [await farm.submit(f"name: j{n}\nsteps: [make]\n", transaction=f"many-{n}") for n in range(12)]
    for session in range(2, 6):
        await asyncio.sleep(0.25)  # no event to wait for: the point is to hit anywhere
        broker.kill()
        broker.start()
        await farm.broker_state("online", session)
    for job in jobs:
        await farm.job_is(job, "passed")
    runs = [run[0] for board in farm.boards.values() for run in board.runs]
    assert sorted(runs) == sorted(jobs)
    for job in jobs:
        attempts = (await farm.ask("job", {"job": job})).data["attempts"]
        assert [a["result"] for a in attempts].count("passed") == 1


async def test_board_finished_while_the_broker_was_dead(farm, make_broker):
    farm.hold.add("run")
    broker = make_broker(idle_s=0)
    await farm.broker_state("online")
    job = await farm.submit()
    await farm.job_is(job, "running")
    broker.kill()
    farm.hold.clear()
    await asyncio.sleep(0.6)  # the outcome is sent into the void at least once
    broker.start()
    await farm.job_is(job, "passed")
    assert farm.boards["b1"].runs == [(job, 1)]


async def test_mqtt_server_restarts_in_the_middle(farm, server, make_broker):
    farm.hold.add("run")
    make_broker(idle_s=0)
    await farm.broker_state("online")
    job = await farm.submit()
    await farm.job_is(job, "running")
    server.stop()
    await server.start()
    await farm.link.wait_connected(PATIENCE_S)
    farm.hold.clear()
    summary = await farm.job_is(job, "passed")
    assert summary.attempt == 1


async def test_old_token_over_the_wire(farm, make_broker):
    farm.hold.add("run")
    make_broker(idle_s=0)
    await farm.broker_state("online")
    job = await farm.submit()
    await farm.job_is(job, "running")
    await farm.until("work", lambda: farm.boards["b1"].runs)
    await farm.say_state(farm.boards["b1"], Phase.FAULT, "smoke")
    await farm.until("fault", lambda: any("smoke" in (s.reason or "") for s in farm.summaries(job)))
    await farm.report("b1", WorkOutcome(job=job, token=1, outcome=Outcome.PASSED))

    def refused():
        acks = [p for p in farm.payloads(farm.topics.work("b1")) if b'"ack"' in p]
        return acks and not decode(WorkAck, acks[-1]).ok

    await farm.until("refusal", refused)
    shown = (await farm.ask("job", {"job": job})).data
    assert shown["state"] != "passed"
    assert shown["attempts"][0]["result"].startswith("fault: the board is in fault (smoke)")


async def test_requests_that_are_wrong(farm, make_broker):
    make_broker(idle_s=0)
    await farm.broker_state("online")
    late = await farm.ask("submit", {"yaml": "name: x\nsteps: [a]"}, expires=datetime.now(UTC) - timedelta(seconds=5))
    assert late.error.kind == "expired"
    typo = await farm.ask("submit", {"yaml": "name: x\nstps: [a]\nsteps: [a]"})
    assert (typo.error.kind, typo.error.key) == ("bad-request", "data.yaml:stps")
    assert "line 2" in typo.error.message
    assert (await farm.ask("submit", {"yaml": 5})).error.key == "data.yaml"
    assert (await farm.ask("frobnicate")).error.kind == "not-found"
    assert (await farm.ask("job", {"job": "job-77"})).error.kind == "not-found"
    assert (await farm.ask("cancel", {"job": "job-77"})).error.kind == "not-found"
    assert (await farm.ask("wake", {"board": "b9"})).error.kind == "unknown-board"
    assert (await farm.ask("jobs", {"state": "nowhere"})).error.key == "data.state"
    bad = await farm.ask_raw("jobs", b'{"transaction":"tt","data":[]}', "tt")
    assert bad.error.key == "data"
    none = await farm.ask_raw("jobs", b"\xff{", None)
    assert none.error.kind == "bad-request"
    retained = json.dumps({"transaction": "r", "data": {"yaml": "name: x\nsteps: [a]"}}).encode()
    await farm.link.publish(farm.topics.broker_request("submit"), retained, retain=True)
    make_broker_again = await farm.ask("jobs")
    assert len(make_broker_again.data["jobs"]) <= 1  # it came live once; the retained copy is for the next start


async def test_retained_request_is_ignored_at_start(farm, make_broker):
    payload = json.dumps({"transaction": "r", "data": {"yaml": "name: x\nsteps: [a]"}}).encode()
    await farm.link.publish(farm.topics.broker_request("submit"), payload, retain=True)
    make_broker(idle_s=0)
    await farm.broker_state("online")
    assert (await farm.ask("jobs")).data["jobs"] == []


HOSTILE = [
    b"",
    b"\x00\xff\xfe",
    b"[]",
    b"null",
    b"{",
    b"[" * 100_000,
    b'{"kind":"outcome"}',
    b'{"kind":"outcome","job":"job-1","token":1,"outcome":"great"}',
    b'{"kind":"log","job":"job-1","token":9007199254740992,"seq":999999999999999999999999,"text":"\\u0000"}',
    b'{"kind":"accept","job":"../../x","token":-1,"boot_id":""}',
    b'{"state":"online","session":99999999999999999999,"since":"never"}',
    b'{"power":"on","phase":"ready","since":"2026-01-01T00:00:00Z","agent":"ghost","session":1,"seq":1e400}',
    b'{"labels":{"a":[1]},"macs":["zz"]}',
    b'{"transaction":"x","data":{"yaml":"a: &a [b]\\nc: *a"}}',
    b'{"transaction":"x","data":{"job":"job-1","from_chunk":9007199254740992,"limit":1000}}',
    b"x" * 300_000,
]


async def test_hostile_payloads_on_every_topic(farm, make_broker):
    broker = make_broker(idle_s=0)
    await farm.broker_state("online")
    t = farm.topics
    verbs = ("submit", "jobs", "job", "logs", "cancel", "boards", "sleep", "wake", "x")
    topics = [t.agent_state("evil"), t.agent_info("evil"), *(t.broker_request(verb) for verb in verbs)]
    tails = ("state", "info", "self", "lease", "work/result", "power/result", "", "no/such/tail")
    topics += [f"{t.prefix}/board/evil/{tail}" for tail in tails]
    topics += [f"{t.prefix}/board/UPPER/state", f"{t.prefix}/broker/request/UP.PER"]
    for topic in topics:
        for payload in HOSTILE:
            await farm.link.publish(topic, payload)
    job = await farm.submit()
    await farm.job_is(job, "passed")
    assert broker.process.poll() is None
    spoiled = [p for p in farm.payloads(t.work("evil")) if b'"ack"' in p]
    assert decode(WorkAck, spoiled[0]).error.key == "outcome"


async def test_two_brokers_do_not_share_a_folder(farm, make_broker, tmp_path):
    first = make_broker()
    await farm.broker_state("online")
    second = subprocess.run(
        [sys.executable, "-m", "broker", "--settings", str(first.settings)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert second.returncode == 1
    assert "another broker runs with this state_dir" in second.stderr


def test_bad_settings(tmp_path):
    path = tmp_path / "b.toml"
    path.write_text("[broker]\nidle_s = 5\nbooting_cap = 0\n")
    done = subprocess.run(
        [sys.executable, "-m", "broker", "--settings", str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{path}:3: broker.booting_cap" in done.stderr


async def test_stale_lease_is_cleared_at_start(farm, make_broker):
    lease = Lease(holder="broker/job-9", token=17, expires=datetime.now(UTC))
    await farm.link.publish(farm.topics.lease("b1"), encode(lease), retain=True)
    make_broker(idle_s=0)
    await farm.until("clearing", lambda: farm.payloads(farm.topics.lease("b1"))[-1:] == [b""])
    job = await farm.submit()
    await farm.job_is(job, "passed")
    assert farm.boards["b1"].runs == [(job, 18)]


async def test_cancel_stops_the_board(farm, make_broker):
    farm.hold.add("run")
    make_broker(idle_s=0)
    await farm.broker_state("online")
    job = await farm.submit()
    await farm.job_is(job, "running")
    assert (await farm.ask("cancel", {"job": job})).ok
    await farm.job_is(job, "cancelled")
    await farm.until("stop", lambda: any(b'"stop"' in p for p in farm.payloads(farm.topics.work("b1"))))


async def test_boards_tells_the_picture(farm, make_broker):
    make_broker(idle_s=0)
    await farm.broker_state("online")
    await farm.say_state(farm.boards["b2"], Phase.MAINTENANCE, "new fan")
    job = await farm.submit()
    await farm.job_is(job, "passed")
    lines = {line["board"]: line for line in (await farm.ask("boards")).data["boards"]}
    assert lines["b2"]["takes_work"] == "out"
    assert lines["b2"]["why"] == "in maintenance (new fan)"
    assert lines["b1"]["labels"] == {"arch": "arm64"}


async def test_offer_is_answered_to_the_token(farm, make_broker):
    """An accept with a token that was never given changes nothing, and its sender is stopped."""
    farm.hold.add("accept")
    make_broker(idle_s=0)
    await farm.broker_state("online")
    job = await farm.submit()
    await farm.job_is(job, "offered")
    await farm.report("b1", WorkAccept(job=job, token=99, boot_id="b1-1"))
    await farm.until("stop", lambda: any(b'"stop"' in p for p in farm.payloads(farm.topics.work("b1"))))
    assert (await farm.ask("job", {"job": job})).data["state"] == "offered"
