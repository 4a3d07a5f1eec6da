"""Run inside a network namespace of its own (`unshare -n`): a veth pair to a board in another one, and what
PresenceWatch says of it. Prints one line of JSON per sign, and fails loudly."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

from agent.presence.observations import marks
from agent.presence.watch import PresenceWatch

MAC = "02:00:00:00:00:02"
DEADLINE_S = 60.0


class Story:
    def __init__(self, board: int) -> None:
        self.inside = ["nsenter", "-t", str(board), "-n"]
        self.signs: asyncio.Queue = asyncio.Queue()
        self.watch = PresenceWatch(
            {"pi": marks([MAC], "bhk0", None), "by-other-name": marks([], "bh-front-port", None)}, self.heard,
            sysfs=Path("/nowhere"), buffer_bytes=32768,
        )  # fmt: skip

    def heard(self, signs) -> None:
        for sign in signs:
            self.signs.put_nowait(sign)

    async def next(self) -> None:
        async with asyncio.timeout(DEADLINE_S):
            sign = await self.signs.get()
        sys.stdout.write(json.dumps([sign.board, sign.words, sign.alive, sign.first]) + "\n")

    def ip(self, *words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    def on_board(self, *words: str) -> None:
        subprocess.run([*self.inside, *words], check=True)

    async def tell(self, board: int) -> None:
        self.ip("link", "set", "lo", "up")
        self.ip("link", "add", "bhk0", "type", "veth", "peer", "name", "end0", "netns", str(board))
        self.ip("link", "property", "add", "dev", "bhk0", "altname", "bh-front-port")
        self.ip("address", "add", "10.9.0.1/24", "dev", "bhk0")
        self.ip("link", "set", "bhk0", "up")
        await self.watch.start()
        async with asyncio.timeout(DEADLINE_S):
            await self.watch.routes_known.wait()
        assert self.watch.problems == []
        self.on_board("ip", "link", "set", "end0", "address", MAC)
        self.on_board("ip", "address", "add", "10.9.0.2/24", "dev", "end0")
        self.on_board("ip", "link", "set", "end0", "up")
        await self.next()  # link up, for both
        await self.next()
        # A board that only speaks is heard: the ARP request of its ping makes our entry.
        self.on_board("busybox", "ping", "-c", "1", "-W", "5", "10.9.0.1")
        await self.next()
        # It falls silent, its link stays: we ask three times, 1 s apart.
        self.on_board("ip", "link", "set", "end0", "arp", "off")
        self.on_board("ip", "address", "flush", "dev", "end0")
        self.ip("neighbour", "change", "10.9.0.2", "dev", "bhk0", "nud", "probe")
        await self.next()
        # While nobody reads, more happens than the socket holds: what is told then is how it ended.
        with subprocess.Popen(["ip", "-batch", "-"], stdin=subprocess.PIPE, text=True) as flaps:
            flaps.communicate("link set bhk0 mtu 1400\nlink set bhk0 mtu 1500\n" * 500 + "link delete bhk0\n")
        await self.next()
        await self.next()
        await self.watch.stop()


if __name__ == "__main__":
    pid = int(sys.argv[1])
    asyncio.run(Story(pid).tell(pid))
