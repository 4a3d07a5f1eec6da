"""Foreign clients: tftp-hpa, atftp and curl; and many at once over a network that loses packets."""

import asyncio
import os
import random
import socket
import struct

import pytest

SIZES = [0, 1, 511, 512, 513, 1468, 70_000, 3_000_000]


async def run(*command, cwd):
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, output.decode()


def commands(port, size):
    url = f"tftp://127.0.0.1:{port}/f"
    if size:  # curl 7.88 fails on an OACK with tsize 0 ("getpeername() failed"), with dnsmasq as well
        yield "curl", ["curl", "-sS", "-o", "got", url]
        yield "curl 1468", ["curl", "-sS", "-o", "got", "--tftp-blksize", 1468, url]
    yield "curl without options", ["curl", "-sS", "-o", "got", "--tftp-no-options", url]
    yield "tftp-hpa", ["tftp", "-m", "octet", "127.0.0.1", port, "-c", "get", "f", "got"]
    for options in ([], ["blksize 1468"], ["blksize 1468", "windowsize 8"], ["windowsize 64", "tsize 0", "timeout 3"]):
        flags = [word for option in options for word in ("--option", option)]
        yield f"atftp {options}", ["atftp", *flags, "-g", "-r", "f", "-l", "got", "127.0.0.1", port]


@pytest.mark.parametrize("size", SIZES)
async def test_foreign_clients_get_every_octet(farm, tmp_path, size):
    data = os.urandom(size)
    farm.add_file("f", data)
    got = tmp_path / "got"
    for name, command in commands(farm.port, size):
        got.unlink(missing_ok=True)
        code, output = await run(*command, cwd=tmp_path)
        assert (name, code) == (name, 0), output
        assert (got.read_bytes() if got.exists() else b"") == data, (name, output)
    # A client may close its port right after its last ACK, but every transfer ends well.
    async with asyncio.timeout(60):
        while len(farm.done) < len(farm.asked):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert all(done.ok for done in farm.done)
    # Whoever the machine holds up for 20 ms is sent a block again. Copies of copies would double all of them.
    assert farm.process.counters["resent_blocks"] <= 20 + len(farm.asked) * size // 512 // 20


@pytest.mark.parametrize("client", ["tftp-hpa", "curl", "atftp", "atftp windowed"])
async def test_foreign_clients_get_files_beyond_65535_blocks(farm, tmp_path, client):
    """Blocks of 512, so numbers start again at 0."""
    data = random.Random(5).randbytes(512 * 66_000 + 7)
    farm.add_file("f", data)
    command = {
        "tftp-hpa": ["tftp", "-m", "octet", "127.0.0.1", farm.port, "-c", "get", "f", "got"],
        "curl": ["curl", "-sS", "-o", "got", f"tftp://127.0.0.1:{farm.port}/f"],
        "atftp": ["atftp", "-g", "-r", "f", "-l", "got", "127.0.0.1", farm.port],
        "atftp windowed": ["atftp", "--option", "windowsize 8", "-g", "-r", "f", "-l", "got", "127.0.0.1", farm.port],
    }[client]
    code, output = await run(*command, cwd=tmp_path)
    assert code == 0, output
    assert (tmp_path / "got").read_bytes() == data


async def test_text_mode_of_tftp_hpa(farm, tmp_path):
    farm.add_file("f", b"one\ntwo\rthree\r\n" * 100)
    code, output = await run("tftp", "-m", "netascii", "127.0.0.1", farm.port, "-c", "get", "f", "got", cwd=tmp_path)
    assert code == 0, output
    assert (tmp_path / "got").read_bytes() == b"one\ntwo\rthree\r\n" * 100


async def test_foreign_clients_hear_refusals(farm, tmp_path):
    (tmp_path / "up").write_bytes(b"up")
    code, output = await run("curl", "-sS", f"tftp://127.0.0.1:{farm.port}/missing", cwd=tmp_path)
    assert code == 68, output  # CURLE_TFTP_NOTFOUND
    code, output = await run("curl", "-sS", "-T", "up", f"tftp://127.0.0.1:{farm.port}/up", cwd=tmp_path)
    assert code == 69, output  # CURLE_TFTP_PERM
    _, output = await run("tftp", "-m", "octet", "127.0.0.1", farm.port, "-c", "put", "up", "up", cwd=tmp_path)
    assert "takes no files" in output


class LossyClient(asyncio.DatagramProtocol):
    """A client that loses one packet in twenty, both ways, and repeats its last ACK only after 5 s, as U-Boot does."""

    def __init__(self, server, window, rng, loss=0.05):
        self.server, self.window, self.rng, self.loss = server, window, rng, loss
        self.data, self.expected, self.in_window = bytearray(), 1, 0
        self.peer, self.last, self.timer = None, None, None
        self.finished = asyncio.get_running_loop().create_future()

    def connection_made(self, transport):
        self.transport = transport
        options = f"blksize\x001024\0windowsize\0{self.window}\0" if self.window > 1 else "blksize\x001024\0"
        self.last = b"\0\1f\0octet\0" + options.encode()
        self.repeat()

    def repeat(self):
        self.put(self.last)
        self.timer = asyncio.get_running_loop().call_later(5, self.repeat)

    def put(self, packet):
        if self.rng.random() >= self.loss:
            self.transport.sendto(packet, self.peer or self.server)

    def ack(self, number):
        self.timer.cancel()
        self.last = struct.pack("!HH", 4, number)
        self.in_window = 0
        self.repeat()

    def datagram_received(self, data, address):
        if self.rng.random() < self.loss:
            return
        self.peer = address
        opcode, number = struct.unpack_from("!HH", data)
        if opcode == 6:
            if self.expected == 1:
                self.ack(0)
        elif opcode == 5:
            self.finish(RuntimeError(data[4:]))
        elif number != self.expected % 65536:
            if number == (self.expected - 1) % 65536 or self.window > 1:
                self.ack((self.expected - 1) % 65536)
        else:
            self.data += data[4:]
            self.expected += 1
            self.in_window += 1
            if len(data) < 1028 or self.in_window == self.window:
                self.ack(number)
            if len(data) < 1028:
                self.finish(None)

    def finish(self, error):
        self.timer.cancel()
        if not self.finished.done():
            if error is None:
                self.finished.set_result(bytes(self.data))
            else:
                self.finished.set_exception(error)


@pytest.mark.parametrize("window", [1, 16])
async def test_many_clients_over_a_lossy_network(farm, window):
    data = os.urandom(300_000)
    farm.add_file("f", data)
    loop = asyncio.get_running_loop()
    pairs = []
    for number in range(12):
        client = LossyClient(("127.0.0.1", farm.port), window, random.Random(number))
        transport, _ = await loop.create_datagram_endpoint(
            lambda client=client: client, local_addr=("127.0.0.1", 0), family=socket.AF_INET
        )
        pairs.append((client, transport))
    try:
        async with asyncio.timeout(60):
            received = await asyncio.gather(*(client.finished for client, _ in pairs))
    finally:
        for client, transport in pairs:
            client.timer.cancel()
            transport.close()
    assert all(got == data for got in received)
