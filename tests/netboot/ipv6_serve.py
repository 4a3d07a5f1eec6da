"""Runs a `NetbootServer` with two boards in the network namespace that it is started in, for `test_ipv6`.

    ipv6_serve.py CONFIG   (JSON: interface, kernel, macs, address6 of the first board)

Prints one JSON object per event; ends when stdin closes.
"""

import asyncio
import json
import sys
from dataclasses import asdict
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from netboot.profile import BootProfile
from netboot.server import NetbootBoard, NetbootConfig, NetbootServer

HTTP_PORT = 8069


def say(**line):
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def main(config):
    profile = BootProfile("test", "arm64", Path(config["kernel"]), None, None, "console=ttyAMA0")
    first, second = config["macs"]
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
            http_port=HTTP_PORT,
        ),
        [
            NetbootBoard(
                "board1", (first,), IPv4Address("10.77.0.11"), profile, address6=IPv6Address(config["address6"])
            ),
            NetbootBoard("board2", (second,), IPv4Address("10.77.0.12"), profile),
        ],
        on_event=lambda event: say(event=type(event).__name__, **asdict(event)),
        secrets_state=None,
        save_secrets=lambda _: None,
    )
    server.set_joining(True)
    await server.start()
    say(event="ready")
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()


asyncio.run(main(json.loads(sys.argv[1])))
