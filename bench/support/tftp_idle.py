"""What a transfer that waits for its client costs our worker beside the packet cache.

The first transfers are not counted: they fill what the allocator keeps for all that comes and goes.
"""

import asyncio
import resource
import socket
from pathlib import Path

from netboot.tftp_process import Answer, Question, SendFile, TftpProcess, WorkerConfig

FIRST, MORE = 400, 2000
REQUEST = b"\0\1board/vmlinuz\0octet\0blksize\x001468\0tsize\x000\0"
PAUSE_S = 0.02  # for every 50 requests: all are to be answered


def _own_octets(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("the kernel does not tell the memory of a process")


async def idle_octets(path: Path, pump: str) -> float:
    """Private memory of a worker for each of 2000 transfers whose clients have not answered the OACK.

    The kernel's share, a socket and an open file each, is not in it. Needs loopback.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    async def answer(_question: Question) -> Answer:
        return SendFile(path)

    clients: list[socket.socket] = []
    config = WorkerConfig(address="127.0.0.1", port=0, max_transfers=10**5, max_per_client=10**5, requests_per_s=0,
                          pump=pump)  # fmt: skip
    process = TftpProcess(config, answer=answer, on_done=lambda _: None, on_refusal=lambda _: None)
    port = await process.start()

    async def ask(count: int) -> int:
        for number in range(count):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            client.setblocking(False)
            client.sendto(REQUEST, ("127.0.0.1", port))
            clients.append(client)
            if number % 50 == 0:
                await asyncio.sleep(PAUSE_S)
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(10):
            for client in clients[-count:]:
                await loop.sock_recv(client, 600)
        if process.pid is None:
            raise SystemExit("the worker died")
        return _own_octets(process.pid)

    try:
        before = await ask(FIRST)
        return (await ask(MORE) - before) / MORE
    finally:
        await process.stop()
        for client in clients:
            client.close()
