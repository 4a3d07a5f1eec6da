"""SD multiplexers: a card that is either the host's or the board's.

Both are switched by the programs that their makers publish; what they print is read for the state alone.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from firmware_tools.flash import child
from firmware_tools.flash.child import Ended
from firmware_tools.flash.errors import ModeError, ToolMissingError

DEADLINE_S = 20.0
"""Each call takes below a second; the card's removal is waited for by some."""


@dataclass(frozen=True, slots=True)
class MuxKind:
    """One kind of mux.

    Attributes:
        to: the command for each state; `{device}` is the device or serial number of the settings.
        look: the command that tells the state.
        says: what it prints in each state.
    """

    package: str
    to: Mapping[str, Sequence[str]]
    look: Sequence[str]
    says: Mapping[str, re.Pattern[str]] = field(default_factory=dict)


MUXES: Mapping[str, MuxKind] = {
    # Linux Automation's USB-SD-Mux; the device is its SCSI generic node, best /dev/usb-sd-mux/id-….
    "usbsdmux": MuxKind(
        "usbsdmux",
        {
            "host": ("usbsdmux", "{device}", "host"),
            "board": ("usbsdmux", "{device}", "dut"),
            "off": ("usbsdmux", "{device}", "off"),
        },
        ("usbsdmux", "{device}", "get"),
        {
            "host": re.compile(r"^host$", re.IGNORECASE),
            "board": re.compile(r"^(?:dut|client)$", re.IGNORECASE),
            "off": re.compile(r"^off$", re.IGNORECASE),
        },
    ),
    # Tizen's SDWire and SD MUX; the device is the serial number that `sd-mux-ctrl --list` tells. It has no "off".
    "sdwire": MuxKind(
        "sd-mux-ctrl (build it from Tizen's git)",
        {
            "host": ("sd-mux-ctrl", "--device-serial={device}", "--ts"),
            "board": ("sd-mux-ctrl", "--device-serial={device}", "--dut"),
        },
        ("sd-mux-ctrl", "--device-serial={device}", "--status"),
        {"host": re.compile(r"connected to:\s*TS\b"), "board": re.compile(r"connected to:\s*DUT\b")},
    ),
    # The newer SDWireC and SDWire3, by the program of their makers (PyPI: sdwire).
    "sdwire3": MuxKind(
        "sdwire (PyPI)",
        {
            "host": ("sdwire", "switch", "-s", "{device}", "host"),
            "board": ("sdwire", "switch", "-s", "{device}", "target"),
            "off": ("sdwire", "switch", "-s", "{device}", "off"),
        },
        (),
    ),
}

Run = Callable[[Sequence[str]], Awaitable[Ended]]


async def run_command(argv: Sequence[str]) -> Ended:
    """Run one of the programs above.

    Raises:
        ToolMissingError: it is not installed.
    """
    return await child.run(argv, lambda _line: None, DEADLINE_S)


@dataclass(frozen=True, slots=True)
class Mux:
    """One mux."""

    name: str
    kind: MuxKind
    device: str
    run: Run = run_command

    async def switch(self, state: str) -> None:
        """Bring it into `host`, `board` or `off`.

        Raises:
            ModeError: it has no such state, or its program failed.
        """
        command = self.kind.to.get(state)
        if command is None:
            raise ModeError(f"{self.name}: this kind of mux cannot be {state}; it can be {', '.join(self.kind.to)}")
        await self._call(command)

    async def look(self) -> str | None:
        """Its state as its hardware tells it; None where the kind cannot tell.

        Raises:
            ModeError: its program failed.
        """
        if not self.kind.look:
            return None
        words = await self._call(self.kind.look)
        return next((state for state, says in self.kind.says.items() if any(map(says.search, words))), None)

    async def _call(self, command: Sequence[str]) -> tuple[str, ...]:
        argv = [word.replace("{device}", self.device) for word in command]
        try:
            ended = await self.run(argv)
        except ToolMissingError as error:
            raise ModeError(f"{self.name}: {error}; it comes with {self.kind.package}") from error
        if ended.code != 0:
            raise ModeError(
                f"{self.name}: {argv[0]} ended with {ended.code}: {ended.last_words}; look at {self.device}"
            )
        return ended.words
