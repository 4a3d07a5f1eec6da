"""Real HTTP clients against the boot server: curl and wget, whole, in ranges, resumed."""

import asyncio
import os

import pytest

from netboot.http_server import HttpBootServer
from netboot.tftp_process import SendError, SendFile

DATA = os.urandom(3_000_000)


class Served:
    def __init__(self, folder):
        self.path = folder / "kernel"
        self.path.write_bytes(DATA)
        self.done = []
        self.server = HttpBootServer(
            "127.0.0.1", 0, answer=self.answer, on_done=self.done.append, on_refusal=self.done.append
        )

    async def answer(self, question):
        return SendFile(self.path) if question.path == "/kernel" else SendError(1, "no such file")


@pytest.fixture
async def served(tmp_path):
    served = Served(tmp_path)
    served.url = f"http://127.0.0.1:{await served.server.start()}/kernel"
    yield served
    await served.server.stop()


async def run(*command):
    """Exit code and output."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(60):
        output, _ = await process.communicate()
    return process.returncode, output


async def test_curl(served, tmp_path):
    assert await run("curl", "-sf", served.url) == (0, DATA)
    assert await run("curl", "-sf", "-r", "100-199", served.url) == (0, DATA[100:200])
    assert await run("curl", "-sf", "-r", "-5", served.url) == (0, DATA[-5:])
    assert await run("curl", "-sf", "--http1.0", served.url) == (0, DATA)
    code, head = await run("curl", "-sfI", served.url)
    assert code == 0
    assert f"Content-Length: {len(DATA)}".encode() in head
    code, _ = await run("curl", "-sf", served.url + "/no")
    assert code == 22
    part = tmp_path / "part"
    part.write_bytes(DATA[:1_234_567])
    code, _ = await run("curl", "-sf", "-C", "-", "-o", str(part), served.url)
    assert (code, part.read_bytes() == DATA) == (0, True)


async def test_curl_asks_only_for_what_is_newer(served, tmp_path):
    target = tmp_path / "got"
    etag = tmp_path / "etag"
    command = ["curl", "-sf", "-R", "-o", str(target), "-w", "%{http_code}", served.url]
    assert await run(*command, "--etag-save", str(etag)) == (0, b"200")
    assert await run(*command, "--etag-compare", str(etag)) == (0, b"304")
    assert await run(*command, "-z", str(target)) == (0, b"304")
    assert target.read_bytes() == DATA


async def test_wget(served, tmp_path):
    target = tmp_path / "got"
    code, said = await run("wget", "-nv", "-O", str(target), served.url)
    assert code == 0, said
    assert target.read_bytes() == DATA
    with target.open("r+b") as file:
        file.truncate(1_000_000)
    code, said = await run("wget", "-nv", "-c", "-O", str(target), served.url)
    assert code == 0, said
    assert target.read_bytes() == DATA
    assert served.done[-1].size_bytes == len(DATA) - 1_000_000


async def test_busybox_wget_as_an_initramfs_has_it(served, tmp_path):
    target = tmp_path / "got"
    code, said = await run("busybox", "wget", "-q", "-O", str(target), served.url)
    assert code == 0, said
    assert target.read_bytes() == DATA
