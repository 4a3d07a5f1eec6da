import asyncio
import logging

import pytest

from agent.pdu_listener import service
from agent.pdu_listener.settings import ListenerError
from agent.pdu_listener.words import Asked, Verb
from wire.phases import ErrorKind, Power


async def test_a_client_that_leaves_does_not_stop_its_switch(listen, http, until):
    listener, desk = await listen()
    desk.go_on.clear()
    asking = asyncio.create_task(http(listener, "/power/control/on?alias=pi"))
    await until(lambda: desk.begun == 1)
    asking.cancel()
    await asyncio.wait([asking])
    desk.go_on.set()
    await until(lambda: desk.power.get("pi") is Power.ON)


async def test_a_stop_waits_for_what_is_under_way_and_answers_it(listen, http, until):
    listener, desk = await listen()
    desk.go_on.clear()
    asking = asyncio.create_task(http(listener, "/power/control/off?alias=pi"))
    later = asyncio.create_task(http(listener, "/power/control/on?alias=pi&delay=60"))
    await until(lambda: desk.begun == 1 and len(listener._tasks) == 2)
    stopping = asyncio.create_task(listener.stop())
    status, text = await later
    assert (status, "being stopped; nothing was switched" in text) == (503, True)
    assert not stopping.done()
    desk.go_on.set()
    assert await asking == (200, "OK - accepted request\n")
    await stopping
    assert len(desk.calls) == 1
    with pytest.raises(OSError):
        await asyncio.open_connection(*listener.http)


async def test_a_stop_does_not_wait_for_ever(listen, http, until, monkeypatch):
    monkeypatch.setattr(service, "STOP_GRACE_S", 0.1)
    listener, desk = await listen()
    desk.go_on.clear()
    asking = asyncio.create_task(http(listener, "/power/control/off?alias=pi"))
    await until(lambda: desk.begun == 1)
    await listener.stop()
    status, text = await asking
    assert (status, "stopped while this was under way" in text) == (503, True)


async def test_requests_of_one_controller_queue_and_hold_up_no_other(fake, monkeypatch):
    monkeypatch.setattr(service, "UNDER_WAY_PER_CONTROLLER", 2)
    monkeypatch.setattr(service, "WAITING_PER_CONTROLLER", 5)
    listener, desk = fake.make({"http": "127.0.0.1:0"})
    desk.go_on.clear()
    asked = [Asked(Verb.ON, "pdu-a", str(10 + number)) for number in range(6)]
    tasks = [asyncio.create_task(listener.carry_out(one, "test")) for one in asked]
    async with asyncio.timeout(60):
        refused = await tasks[5]
        assert (refused.error.kind, desk.begun) == (ErrorKind.BUSY, 2)
        assert (await listener.carry_out(Asked(Verb.STATE, "rack", "9"), "test")).power is Power.OFF
        desk.go_on.set()
        assert [(await task).ok for task in tasks[:5]] == [True] * 5
    assert len(desk.calls) == 5
    await listener.stop()


async def test_a_defect_of_the_desk_is_an_answer(fake, caplog):
    listener, desk = fake.make({"http": "127.0.0.1:0"})
    desk.defect = RuntimeError("boom")
    with caplog.at_level(logging.ERROR):
        answer = await listener.carry_out(Asked(Verb.ON, alias="pi"), "test")
    assert answer.error.kind is ErrorKind.INTERNAL
    assert "boom" in caplog.text
    await listener.stop()


async def test_who_switched_what_is_logged(listen, http, caplog):
    listener, desk = await listen()
    with caplog.at_level(logging.INFO, "agent.pdu_listener"):
        await http(listener, "/power/control/on?hostname=pdu-a&port=3")
        desk.errors["pi"] = ErrorKind.UNREACHABLE
        await http(listener, "/power/control/off?alias=pi")
    assert "on of pdu-a 3, asked by 127.0.0.1 by HTTP: board pi is on after" in caplog.text
    assert "off of pi, asked by 127.0.0.1 by HTTP: pi: is\nbroken" in caplog.text


async def test_a_port_that_is_taken_is_named(listen, fake):
    listener, _ = await listen()
    other, _ = fake.make({"http": "127.0.0.1:0", "tcp": str(listener.http)})
    with pytest.raises(ListenerError, match=r"pdu_listener: tcp = .*is pdudaemon running"):
        await other.start()
    with pytest.raises(OSError):
        await asyncio.open_connection(*other.http)


async def test_only_what_is_set_is_opened(listen):
    listener, _ = await listen(tcp=None)
    assert (listener.http is None, listener.tcp) == (False, None)
    other, _ = await listen(http=None)
    assert other.http is None
