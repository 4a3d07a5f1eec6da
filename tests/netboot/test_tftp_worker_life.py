"""The TFTP worker's life with its parent."""

import asyncio
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from netboot.tftp_process import TftpProcess, TftpStartError, WorkerConfig, worker_command

DATA, ERROR, OACK = 3, 5, 6


async def call(function, *arguments, **named):
    """Run blocking client code beside the loop that answers the worker."""
    return await asyncio.to_thread(function, *arguments, **named)


async def until(condition, within_s=60.0):
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_worker_starts_again_after_a_kill(farm, raw_client):
    farm.files["f"] = b"x" * 600
    client = raw_client(farm.port)
    client.ask("f")
    await call(client.receive)
    old = farm.process.pid
    os.kill(old, signal.SIGKILL)
    await until(lambda: farm.process.pid not in {None, old})
    assert farm.done[0].reason == "the TFTP worker ended"

    def talk():
        fresh = raw_client(farm.port)
        for _ in range(50):  # as a boot loader does while the port is closed
            fresh.ask("f")
            try:
                fresh.receive(0.2)
            except (TimeoutError, ConnectionRefusedError):
                continue
            return True
        return False

    assert await call(talk)
    assert farm.process.restarts == 1
    assert farm.asked[-1].number > 1 << 32


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("print('no json')", "cannot read"),
        ("print('[]')", "cannot read"),
        ("print('{\"ask\": 1}')", "cannot read"),
        ("print('x' * 3000000)", "cannot read"),
        ("raise SystemExit(7)", "exit code 7"),
        ("import sys; sys.stdin.close(); sys.stdout.close()", "exit code 0"),
    ],
)
async def test_a_worker_that_cannot_start_is_told(farm, monkeypatch, program, words):
    import netboot.tftp_process as module

    monkeypatch.setattr(module, "worker_command", lambda: ([sys.executable, "-c", program], {}))
    second = TftpProcess(
        WorkerConfig(address="127.0.0.1", port=0),
        answer=farm.answer,
        on_done=farm.done.append,
        on_refusal=farm.refused.append,
    )
    with pytest.raises(TftpStartError, match=words):
        await second.start()
    assert second.pid is None


async def test_port_in_use_is_told(farm, tmp_path):
    second = TftpProcess(
        WorkerConfig(address="127.0.0.1", port=farm.port),
        answer=farm.answer,
        on_done=farm.done.append,
        on_refusal=farm.refused.append,
    )
    with pytest.raises(TftpStartError, match=f"127.0.0.1 port {farm.port}.*in use"):
        await second.start()
    assert second.pid is None


async def test_an_answer_that_fails_does_not_stop_others(farm, raw_client):
    farm.files["f"] = b"x"
    good = farm.answer

    async def bad(question):
        if question.path == "bad":
            raise RuntimeError("a bug")
        return await good(question)

    farm.process._answer = bad
    client = raw_client(farm.port)
    client.ask("bad")
    assert (await call(client.receive))[:2] == (ERROR, 0)
    client.ask("f")
    assert (await call(client.receive)) == (DATA, 1, b"x")


async def test_the_worker_inherits_nothing(farm):
    pid = farm.process.pid
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    assert {entry.partition(b"=")[0] for entry in environment if entry} <= {b"PYTHONPATH", b"LC_CTYPE"}
    links = [str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()]
    kinds = [link.partition(":")[0] for link in links]
    assert len(links) == 5, links  # three to the parent, the port, epoll
    assert kinds.count("anon_inode") == 1
    modules = subprocess.run(
        [*worker_command()[0][:3], "-c", "import sys, netboot.tftp_worker; print(*sys.modules)"],
        env=worker_command()[1],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout.split()
    assert not {"asyncio", "pydantic", "logging", "dataclasses", "pathlib", "inspect"} & set(modules)


def spawn(config):
    command, environment = worker_command()
    child = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdin.write(json.dumps({"config": config}).encode() + b"\n")
    child.stdin.flush()
    return child


@pytest.mark.parametrize("goodbye", ["close", "nonsense"])
def test_the_worker_ends_with_its_parent(goodbye):
    child = spawn({"address": "127.0.0.1", "port": 0})
    try:
        assert b"ready" in child.stdout.readline()
        if goodbye == "nonsense":
            child.stdin.write(b"no json\n")
        child.stdin.close()
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_silent_parent_costs_no_memory_and_no_life():
    """The parent reads nothing: questions are dropped when the pipe is full, and the worker still ends with it."""
    child = spawn({"address": "127.0.0.1", "port": 0, "max_per_client": 10**6, "max_transfers": 10**6})
    try:
        port = json.loads(child.stdout.readline())["ready"]
        packet = struct.pack("!H", 1) + b"n" * 900 + b"\0octet\0"
        for _ in range(8):
            for _ in range(100):
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.sendto(packet, ("127.0.0.1", port))
        child.stdin.close()
        assert child.wait(60) == 0
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


async def test_forged_requests_do_not_make_it_a_reflector(farm, raw_client):
    client = raw_client(farm.port)

    def talk():
        for _ in range(300):
            client.ask("f", opcode=2)
        answers = 0
        while not client.silent(0.4):
            answers += 1
        return answers

    assert await call(talk) <= 100
