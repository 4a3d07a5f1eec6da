"""An HTTP boot server on loopback that remembers what it said, and a client that takes its time."""

import asyncio
import email
import socket

from netboot.http_server import HttpBootServer, HttpLimits
from netboot.tftp_process import SendBytes, SendError, SendFile


class Boot:
    """A server on loopback that serves `files` by path, and what it said."""

    def __init__(self, folder, **limits):
        self.folder = folder
        self.files = {}
        self.strangers = ()
        self.asked, self.done, self.refused = [], [], []
        self.heard = asyncio.Event()
        self.server = HttpBootServer(
            "127.0.0.1",
            0,
            answer=self.answer,
            on_done=self.on_done,
            on_refusal=self.refused.append,
            is_known=lambda client: client not in self.strangers,
            limits=HttpLimits(**limits),
        )
        self.port = 0

    async def answer(self, question):
        self.asked.append(question)
        found = self.files.get(question.path, SendError(1, "no such file"))
        if isinstance(found, Exception):
            raise found
        return SendBytes(found) if isinstance(found, bytes) else found

    def on_done(self, done):
        self.done.append(done)
        self.heard.set()

    def add(self, name, data):
        path = self.folder / name
        path.write_bytes(data)
        self.files[f"/{name}"] = SendFile(path)
        return path

    async def outcome(self, deadline_s=60.0):
        async with asyncio.timeout(deadline_s):
            while not self.done:
                self.heard.clear()
                await self.heard.wait()
        assert len(self.done) == 1
        return self.done.pop()

    async def raw(self, head, *, limit=1 << 26):
        """All that comes for these octets, until the server ends the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=limit)
        writer.write(head)
        try:
            async with asyncio.timeout(60):
                return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.close()

    async def get(self, path, *headers, method="GET"):
        """Status, headers and body."""
        lines = [f"{method} {path} HTTP/1.1", "Host: boot", "Connection: close", *headers, "", ""]
        answer = await self.raw("\r\n".join(lines).encode())
        head, _, body = answer.partition(b"\r\n\r\n")
        first, _, rest = head.decode().partition("\r\n")
        return int(first.split()[1]), email.message_from_string(rest), body


async def slowly(port, path, *, receive_bytes=4096):
    """A connection that has asked and takes little: the server cannot send all at once."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, ("127.0.0.1", port))
    await loop.sock_sendall(sock, f"GET {path} HTTP/1.1\r\nHost: b\r\n\r\n".encode())
    first = await loop.sock_recv(sock, 100)
    assert first.startswith(b"HTTP/1.1 200")
    return sock, first


async def rest(sock, first):
    loop, got = asyncio.get_running_loop(), bytearray(first)
    try:
        async with asyncio.timeout(60):
            while piece := await loop.sock_recv(sock, 1 << 20):
                got += piece
                if bytes(got).endswith(b"THE END"):
                    break
    except ConnectionError:
        pass
    sock.close()
    return bytes(got).partition(b"\r\n\r\n")[2]
