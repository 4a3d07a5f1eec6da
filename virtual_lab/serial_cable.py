"""A virtual power cable: a pseudo-terminal that behaves as the microcontroller of a serial power cable.

One character per command, a hexadecimal digit: bit 0 is power, bits 1 to 3 are LEDs; `?` is answered with the digit.

    python -m virtual_lab.serial_cable --link /run/lab/cable0

prints one line of JSON when it is ready (`{"ready": true, "device": …}`) and takes one JSON object per line on its
standard input, as `virtual_lab.snmp_pdu` does: `lie` (accepts digits and does not switch), `silent` (an old cable:
never answers), `press` (`{"do": "press", "on": true}`), `vanish`, `return`, `state`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import sys
import termios
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from virtual_lab.snmp_pdu_control import serve_until_told

POWER_BIT = 1
HEX_DIGITS = b"0123456789abcdefABCDEF"


@dataclass
class VirtualCable:
    """The cable. `on_power`, where given, is called with True or False when power really changed.

    Attributes:
        link: a symbolic link to the pseudo-terminal, made at start and removed at the end; it plays the part of
            /dev/serial/by-path, which stays when the device number changes.
        device: what to open: the link where there is one.
        digits: every digit received, for tests that count them.
        edges: every real change of power.
    """

    link: Path | None = None
    lying: bool = False
    silent: bool = False
    on_power: Callable[[bool], None] | None = None
    digit: int = 0
    device: str = field(default="", init=False)
    digits: list[int] = field(default_factory=list, init=False)
    edges: list[bool] = field(default_factory=list, init=False)
    _ours: int | None = field(default=None, init=False)
    _theirs: int | None = field(default=None, init=False)

    async def __aenter__(self) -> Self:
        self.come_back()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.vanish()

    @property
    def on(self) -> bool:
        return bool(self.digit & POWER_BIT)

    def come_back(self) -> None:
        """Plug it in (again): a new pseudo-terminal, as a new tty number. Power is as it was."""
        if self._ours is not None:
            return
        self._ours, self._theirs = os.openpty()
        # Kept open and raw, so that the terminal outlives its users and echoes nothing.
        tty.setraw(self._theirs, termios.TCSANOW)
        os.set_blocking(self._ours, False)
        name = os.ttyname(self._theirs)
        if self.link is not None:
            temporary = self.link.with_name(f".{self.link.name}.{os.getpid()}")
            temporary.symlink_to(name)
            temporary.replace(self.link)
        self.device = str(self.link or name)
        asyncio.get_running_loop().add_reader(self._ours, self._readable)

    def vanish(self) -> None:
        """Pull it out: whoever has it open gets an error, and the link is gone."""
        if self._ours is None or self._theirs is None:
            return
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)
        os.close(self._theirs)
        self._ours = self._theirs = None
        if self.link is not None:
            self.link.unlink(missing_ok=True)

    def press(self, *, on: bool) -> None:
        """A hand at the cable's button."""
        self._become((self.digit & ~POWER_BIT) | (POWER_BIT if on else 0))

    def _readable(self) -> None:
        if self._ours is None:
            return
        try:
            received = os.read(self._ours, 4096)
        except (BlockingIOError, OSError):
            return
        for number in received:
            character = bytes([number])
            if character == b"?":
                self._answer()
            elif character in HEX_DIGITS:
                digit = int(character, 16)
                self.digits.append(digit)
                if not self.lying:
                    self._become(digit)

    def _answer(self) -> None:
        if self.silent or self._ours is None:
            return
        with contextlib.suppress(BlockingIOError):  # nobody reads: a real port would drop it, too
            os.write(self._ours, b"%x" % self.digit)

    def _become(self, digit: int) -> None:
        was, self.digit = self.on, digit
        if self.on != was:
            self.edges.append(self.on)
            if self.on_power is not None:
                self.on_power(self.on)

    def control(self, line: str) -> dict[str, Any]:
        """Carry out one control line; returns the answer. A bad line is answered with `error`, never raised."""
        try:
            request = json.loads(line)
            what = request["do"]
            if what == "lie":
                self.lying = bool(request["value"])
            elif what == "silent":
                self.silent = bool(request["value"])
            elif what == "press":
                self.press(on=bool(request["on"]))
            elif what == "vanish":
                self.vanish()
            elif what == "return":
                self.come_back()
            elif what != "state":
                return {"ok": False, "error": f"unknown word {what!r}"}
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            return {"ok": False, "error": f"{type(problem).__name__}: {problem}"}
        return {"ok": True, "on": self.on, "digit": self.digit, "device": self.device}


async def _serve(args: argparse.Namespace) -> None:
    async with VirtualCable(link=args.link, lying=args.lie, silent=args.silent) as cable:
        await serve_until_told(cable.control, {"device": cable.device}, stop_at_eof=args.stop_at_eof)


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m virtual_lab.serial_cable", description="A virtual power cable.")
    parser.add_argument("--link", type=Path, help="symbolic link to make to the pseudo-terminal")
    parser.add_argument("--lie", action="store_true", help="accepts digits and does not switch")
    parser.add_argument("--silent", action="store_true", help="an old cable: never answers")
    parser.add_argument("--stop-at-eof", action="store_true", help="end when standard input ends")
    asyncio.run(_serve(parser.parse_args(argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
