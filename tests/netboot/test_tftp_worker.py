"""The worker, packet by packet: the checklist of facts/tftp.md section 7."""

import asyncio
import os
import random

import pytest

from netboot.tftp_process import SendFile
from tests.netboot.punctual import in_time

DATA, ERROR, OACK = 3, 5, 6


async def call(function, *arguments, **named):
    """Run blocking client code beside the loop that answers the worker."""
    return await asyncio.to_thread(function, *arguments, **named)


async def until(condition, within_s=60.0):
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_lockstep_without_options(farm, raw_client):
    farm.files["f"] = b"x" * 600
    client = raw_client(farm.port)

    def talk():
        client.ask("f")
        assert client.receive() == (DATA, 1, b"x" * 512)
        client.ack(1)
        assert client.fresh() == (DATA, 2, b"x" * 88)
        client.ack(2)

    await call(talk)
    await until(lambda: farm.done)
    assert farm.done[0].ok
    assert farm.done[0].size_bytes == 600
    assert client.peer[1] != farm.port  # a TID of its own


async def test_options_in_the_order_asked(farm, raw_client):
    farm.files["f"] = b"x" * 5000
    client = raw_client(farm.port)

    def talk():
        client.ask("f", "TSIZE", 0, "nonsense", 5, "timeout", 5, "blksize", 9000, "windowsize", 64)
        opcode, options = client.receive()
        assert opcode == OACK
        expected = {"tsize": "5000", "timeout": "5", "blksize": "1468", "windowsize": "16"}
        assert list(options.items()) == list(expected.items())
        client.ack(0)
        assert [client.fresh()[1] for _ in range(4)] == [1, 2, 3, 4]
        client.ack(4)

    await call(talk)
    await until(lambda: farm.done)
    assert farm.done[0].ok


async def test_duplicate_acks_get_no_data(farm, raw_client):
    farm.files["f"] = b"x" * 5000

    def talk(client):
        client.ask("f")
        client.receive()
        for _ in range(4):
            client.ack(1)
        assert client.fresh()[:2] == (DATA, 2)
        client.ack(2)  # before the timer: anything more of block 2 would come from the copies
        assert client.receive()[:2] == (DATA, 3)

    def be_silent(client):
        client.error()
        return client.silent(0.6)

    client = await call(in_time, talk, lambda: raw_client(farm.port))
    assert await call(be_silent, client)


async def test_lost_data_comes_again_soon(farm, raw_client):
    farm.files["f"] = b"x" * 600
    client = raw_client(farm.port)

    def talk():
        client.ask("f")
        assert client.receive()[:2] == (DATA, 1)
        assert client.receive()[:2] == (DATA, 1)
        client.ack(1)
        assert client.fresh()[:2] == (DATA, 2)
        client.ack(9)  # of the future
        client.sock.sendto(b"\0\3\0\1", client.peer)
        client.sock.sendto(b"", client.peer)
        client.ack(2)

    await call(talk)
    await until(lambda: farm.done)
    assert farm.done[0].ok


async def test_window_restarts_after_a_gap(farm, raw_client):
    farm.files["f"] = os.urandom(512 * 20)

    def talk(client):
        client.ask("f", "windowsize", 4)
        assert client.receive() == (OACK, {"windowsize": "4"})
        client.ack(0)
        assert [client.receive()[1] for _ in range(4)] == [1, 2, 3, 4]
        client.ack(2)
        assert [client.receive()[1] for _ in range(4)] == [3, 4, 5, 6]
        client.error()

    await call(in_time, talk, lambda: raw_client(farm.port))


async def test_rollover_to_0(farm, raw_client):
    data = os.urandom(8 * 65600 + 3)
    farm.add_file("big", data)
    client = raw_client(farm.port)

    def talk():
        client.ask("big", "blksize", 8, "windowsize", 16)
        assert client.receive()[0] == OACK
        client.ack(0)
        received, expected = bytearray(), 1
        while True:
            _, number, block = client.receive()
            if number != expected % 65536:
                continue
            received += block
            if len(block) < 8 or expected % 16 == 0:
                client.ack(number)
            expected += 1
            if len(block) < 8:
                return bytes(received)

    assert await call(talk) == data


async def test_foreign_tid_does_not_disturb(farm, raw_client):
    farm.files["f"] = b"x" * 600
    client, foreigner = raw_client(farm.port), raw_client(farm.port)

    def talk():
        client.ask("f")
        client.receive()
        foreigner.peer = client.peer
        foreigner.ack(1)
        foreigner.error()
        assert foreigner.silent(0.2)
        client.ack(1)
        while client.receive()[1] != 2:
            pass
        client.ack(2)

    await call(talk)
    await until(lambda: farm.done)
    assert farm.done[0].ok


@pytest.mark.parametrize(
    "data",
    [b"", b"\0", b"\0\3\0\1data", b"\0\4\0\0", b"\0\5\0\0error\0", b"\0\6blksize\x008\0", b"\0\7x\0octet\0",
     b"\0\1\0\0", b"\0\1x\0", b"\0\1" + b"x" * 2000 + b"\0octet\0", random.Random(7).randbytes(100)],
)  # fmt: skip
async def test_the_port_answers_only_requests(farm, raw_client, data):
    farm.files["f"] = b"x"
    client = raw_client(farm.port)

    def talk():
        client.raw(data)
        assert client.silent(0.15)
        client.ask("f")
        assert client.receive() == (DATA, 1, b"x")
        client.ack(1)

    await call(talk)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"path": "f", "opcode": 2}, 2),
        ({"path": "f", "mode": "mail"}, 4),
        ({"path": "f", "mode": "binary"}, 4),
        ({"path": "missing"}, 1),
    ],
)
async def test_refusals(farm, raw_client, arguments, code):
    farm.files["f"] = b"x"
    client = raw_client(farm.port)
    client.ask(**arguments)
    opcode, number, text = await call(client.receive)
    assert (opcode, number) == (ERROR, code)
    assert text.endswith(b"\0")
    assert farm.files == {"f": b"x"}
    if code != 1:
        await until(lambda: farm.refused)
        assert farm.refused[0].path == "f"


async def test_mode_is_case_insensitive_and_netascii_is_right(farm, raw_client):
    farm.add_file("text", b"one\ntwo\rthree\r\n")
    client = raw_client(farm.port)

    def talk():
        client.ask("text", "tsize", 0, mode="NetASCII")
        expected = b"one\r\ntwo\r\0three\r\0\r\n"
        assert client.receive() == (OACK, {"tsize": str(len(expected))})
        client.ack(0)
        assert client.fresh() == (DATA, 1, expected)
        client.ack(1)

    await call(talk)


async def test_size_probe_frees_at_once_and_the_port_serves_again(farm, raw_client):
    farm.files["f"] = b"x" * 600
    client = raw_client(farm.port)

    def talk():
        client.ask("f", "tsize", 0)
        assert client.receive() == (OACK, {"tsize": "600"})
        first = client.peer
        client.error(8, "User aborted the transfer")
        client.ask("f", "blksize", 1024)
        assert client.fresh() == (OACK, {"blksize": "1024"})
        assert client.peer != first
        client.ack(0)
        assert len(client.fresh()[2]) == 600
        client.ack(1)

    await call(talk)
    await until(lambda: len(farm.done) == 2)
    assert [done.ok for done in farm.done] == [False, True]
    assert "User aborted" in farm.done[0].reason


async def test_repeated_request_is_one_transfer(farm, raw_client):
    farm.files["f"] = b"x" * 600
    client = raw_client(farm.port)

    def talk():
        client.ask("f")
        client.ask("f")
        assert client.receive()[:2] == (DATA, 1)
        first = client.peer
        client.ask("f")
        client.ack(1)
        while client.receive()[1] != 2:
            assert client.peer == first
        client.ack(2)
        assert client.silent(0.3)

    await call(talk)
    await until(lambda: farm.done)
    assert len(farm.asked) == 1


async def test_another_request_from_the_same_port_is_a_new_transfer(farm, raw_client):
    """U-Boot uses its source port again for the next file."""
    farm.files["a"], farm.files["b"] = b"a" * 600, b"b" * 10
    client = raw_client(farm.port)

    def talk():
        client.ask("a")
        assert client.receive() == (DATA, 1, b"a" * 512)
        client.ask("b")
        while (got := client.receive()) != (DATA, 1, b"b" * 10):
            assert got[2][:1] == b"a"
        client.ack(1)

    await call(talk)
    await until(lambda: len(farm.done) == 2)
    assert {done.number: done.ok for done in farm.done} == {1: False, 2: True}


async def test_the_same_file_again_after_the_end(farm, raw_client):
    farm.files["f"] = b"x"
    client = raw_client(farm.port)

    def talk():
        for _ in range(3):
            client.ask("f")
            assert client.receive() == (DATA, 1, b"x")
            client.ack(1)

    await call(talk)
    await until(lambda: len(farm.done) == 3)
    assert all(done.ok for done in farm.done)


async def test_answers_come_from_the_address_that_was_asked(make_farm, raw_client):
    farm = await make_farm(address="0.0.0.0")
    farm.files["f"] = b"x"
    for host in ("127.0.0.1", "127.0.0.2", "127.1.2.3"):
        client = raw_client(farm.port, host=host)
        client.ask("f")
        await call(client.receive)
        assert client.peer[0] == host
        client.ack(1)
        client.ask("missing")
        await call(client.receive)
        assert client.peer[0] == host


async def test_unsafe_files_are_refused(farm, raw_client, tmp_path):
    (tmp_path / "root").mkdir()
    farm.add_file("secret", b"secret")
    (tmp_path / "root" / "link").symlink_to("../secret")
    for name, target, code in (
        ("link", tmp_path / "root" / "link", 2),
        ("folder", tmp_path / "root", 2),
        ("gone", tmp_path / "root" / "gone", 1),
        ("rootless", tmp_path / "nothing" / "x", 1),
    ):
        farm.files[name] = SendFile(target)
        client = raw_client(farm.port)
        client.ask(name)
        opcode, number, _ = await call(client.receive)
        assert (name, opcode, number) == (name, ERROR, code)
    await until(lambda: len(farm.done) == 4)
    assert not any(done.ok or done.begun for done in farm.done)
    assert farm.process.counters["unsafe_paths"] == 2


async def test_a_file_that_is_replaced_is_sent_anew_and_one_that_shrinks_ends(farm, raw_client, tmp_path):
    path = farm.add_file("f", b"a" * 1_500_000)
    client = raw_client(farm.port)

    def talk():
        client.ask("f", "blksize", 1024)
        client.receive()
        client.ack(0)
        client.receive()
        path.write_bytes(b"short")  # in place, as `cp` does it
        number = 1
        while True:
            client.ack(number)
            opcode, number, text = client.receive()
            if opcode == ERROR:
                return text

    assert b"changed" in await call(talk)
    new = tmp_path / "new"
    new.write_bytes(b"new")
    new.rename(path)
    other = raw_client(farm.port)
    other.ask("f")
    assert await call(other.receive) == (DATA, 1, b"new")
    other.ack(1)


async def test_transfers_beyond_the_limit_wait(make_farm, raw_client):
    farm = await make_farm(max_transfers=2)
    farm.files["f"] = b"x" * 600
    clients = [raw_client(farm.port) for _ in range(4)]
    for client in clients:
        client.ask("f")

    def finish(client):
        while (number := client.receive()[1]) != 2:
            client.ack(number)
        client.ack(2)

    await asyncio.gather(*(call(finish, client) for client in clients))
    await until(lambda: len(farm.done) == 4)
    assert all(done.ok for done in farm.done)


async def test_one_client_cannot_take_all(make_farm, raw_client):
    farm = await make_farm(max_per_client=2)
    farm.files["f"] = b"x" * 600
    clients = [raw_client(farm.port) for _ in range(3)]
    for client in clients[:2]:
        client.ask("f")
        await call(client.receive)
    clients[2].ask("f")
    assert await call(clients[2].silent, 0.3)
    clients[0].error()
    await until(lambda: farm.done)
    clients[2].ask("f")
    assert (await call(clients[2].receive))[:2] == (DATA, 1)


async def test_a_client_that_goes_away_frees_its_place(farm, raw_client):
    farm.files["f"] = b"x" * 600
    client = raw_client(farm.port)
    client.ask("f")
    await call(client.receive)
    client.close()
    await until(lambda: farm.done, 20)  # the closed port tells, long before the timer would give up
    assert not farm.done[0].ok
