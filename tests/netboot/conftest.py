"""A real TFTP worker with a small parent, and a client that speaks TFTP packet by packet."""

import os
import socket
import struct
from pathlib import Path

import pytest

from netboot.tftp_process import SendBytes, SendError, SendFile, TftpProcess, WorkerConfig

LOOPBACK = "127.0.0.1"


class Farm:
    """A worker on loopback that serves `files` (name to octets, a path, or an answer), and what it said."""

    def __init__(self, folder: Path, **limits):
        self.folder = folder
        self.files = {}
        self.asked, self.done, self.refused = [], [], []
        self.process = TftpProcess(
            WorkerConfig(**{"address": LOOPBACK, "port": 0, "max_per_client": 64, **limits}),
            answer=self.answer,
            on_done=self.done.append,
            on_refusal=self.refused.append,
        )
        self.port = 0

    async def answer(self, question):
        self.asked.append(question)
        found = self.files.get(question.path)
        if found is None:
            return SendError(1, "no such file")
        if isinstance(found, bytes):
            return SendBytes(found)
        return SendFile(found) if isinstance(found, Path) else found

    def add_file(self, name, data):
        path = self.folder / name
        path.write_bytes(data)
        self.files[name] = path
        return path


@pytest.fixture(params=["python", "native"])
def pump(request):
    """Either form of the worker: it is one server to its clients."""
    return request.param


@pytest.fixture
async def make_farm(tmp_path, pump):
    farms = []

    async def make(**limits):
        farm = Farm(tmp_path, **{"pump": pump, **limits})
        farms.append(farm)
        farm.port = await farm.process.start()
        return farm

    yield make
    for farm in farms:
        await farm.process.stop()


@pytest.fixture
async def farm(make_farm):
    return await make_farm()


class RawClient:
    """One UDP socket; `ask` to the well-known port, then to whoever answered."""

    def __init__(self, port, host=LOOPBACK, local=("127.0.0.1", 0)):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(local)
        self.sock.settimeout(60)
        self.server = (host, port)
        self.peer = None
        self.last = None

    def ask(self, path, *options, opcode=1, mode="octet"):
        fields = [path, mode, *(str(option) for option in options)]
        self.raw(struct.pack("!H", opcode) + b"".join(field.encode() + b"\0" for field in fields))

    def raw(self, data):
        self.sock.sendto(data, self.server)

    def receive(self, timeout_s=60.0):
        """Opcode, number and the rest; the sender becomes the peer."""
        self.last = self._receive(timeout_s)
        return self.last

    def fresh(self):
        """As `receive`, but no repetition of what came last: who is late by 20 ms is sent it again."""
        last = self.last
        while (got := self.receive()) == last:
            pass
        return got

    def _receive(self, timeout_s):
        self.sock.settimeout(timeout_s)
        data, self.peer = self.sock.recvfrom(70000)
        opcode = struct.unpack_from("!H", data)[0]
        if opcode == 6:
            return 6, dict(zip(*[iter(data[2:-1].decode().split("\0"))] * 2, strict=True))
        return opcode, struct.unpack_from("!H", data, 2)[0], data[4:]

    def silent(self, for_s):
        """Whether nothing arrives for so long."""
        try:
            self.receive(for_s)
        except TimeoutError:
            return True
        return False

    def ack(self, number):
        self.sock.sendto(struct.pack("!HH", 4, number), self.peer)

    def error(self, code=0, text="enough"):
        self.sock.sendto(struct.pack("!HH", 5, code) + text.encode() + b"\0", self.peer)

    def close(self):
        self.sock.close()


@pytest.fixture
def raw_client():
    clients = []

    def make(port, **more):
        clients.append(RawClient(port, **more))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def random_bytes():
    return os.urandom
