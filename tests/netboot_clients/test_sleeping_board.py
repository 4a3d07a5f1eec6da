"""A QEMU board of a virtual farm that was off while frames came for it starts again."""

import asyncio
import contextlib
import json
import socket
import sys
from pathlib import Path

from bench.soak.hour_farm import process
from daemon.mqtt_link import MqttLink
from daemon.mqtt_settings import MqttSettings
from virtual_lab.namespace import inside

BOOT_S = 150.0
FRAMES = 60
"""U-Boot's driver stops for ever after 33 that come before it looks."""
ADDRESS = "10.77.0.11"


class Watch:
    def __init__(self, url):
        self.phase, self.news = "", asyncio.Condition()
        self.link = MqttLink(
            MqttSettings(url=url), "watch", will=None, subscriptions=["boardhand/board/virt-1/state"],
            on_message=self.heard, on_connect=self.nothing,
        )  # fmt: skip

    async def nothing(self):
        pass

    def heard(self, message):
        self.phase = json.loads(message.payload)["phase"]
        self.waking = asyncio.create_task(self.tell())

    async def tell(self):
        async with self.news:
            self.news.notify_all()

    async def switch(self, power, phase, seconds):
        await self.link.publish("boardhand/board/virt-1/power/set", power.encode())
        async with asyncio.timeout(seconds), self.news:
            await self.news.wait_for(lambda: self.phase == phase)


def send_frames(inner):
    """To the board's own MAC address, from the farm's network."""
    with Path(f"/proc/{inner}/ns/net").open() as network, inside(network.fileno()):
        sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with sender:
        for _ in range(FRAMES):
            with contextlib.suppress(OSError):
                sender.sendto(b"too late", (ADDRESS, 9))


async def test_frames_that_came_while_a_board_was_off_do_not_stop_its_next_boot(mqtt, tmp_path):
    url = f"mqtt://127.0.0.1:{mqtt.port}"
    folder = tmp_path / "farm"
    command = [sys.executable, "-m", "virtual_lab.farm", "--dir", str(folder), "--mqtt", url, "--boards", "1"]
    watch = Watch(url)
    await watch.link.start()
    try:
        async with process(tmp_path, "farm-out", command):
            async with asyncio.timeout(BOOT_S):
                while '{"ready": true}' not in (tmp_path / "farm-out.log").read_text():  # noqa: ASYNC110  # a file
                    await asyncio.sleep(0.1)
            await watch.switch("on", "ready", BOOT_S)
            await watch.switch("off", "off", 30)
            # Its address is still in the neighbour table, so they need no ARP.
            send_frames(json.loads((folder / "farm.json").read_text())["inner"])
            await watch.switch("on", "ready", BOOT_S)
    finally:
        await watch.link.stop()
