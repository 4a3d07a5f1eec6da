"""A group on the real broker over a real MQTT server: boards that call, a broker that is killed in the middle."""

import asyncio

import pytest

from broker.groups.multinode_payloads import WorkAnswer, WorkCall
from tests.broker.live import PATIENCE_S, BrokerProcess, LiveFarm, Server
from wire.payloads import decode, encode
from wire.phases import JobState

PAIR = "name: pair\ngroup: {server: {steps: [serve]}, client: {steps: [ask]}}\n"


@pytest.fixture
async def live(tmp_path):
    server = Server(tmp_path)
    await server.start()
    broker = BrokerProcess(tmp_path, server.port)
    broker.start()
    try:
        async with LiveFarm(server.port) as farm:
            await farm.broker_state("online")
            yield farm, broker
    finally:
        broker.cleanup()
        server.stop()


async def said(farm, board, text, name):
    job, token = farm.boards[board].work
    call = WorkCall(job=job, token=token, call=name, text=text)
    await farm.say(f"{farm.topics.work(board)}/call", encode(call))


async def answered(farm, board, name):
    def search():
        found = [decode(WorkAnswer, payload) for payload in farm.payloads(f"{farm.topics.work(board)}/answer")]
        return next((one for one in found if one.call == name), None)

    return await farm.until(f"an answer to {name} of {board}", search)


async def printed(farm, job, *words):
    """Wait until the broker keeps what the boards of a group have printed."""
    async with asyncio.timeout(PATIENCE_S):
        text = ""
        while not all(f"$ {word}" in text for word in words):
            answer = await farm.ask("logs", {"job": job, "from_chunk": 0})
            text = "".join(chunk["text"] for chunk in answer.data["chunks"])
            await asyncio.sleep(0.05)


async def test_two_boards_meet_over_a_broker_that_is_killed(live):
    farm, broker = live
    farm.hold.add("run")
    job = await farm.submit(PAIR)
    await farm.job_is(job, JobState.RUNNING)
    await farm.until("both at work", lambda: all(board.runs for board in farm.boards.values()))
    roles = {name: board.work[0] for name, board in farm.boards.items()}
    assert set(roles.values()) == {"job-2", "job-3"}
    await said(farm, "b1", "send ready\nip=10.0.0.1", "c1")
    assert (await answered(farm, "b1", "c1")).ok
    await said(farm, "b1", "sync end", "c2")
    # What a board prints while the broker is away is lost, and these jobs are judged by what they print.
    await printed(farm, job, "serve", "ask")
    broker.kill()
    broker.start()
    await farm.broker_state("online", session=2)
    await said(farm, "b2", "wait ready", "c3")
    assert (await answered(farm, "b2", "c3")).text == "ip=10.0.0.1\n"
    await said(farm, "b1", "sync end", "c2")  # as clients do until they are answered
    await said(farm, "b2", "sync end", "c4")
    assert (await answered(farm, "b2", "c4")).ok
    assert (await answered(farm, "b1", "c2")).ok
    farm.hold.clear()
    ended = await farm.job_is(job, JobState.PASSED)
    assert [step.passed for step in ended.steps] == [True, True]
    answer = await farm.ask("logs", {"job": job, "from_chunk": 0})
    text = "".join(chunk["text"] for chunk in answer.data["chunks"])
    assert "serve" in text
    assert "ask" in text
    assert all(len(board.runs) == 1 for board in farm.boards.values())


async def test_a_group_is_cancelled_as_a_whole(live):
    farm, _ = live
    farm.hold.add("run")
    job = await farm.submit(PAIR)
    await farm.job_is(job, JobState.RUNNING)
    assert (await farm.ask("cancel", {"job": "job-2"})).ok
    for one in (job, "job-2", "job-3"):
        await farm.job_is(one, JobState.CANCELLED)
    await farm.until("both stopped", lambda: all(board.stopped.is_set() for board in farm.boards.values()))
