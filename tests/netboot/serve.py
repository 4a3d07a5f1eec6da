"""Runs a `NetbootServer` in the network namespace that it is started in, for the tests with foreign DHCP clients.

    serve.py CONFIG   (JSON: interface, files of the one board, joining)

Prints one JSON object per event; ends when stdin closes.
"""

import asyncio
import json
import sys
from dataclasses import asdict
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from netboot.profile import BootProfile
from netboot.server import NetbootBoard, NetbootConfig, NetbootServer


def say(**line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def main(config):
    profile = BootProfile(
        "test",
        "arm64",
        Path(config["kernel"]),
        Path(config["initrd"]),
        None,
        "console=ttyAMA0",
        uboot_env=tuple(tuple(pair) for pair in config.get("uboot_env", [])),
    )
    server = NetbootServer(
        NetbootConfig(
            agent="desk",
            interface=config["interface"],
            server_address=IPv4Address("10.77.0.1"),
            network=IPv4Network("10.77.0.0/24"),
            pool=(IPv4Address("10.77.0.100"), IPv4Address("10.77.0.110")),
            mqtt_for_boards="10.77.0.1:1883",
            prefix="boardhand",
            joining_profile=profile,
        ),
        [NetbootBoard("board1", (config["mac"],), IPv4Address("10.77.0.11"), profile)],
        on_event=lambda event: say(event=type(event).__name__, **asdict(event)),
        secrets_state=None,
        save_secrets=lambda _: None,
    )
    server.set_joining(config.get("joining", False))
    await server.start()
    say(event="ready")
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()
    say(event="stats", **server.stats())


asyncio.run(main(json.loads(sys.argv[1])))
