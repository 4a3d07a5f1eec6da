"""An origin of files on loopback with every fault that a download may meet."""

import asyncio
import os
import re

BIG = os.urandom(3_000_000)


class Origin:
    """A server of bytes on sockets, so that every fault can be had. `script` is one behaviour per request, the last
    for all that follow."""

    def __init__(self):
        self.data = BIG
        self.script = [self.whole]
        self.requests = []
        self.gate = asyncio.Event()
        self.server = None

    async def start(self):
        self.server = await asyncio.start_server(self.client, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    def url(self, path="/file"):
        return f"http://127.0.0.1:{self.port}{path}"

    async def client(self, reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            behave = self.script[min(len(self.requests), len(self.script) - 1)]
            self.requests.append(head)
            await behave(head, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def offset(self, head):
        found = re.search(r"Range: bytes=(\d+)-", head)
        return int(found[1]) if found else 0

    def say(self, writer, status, *headers):
        writer.write("\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *headers, "", ""]).encode())

    async def whole(self, head, writer):
        start = self.offset(head)
        if start:
            size = len(self.data)
            self.say(
                writer,
                "206 Partial",
                f"Content-Range: bytes {start}-{size - 1}/{size}",
                f"Content-Length: {size - start}",
            )
        else:
            self.say(writer, "200 OK", f"Content-Length: {len(self.data)}", 'ETag: "v1"')
        writer.write(self.data[start:])
        await writer.drain()

    async def cut(self, head, writer):
        start = self.offset(head)
        self.say(
            writer,
            "206 Partial" if start else "200 OK",
            f"Content-Range: bytes {start}-{len(self.data) - 1}/{len(self.data)}",
            f"Content-Length: {len(self.data) - start}",
            'ETag: "v1"',
        )
        writer.write(self.data[start : start + 1_200_000])
        await writer.drain()

    async def cut_without_length(self, _head, writer):
        self.say(writer, "200 OK")
        writer.write(self.data[:1000])
        await writer.drain()

    async def silent(self, _head, writer):
        self.say(writer, "200 OK", f"Content-Length: {len(self.data)}")
        await writer.drain()
        await asyncio.sleep(5)

    async def waits(self, head, writer):
        await self.gate.wait()
        await self.whole(head, writer)

    def status(self, line, *headers):
        async def behave(_head, writer):
            self.say(writer, line, "Content-Length: 0", *headers)

        return behave
