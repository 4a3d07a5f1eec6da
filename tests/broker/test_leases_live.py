"""Leases of people with the real broker, a real MQTT server and the real commands."""

import asyncio
import contextlib
import json
import os
import sqlite3
import stat
import sys

import pytest

from broker.jobs.store import JobStore
from broker.store.schema import MIGRATIONS
from tests.broker.live import PATIENCE_S, ROOT, BrokerProcess, LiveFarm, Server
from wire.payloads import Lease, LeaseNotice, PowerResult, decode, encode, parse_power_command
from wire.phases import ErrorKind, LeaseStage, Phase, Power, Purpose


class StrictFarm(LiveFarm):
    """Its agent refuses power commands without the current lease's token, as real ones do."""

    def lease(self, board):
        said = self.payloads(self.topics.lease(board))
        return decode(Lease, said[-1]) if said and said[-1] else None

    async def power(self, board, command):
        lease = self.lease(board.name)
        if (lease.token if lease is not None else None) != command.token:
            error = {"kind": ErrorKind.NOT_ALLOWED, "message": f"board {board.name}: no, the token"}
            result = PowerResult(id=command.id, ok=False, power=Power.UNKNOWN, took_ms=1, error=error)
            await self.link.publish(self.topics.power_result(board.name), encode(result))
            return
        await super().power(board, command)

    def stages(self, lease):
        found = self.payloads(f"{self.topics.prefix}/lease/{lease}/state")
        return [decode(LeaseNotice, payload).stage for payload in found]


@pytest.fixture
async def rig(tmp_path):
    server = Server(tmp_path)
    await server.start()
    broker = BrokerProcess(tmp_path, server.port, idle_s=0)
    farm = StrictFarm(server.port)
    farm.link._subscriptions.append(farm.topics.every_lease_state())
    try:
        broker.start()
        async with farm:
            await farm.broker_state("online")
            yield server, broker, farm, tmp_path
    finally:
        broker.cleanup()
        server.stop()


async def phase_is(farm, board, phase):
    async with asyncio.timeout(PATIENCE_S):
        while farm.boards[board].phase is not phase:  # noqa: ASYNC110  # the double tells nobody of it
            await asyncio.sleep(0.02)


async def boardhand(server, folder, *words, wait=True):
    environment = {"PATH": os.environ["PATH"], "BOARDHAND_MQTT": f"mqtt://127.0.0.1:{server.port}", "HOME": str(folder)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli", *words,
        cwd=ROOT, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    if not wait:
        return process
    async with asyncio.timeout(PATIENCE_S):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_reserve_cycle_extend_hand_over_release_by_the_commands(rig):
    server, broker, farm, folder = rig
    code, out, err = await boardhand(server, folder, "reserve", "b1", "--for", "2h", "--comment", "U-Boot", "--wake",
                                     "--holder", "alice")  # fmt: skip
    assert (code, err) == (0, "")
    assert out.startswith("b1 is yours until ")
    lease = farm.lease("b1")
    assert (lease.holder, lease.kind, lease.comment) == ("alice", "person", "U-Boot")
    assert f"--token {lease.token}" in out
    await phase_is(farm, "b1", Phase.READY)
    (kept,) = (folder / ".local/state/boardhand/leases").rglob("b1")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert kept.read_text() == f"{lease.token}\n"
    # The token is taken by itself.
    code, out, err = await boardhand(server, folder, "power", "b1", "on")
    assert (code, err) == (0, "")
    code, out, _ = await boardhand(server, folder / "else", "power", "b1", "off")
    assert code == 5, "somebody else, who has no token"
    code, _, err = await boardhand(server, folder, "reserve", "b1", "--holder", "bob")
    assert code == 5
    assert "held by alice until" in err
    assert "--wait" in err
    code, out, _ = await boardhand(server, folder, "leases", "--json")
    (line,) = json.loads(out)["leases"]
    assert {
        "lease": "lease-1",
        "board": "b1",
        "holder": "alice",
        "kind": "person",
        "comment": "U-Boot",
    }.items() <= line.items()
    code, out, _ = await boardhand(server, folder, "extend", "b1", "--for", "3h", "--holder", "alice", "--json")
    assert json.loads(out)["expires"] > line["expires"]
    code, _, err = await boardhand(server, folder, "release", "b1", "--holder", "bob")
    assert code == 5
    code, out, _ = await boardhand(server, folder, "hand-over", "b1", "bob", "--holder", "alice")
    assert code == 0
    assert f"token {lease.token + 1}" in out
    assert not kept.exists()
    code, out, _ = await boardhand(server, folder, "leases")
    assert "bob" in out
    assert "alice" not in out
    code, out, _ = await boardhand(server, folder, "release", "lease-1", "--force")
    assert (code, out) == (0, "b1 is given back\n")
    assert farm.lease("b1") is None
    assert farm.stages("lease-1")[-1] is LeaseStage.ENDED
    assert "Traceback" not in broker.log.read_text()


async def test_an_old_token_is_forgotten_and_the_command_goes_on_without(rig):
    server, _, farm, folder = rig
    await boardhand(server, folder, "reserve", "b1", "--holder", "alice")
    await farm.ask("release", {"lease": "b1"})
    code, _, err = await boardhand(server, folder, "power", "b1", "on")
    assert (code, err) == (0, "")
    assert list((folder / ".local/state/boardhand/leases").rglob("b1")) == []


async def test_waiting_in_the_queue_until_it_is_given_back(rig):
    server, _, farm, folder = rig
    await farm.ask("reserve", {"holder": "alice", "board": "b1", "for_s": 600})
    waiting = await boardhand(server, folder, "reserve", "b1", "--holder", "bob", "--wait", wait=False)
    async with asyncio.timeout(PATIENCE_S):
        assert b"lease-2 waits for b1 to be free" in await waiting.stderr.readline()
    impatient = await boardhand(server, folder, "reserve", "b1", "--holder", "eve", "--wait-s", "0.1")
    assert impatient[0] == 4
    lines = (await farm.ask("leases")).data["leases"]
    assert [line["holder"] for line in lines] == ["alice", "bob"], "eve has left the queue"
    assert lines[1]["waits"] == "waits for b1 to be free"
    await farm.ask("release", {"lease": "b1", "holder": "alice"})
    async with asyncio.timeout(PATIENCE_S):
        out, _ = await waiting.communicate()
    assert waiting.returncode == 0
    assert out.startswith(b"b1 is yours")
    assert farm.lease("b1").holder == "bob"
    assert farm.stages("lease-2")[:2] == [LeaseStage.WAITING, LeaseStage.HELD]


async def test_a_killed_broker_keeps_leases_and_queue_and_a_repeated_request_is_done_once(rig):
    _, broker, farm, _ = rig
    await farm.boot(farm.boards["b1"])
    first = await farm.ask("reserve", {"holder": "alice", "board": "b1", "comment": "mine"}, transaction="once")
    await farm.ask("reserve", {"holder": "bob", "board": "b1", "wait": True})
    job = await farm.submit()
    broker.kill()
    broker.start()
    await farm.broker_state("online", session=2)
    again = await farm.ask("reserve", {"holder": "alice", "board": "b1", "comment": "mine"}, transaction="once")
    assert again.data == first.data
    lines = (await farm.ask("leases")).data["leases"]
    assert [(line["holder"], line.get("board")) for line in lines] == [("alice", "b1"), ("bob", None)]
    assert farm.lease("b1").token == first.data["token"]
    assert farm.boards["b1"].runs == []
    await farm.ask("release", {"lease": "b1", "holder": "alice"})
    await farm.until("bob has it", lambda: (lease := farm.lease("b1")) and lease.holder == "bob")
    await farm.ask("release", {"lease": "b1", "holder": "bob"})
    await farm.job_is(job, "passed")


async def test_killed_in_a_storm_of_wishes_each_is_granted_once(rig):
    """Whoever gets no answer asks again with the same transaction."""
    _, broker, farm, _ = rig
    for session in (2, 3):
        for number in range(60):
            request = {"transaction": f"w{number}", "data": {"holder": f"p{number}", "board": "b1", "wait": True}}
            await farm.link.publish(farm.topics.broker_request("reserve"), json.dumps(request).encode())
        broker.kill()
        broker.start()
        await farm.broker_state("online", session=session)
    answers = [
        await farm.ask("reserve", {"holder": f"p{n}", "board": "b1", "wait": True}, transaction=f"w{n}")
        for n in range(60)
    ]
    lines = (await farm.ask("leases")).data["leases"]
    assert sorted(line["holder"] for line in lines) == sorted(f"p{n}" for n in range(60))
    assert {answer.data["lease"] for answer in answers} == {line["lease"] for line in lines}
    (held,) = [line for line in lines if line.get("board") == "b1"]
    assert farm.lease("b1").holder == held["holder"]


async def test_it_ends_by_itself_is_said_before_and_switches_off(rig):
    _, _, farm, _ = rig
    await farm.boot(farm.boards["b1"])
    answer = await farm.ask("reserve", {"holder": "alice", "board": "b1", "for_s": 2, "off": True})
    lease = answer.data["lease"]
    await farm.until("the end", lambda: LeaseStage.ENDED in farm.stages(lease))
    stages = farm.stages(lease)
    assert stages.index(LeaseStage.ENDING) < stages.index(LeaseStage.ENDED)
    await phase_is(farm, "b1", Phase.SLEEPING)
    commands = [parse_power_command(payload) for payload in farm.payloads(farm.topics.power_set("b1"))]
    assert [(c.power, c.purpose) for c in commands] == [("off", Purpose.SLEEP)]


BAD_REQUESTS = [
    ("reserve", {}, "data.holder"),
    ("reserve", {"holder": "a b", "board": "b1"}, "data.holder"),
    ("reserve", {"holder": "broker/job-1", "board": "b1"}, "data.holder"),
    ("reserve", {"holder": "a", "board": "B 1"}, "data.board"),
    ("reserve", {"holder": "a", "labels": {"memory_mb": ">= much"}}, "data.labels"),
    ("reserve", {"holder": "a", "board": "b1", "for_s": -1}, "data.for_s"),
    ("reserve", {"holder": "a", "board": "b1", "for_s": 1e300}, "data.for_s"),
    ("reserve", {"holder": "a", "board": "b1", "wait": "yes"}, "data.wait"),
    ("extend", {"lease": "lease-1"}, "data.for_s"),
    ("hand-over", {"lease": "lease-1", "to": ""}, "data.to"),
    ("leases", {"start": -1}, "data.start"),
]


async def test_bad_requests_name_the_key(rig):
    for verb, data, key in BAD_REQUESTS:
        answer = await rig[2].ask(verb, data)
        assert answer.error is not None, (verb, data)
        assert (answer.error.kind, answer.error.key) == (ErrorKind.BAD_REQUEST, key)
    assert (await rig[2].ask("leases")).data["leases"] == []


async def test_a_store_from_before_there_were_leases(tmp_path):
    """What a broker of the third schema left behind."""
    with contextlib.closing(sqlite3.connect(tmp_path / "broker.sqlite3")) as old:
        for script in MIGRATIONS[:3]:
            old.executescript(script)
        old.execute("PRAGMA user_version = 3")
        old.execute("INSERT INTO tokens VALUES ('b1', 41)")
        old.commit()
    store = await JobStore.open(tmp_path)
    try:
        found = await store.recover()
        assert found.leases == []
        assert found.tokens == {"b1": 41}
    finally:
        await store.close()
