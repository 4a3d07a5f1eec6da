"""boardhand's own power cables at serial ports: they are asked for their identification line (docs/power-cable.md).

To ask is to write, and what hangs on a serial port may be a board: a boot loader stops at any key, and an old cable of
one character takes every hexadecimal digit for a command and switches. So only ports that a person named, or that have
the USB ids of a cable's microcontroller, are asked, and only with leave. Old cables say nothing of themselves at all:
nobody can find them but by trying.
"""

import time
from dataclasses import dataclass

import serial

from agent.discovery import known
from agent.discovery.findings import Candidate, Problem
from agent.power.drivers.power_cable_lines import (
    MODEL,
    PROTOCOL,
    AnswerError,
    AnswerReader,
    GarbledError,
    Identity,
    identity,
    request,
    tag,
)
from agent.power.drivers.serial_port import SerialPort
from agent.power.errors import PowerError

MICROCONTROLLERS = frozenset({("2e8a", "0005")})
"""(vendor, product) of what runs our firmware: a Raspberry Pi Pico with MicroPython, which gives it these ids."""
REPLY_S = 1.0
"""A Pico answers in 2 ms; one that was just plugged in starts Python first."""
BAUD = 115200
"""Of no account on USB."""


@dataclass(frozen=True, slots=True)
class AskedPort:
    """A port to ask: its node, and the path that lasts."""

    node: str
    device: str


async def ask(port: AskedPort) -> Candidate | Problem | None:
    """The cable at `port`; None where nobody answers as one. Never raises for what is there."""
    line = SerialPort(port.node, port.device, BAUD)
    try:
        found = await line.run(_identity)
    except PowerError as problem:
        return Problem(port.device, problem.problem, problem.do or "")
    finally:
        await line.close()
    if found is None:
        return None
    if found.model != MODEL or found.protocol != PROTOCOL:
        do = "flash the firmware that comes with this boardhand: docs/power-cable.md"
        return Problem(port.device, f"{found.model} with protocol {found.protocol} is not for this boardhand", do)
    measured = f", measures {found.meters}" if found.meters else ""
    return Candidate(
        stem="cable",
        keys={"driver": "power_cable", "device": port.device, "id": found.unique},
        about=f"boardhand's power cable {found.unique}, firmware {found.firmware}{measured}",
        outlets=tuple(map(str, range(1, found.outlets + 1))),
        identities=frozenset({known.tty(port.device), known.tty(port.node)}),
    )


def _identity(port: serial.Serial) -> Identity | None:
    mine = tag(time.monotonic_ns())
    reader = AnswerReader(mine)
    port.reset_input_buffer()
    port.write(request(mine, "id"))
    until = time.monotonic() + REPLY_S
    try:
        while (left_s := until - time.monotonic()) > 0:
            port.timeout = left_s
            said = reader.feed(port.read(max(1, port.in_waiting)))
            if said is not None:
                return identity(said)
    except (AnswerError, GarbledError):
        return None  # it has our lines, and is none of ours
    return None
