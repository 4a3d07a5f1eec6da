"""Virtual relay boards: a pseudo-terminal that speaks one of the protocols of boards on serial ports.

    python -m virtual_lab.serial_relay --protocol numato --outlets 8 --link /run/lab/relays0

prints one line of JSON when it is ready and takes one JSON object per line on its standard input, as
`virtual_lab.serial_cable` does: `lie`, `silent` (`{"do": "silent", "value": true}`), `press`
(`{"do": "press", "outlet": 2, "on": true}`), `noise` (bytes as hexadecimal, sent before each
answer), `vanish`, `return`, `state`.

Written from the protocols' descriptions, apart from the driver: the two share no code.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import sys
import termios
import tty
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from virtual_lab.snmp_pdu_control import serve_until_told

BYTE_S = 0.002
"""Between bytes of a board that answers piecewise; one takes 1 ms at 9600 baud."""


class Firmware(Protocol):
    """What the board's microcontroller does with what it receives."""

    def receive(self, board: "VirtualRelayBoard", data: bytes) -> bytes:
        """Take bytes in, switch, return what is answered."""


class Numato:
    """Lines ended by CR, echoed; answers ended by LF CR and the prompt."""

    def __init__(self) -> None:
        self._line = b""

    def receive(self, board: "VirtualRelayBoard", data: bytes) -> bytes:
        self._line += data
        answer = b""
        while b"\r" in self._line:
            line, _, self._line = self._line.partition(b"\r")
            answer += line + b"\n\r" + self._carry_out(board, line.decode("ascii", errors="replace")) + b">"
        return answer

    def _carry_out(self, board: "VirtualRelayBoard", line: str) -> bytes:
        if line == "ver":
            return b"00000009\n\r"
        if line == "relay readall" and len(board.on) >= 8:
            bits = sum(1 << index for index, on in enumerate(board.on) if on)
            return b"%0*x\n\r" % (max(2, len(board.on) // 4), bits)
        found = re.fullmatch(r"relay (on|off|read) ([0-9A-V]|[0-6][0-9])", line)
        if found is None:
            return b""
        number = int(found[2]) if len(board.on) > 32 else int(found[2], 36)
        if number >= len(board.on):
            return b""
        if found[1] == "read":
            return b"on\n\r" if board.on[number] else b"off\n\r"
        board.command(number, found[1] == "on")
        return b""


@dataclass
class Lcus:
    """Frames A0, relay, operation, sum; FF asks for all.

    Attributes:
        answers: what boards sold under the name do with FF: "bytes", "lines" or "" for nothing.
        feedback: the sister that answers operations 2, 3 and 5.
    """

    answers: str = "bytes"
    feedback: bool = False
    _frame: bytes = b""

    def receive(self, board: "VirtualRelayBoard", data: bytes) -> bytes:
        answer = b""
        for byte in data:
            if not self._frame and byte == 0xFF and not self.feedback:
                answer += self._all(board)
                continue
            if self._frame or byte == 0xA0:
                self._frame += bytes((byte,))
            if len(self._frame) == 4:
                frame, self._frame = self._frame, b""
                answer += self._carry_out(board, frame)
        return answer

    def _all(self, board: "VirtualRelayBoard") -> bytes:
        if self.answers == "bytes":
            return bytes(int(on) for on in board.on)
        if self.answers == "lines":
            return b"".join(b"CH%d: %s\r\n" % (n, b"ON" if on else b"OFF") for n, on in enumerate(board.on, 1))
        return b""

    def _carry_out(self, board: "VirtualRelayBoard", frame: bytes) -> bytes:
        _, number, operation, check = frame
        if sum(frame[:3]) & 0xFF != check or not 1 <= number <= len(board.on):
            return b""
        if operation in {0, 1} or (self.feedback and operation in {2, 3}):
            board.command(number - 1, bool(operation & 1))
        if not self.feedback or operation not in {2, 3, 5}:
            return b""
        told = bytes((0xA0, number, int(board.on[number - 1])))
        return told + bytes((sum(told) & 0xFF,))


class Devantech:
    """One byte per command."""

    def receive(self, board: "VirtualRelayBoard", data: bytes) -> bytes:
        answer = b""
        for byte in data:
            if byte == 0x5A:
                answer += bytes((8, 6))
            elif byte == 0x5B:
                answer += bytes((sum(1 << index for index, on in enumerate(board.on) if on),))
            elif byte in {0x64, 0x6E}:
                for index in range(len(board.on)):
                    board.command(index, byte == 0x64)
            elif 0x65 <= byte < 0x65 + len(board.on):
                board.command(byte - 0x65, True)
            elif 0x6F <= byte < 0x6F + len(board.on):
                board.command(byte - 0x6F, False)
        return answer


class Conrad:
    """A chain of cards with eight relays each: command, card, data, XOR; deaf to all until they were set up."""

    def __init__(self) -> None:
        self._frame = b""
        self._set_up = False

    def receive(self, board: "VirtualRelayBoard", data: bytes) -> bytes:
        answer = b""
        for byte in data:
            self._frame += bytes((byte,))
            if len(self._frame) == 4:
                frame, self._frame = self._frame, b""
                answer += self._carry_out(board, frame)
        return answer

    def _carry_out(self, board: "VirtualRelayBoard", frame: bytes) -> bytes:
        command, card, data, check = frame
        if command ^ card ^ data != check:
            return b""
        cards = -(-len(board.on) // 8)
        if command == 1:
            self._set_up = True  # each card answers with its version, and the frame comes out at the end of the chain
            told = b"".join(self._answer(254, card + index, 11) for index in range(cards))
            return told + self._answer(1, card + cards, 0)
        if not self._set_up or not 1 <= card <= cards:
            return b""
        if command in {4, 5}:  # what is done with broadcasts; as it comes from the factory
            return self._answer(255 - command, card, 1)
        first = (card - 1) * 8
        if command in {6, 7}:
            for bit in range(8):
                if data >> bit & 1 and first + bit < len(board.on):
                    board.command(first + bit, command == 6)
        elif command != 2:
            return b""
        states = sum(1 << index for index, on in enumerate(board.on[first : first + 8]) if on)
        return self._answer(255 - command, card, states)

    @staticmethod
    def _answer(command: int, card: int, data: int) -> bytes:
        return bytes((command, card, data, command ^ card ^ data))


FIRMWARE: dict[str, Callable[[], Firmware]] = {
    "numato": Numato,
    "lcus": Lcus,
    "lcus-lines": lambda: Lcus(answers="lines"),
    "lcus-mute": lambda: Lcus(answers=""),
    "lcus-feedback": lambda: Lcus(feedback=True),
    "devantech": Devantech,
    "conrad": Conrad,
}


@dataclass
class VirtualRelayBoard:
    """The board. Relays count from 0 here, and from 1 in `press` and on the control lines.

    Attributes:
        link: as in `VirtualCable`.
        noise: sent before each answer, as a bad line does.
        delay_s: answers come after this.
        piecewise: answers come byte by byte.
        edges: every real change, as (outlet, on).
        received: all bytes that came.
    """

    protocol: str = "numato"
    outlets: int = 4
    link: Path | None = None
    lying: bool = False
    silent: bool = False
    noise: bytes = b""
    delay_s: float = 0.0
    piecewise: bool = False
    device: str = field(default="", init=False)
    on: list[bool] = field(default_factory=list, init=False)
    edges: list[tuple[int, bool]] = field(default_factory=list, init=False)
    received: bytearray = field(default_factory=bytearray, init=False)
    _ours: int | None = field(default=None, init=False)
    _theirs: int | None = field(default=None, init=False)
    _speaks_until: float = field(default=0.0, init=False)
    _timers: set[asyncio.TimerHandle] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        self.on = [False] * self.outlets
        self._firmware = FIRMWARE[self.protocol]()

    async def __aenter__(self) -> Self:
        self.come_back()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.vanish()

    def come_back(self) -> None:
        """Plug it in (again): a new pseudo-terminal; the microcontroller starts afresh, the relays are as they were."""
        if self._ours is not None:
            return
        self._firmware = FIRMWARE[self.protocol]()
        self._ours, self._theirs = os.openpty()
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
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)
        os.close(self._theirs)
        self._ours = self._theirs = None
        if self.link is not None:
            self.link.unlink(missing_ok=True)

    def command(self, index: int, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        """What the firmware tells a relay to do; one of a lying board stays as it is."""
        if not self.lying:
            self.press(index + 1, on)

    def press(self, outlet: int, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        """A hand at the relay's own button.

        Raises:
            IndexError: no such outlet.
        """
        if outlet < 1:
            raise IndexError(f"no outlet {outlet}")
        if self.on[outlet - 1] != on:
            self.on[outlet - 1] = on
            self.edges.append((outlet, on))

    def _readable(self) -> None:
        if self._ours is None:
            return
        try:
            data = os.read(self._ours, 4096)
        except (BlockingIOError, OSError):
            return
        self.received += data
        if self.silent:  # hung: it neither acts nor answers
            return
        answer = self._firmware.receive(self, data)
        if answer:
            self._say(self.noise + answer)

    def _say(self, data: bytes) -> None:
        if not self.piecewise and self.delay_s <= 0:
            self._write(data)
            return
        now = asyncio.get_running_loop().time()
        at = max(now + self.delay_s, self._speaks_until)  # a line carries one byte after the other
        for piece in [data[index : index + 1] for index in range(len(data))] if self.piecewise else [data]:
            at += BYTE_S
            self._later(at - now, piece)
        self._speaks_until = at

    def _later(self, after_s: float, data: bytes) -> None:
        def speak() -> None:
            self._timers.discard(timer)
            self._write(data)

        timer = asyncio.get_running_loop().call_later(after_s, speak)
        self._timers.add(timer)

    def _write(self, data: bytes) -> None:
        if self._ours is not None:
            with contextlib.suppress(BlockingIOError):  # nobody reads: a real port would drop it, too
                os.write(self._ours, data)

    def control(self, line: str) -> dict[str, Any]:
        """Carry out one control line; returns the answer. A bad line is answered with `error`, never raised."""
        try:
            request = json.loads(line)
            what = request["do"]
            if what in {"lie", "silent"}:
                setattr(self, {"lie": "lying"}.get(what, what), bool(request["value"]))
            elif what == "noise":
                self.noise = bytes.fromhex(request["value"])
            elif what == "press":
                self.press(int(request["outlet"]), bool(request["on"]))
            elif what == "vanish":
                self.vanish()
            elif what == "return":
                self.come_back()
            elif what != "state":
                return {"ok": False, "error": f"unknown word {what!r}"}
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as problem:
            return {"ok": False, "error": f"{type(problem).__name__}: {problem}"}
        return {"ok": True, "on": self.on, "device": self.device}


async def _serve(args: argparse.Namespace) -> None:
    async with VirtualRelayBoard(args.protocol, args.outlets, args.link, lying=args.lie, silent=args.silent) as board:
        await serve_until_told(board.control, {"device": board.device}, stop_at_eof=args.stop_at_eof)


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m virtual_lab.serial_relay", description="A virtual relay board.")
    parser.add_argument("--protocol", choices=sorted(FIRMWARE), default="numato")
    parser.add_argument("--outlets", type=int, default=4)
    parser.add_argument("--link", type=Path, help="symbolic link to make to the pseudo-terminal")
    parser.add_argument("--lie", action="store_true", help="accepts commands and does not switch")
    parser.add_argument("--silent", action="store_true", help="neither acts nor answers")
    parser.add_argument("--stop-at-eof", action="store_true", help="end when standard input ends")
    asyncio.run(_serve(parser.parse_args(argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
