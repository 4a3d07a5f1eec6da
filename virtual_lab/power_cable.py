"""A virtual power cable of ours: its real firmware, run on a pseudo-terminal, with relays on its pins.

    python -m virtual_lab.power_cable --link /run/lab/cable0

prints one line of JSON when it is ready (`{"ready": true, "device": …}`) and takes one JSON object per line on its
standard input, as `virtual_lab.serial_cable` does: `press` (`{"do": "press", "outlet": 1, "on": true}`), `stick`
(`{"do": "stick", "outlet": 1, "value": true}`), `deaf`, `vanish`, `return`, `state`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import termios
import tty
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from virtual_lab.namespace import LabError
from virtual_lab.snmp_pdu_control import serve_until_told

ROOMS = Path(__file__).resolve().parent.parent
BOARD = Path(__file__).with_name("power_cable_board.py")
START_TIMEOUT_S = 30.0
RESET_CODE = 3
UNIQUE_ID = bytes.fromhex("e66164084373532b")
PINS = (2, 3, 4, 5)
SENSES = (10, 11, 12, 13)
LEDS = ((6,), (7,), (8,), (14, 15, 16))
SETTINGS: dict[str, Any] = {
    "outlets": [
        {"pin": pin, "sense": sense, "led": list(leds), "active": active}
        for pin, sense, leds, active in zip(PINS, SENSES, LEDS, ("high", "low", "high", "high"), strict=True)
    ]
}
"""Four outlets that are sensed; the second is a relay that is on at a low level."""


@dataclass
class VirtualPowerCable:
    """The cable.

    Attributes:
        link: a symbolic link to the pseudo-terminal, as /dev/serial/by-id has it.
        python: what runs the firmware, as a command.
        settings: its file on the board; None for none.
        unique_id: that of its microcontroller.
        noise: said to the host after each of its lines, as an interfered line does.
        device: what to open: the link where there is one.
        received: every byte that the host sent.
        starts: how often the firmware started.
    """

    link: Path | None = None
    python: Sequence[str] = (sys.executable,)
    settings: dict[str, Any] | None = field(default_factory=lambda: SETTINGS)
    unique_id: bytes = UNIQUE_ID
    noise: bytes = b""
    deaf: bool = False
    device: str = field(default="", init=False)
    received: bytearray = field(default_factory=bytearray, init=False)
    starts: int = field(default=0, init=False)
    folder: Path = field(default=Path(), init=False)
    _world: dict[str, Any] = field(default_factory=dict, init=False)
    _presses: int = field(default=0, init=False)
    _process: asyncio.subprocess.Process | None = field(default=None, init=False)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set, init=False)
    _ours: int | None = field(default=None, init=False)
    _theirs: int | None = field(default=None, init=False)

    async def __aenter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="boardhand-cable-"))
        (self.folder / "flash").mkdir()
        outlets = (self.settings or {}).get("outlets", [])
        leds = [outlet.get("led", []) for outlet in outlets if isinstance(outlet, dict)]
        self._world = {
            "unique_id": list(self.unique_id),
            "leds": [pin for led in leds for pin in (led if isinstance(led, list) else [led])] or [6, 7, 8, 9],
            "low": [outlet["pin"] for outlet in outlets if outlet.get("active") == "low"],
            "sense": {str(outlet["sense"]): outlet["pin"] for outlet in outlets if "sense" in outlet},
        }
        if self.settings is not None:
            (self.folder / "flash/power_cable.json").write_text(json.dumps(self.settings))
        try:
            await self.power_up()
        except BaseException:
            await self.__aexit__()
            raise
        self.come_back()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.vanish()
        await self.power_down()
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- the microcontroller -------------------------------------------------------------------------------------

    async def power_up(self) -> None:
        """Give it power: its scratch registers are empty then. Returns when the firmware runs."""
        (self.folder / "registers.json").unlink(missing_ok=True)
        self.world(watchdog=False)
        await self._start()

    async def power_down(self) -> None:
        """Take its power; relays fall."""
        await self._halt()
        with (self.folder / "log").open("a") as log:
            log.writelines(f"relay {pin} off\n" for pin, on in self._relays().items() if on)

    async def _halt(self) -> None:
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def hang(self) -> None:
        """From now on the firmware stands still; returns when it does."""
        self.world(hang=True)
        async with asyncio.timeout(START_TIMEOUT_S):
            while self.log()[-1] != "hangs":  # noqa: ASYNC110  # it is another process
                await asyncio.sleep(0.005)

    async def bite(self) -> None:
        """The watchdog's reset, when the firmware stands still."""
        await self._halt()
        self.world(watchdog=True, hang=False)
        await self._start()

    async def _start(self) -> None:
        self.starts += 1
        before = self.log().count("fed")
        self._process = await asyncio.create_subprocess_exec(
            *self.python, str(BOARD), str(self.folder), str(ROOMS / "firmware_tools"),
            cwd=self.folder / "flash", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._tasks.add(asyncio.create_task(self._listen(self._process), name="cable-firmware"))
        async with asyncio.timeout(START_TIMEOUT_S):
            while self.log().count("fed") == before and self._process.returncode is None:  # noqa: ASYNC110  # as below
                await asyncio.sleep(0.005)
        if self._process.returncode not in {None, RESET_CODE}:
            raise LabError(f"the cable's firmware ended with {self._process.returncode}: {self.log()[-5:]}")

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        if process.stdout is None:
            return
        while data := await process.stdout.read(4096):
            self._say(data)
        if await process.wait() == RESET_CODE:
            self.world(watchdog=True)
            self._tasks = {task for task in self._tasks if not task.done()}
            self._tasks.add(asyncio.create_task(self._start(), name="cable-restart"))

    # --- the world -----------------------------------------------------------------------------------------------

    def world(self, **changes: object) -> None:
        """Change what the outside does: see `power_cable_board.World`."""
        self._world |= changes
        fresh = self.folder / "world.new"
        fresh.write_text(json.dumps(self._world))
        fresh.replace(self.folder / "world.json")

    def log(self) -> list[str]:
        """What happened at the pins."""
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / "log").read_text().splitlines()
        return []

    def _relays(self) -> dict[str, bool]:
        lines = [line.split() for line in self.log()]
        return {words[1]: words[2] == "on" for words in lines if words[0] == "relay"}

    def edges(self, outlet: int) -> list[bool]:
        """Every real change of an outlet, from 1, in order."""
        begin = f"relay {self._pin(outlet)} "
        return [line.endswith(" on") for line in self.log() if line.startswith(begin)]

    def is_on(self, outlet: int) -> bool:
        """Whether what hangs off it has power."""
        return (self.edges(outlet) or [False])[-1]

    async def press(self, outlet: int, *, on: bool) -> None:
        """A hand at its relay; returns when it has moved."""
        self._presses += 1
        self.world(hand={**self._world.get("hand", {}), str(self._pin(outlet)): [on, self._presses]})
        async with asyncio.timeout(START_TIMEOUT_S):
            while self.is_on(outlet) != on:  # noqa: ASYNC110  # it is another process that moves it
                await asyncio.sleep(0.005)

    def stick(self, outlet: int, *, stuck: bool) -> None:
        """Its relay moves no more (or again)."""
        others = [pin for pin in self._world.get("stuck", []) if pin != self._pin(outlet)]
        self.world(stuck=[*others, self._pin(outlet)] if stuck else others)

    def _pin(self, outlet: int) -> int:
        if self.settings is None:
            return PINS[outlet - 1]
        return int(self.settings["outlets"][outlet - 1]["pin"])

    # --- its tty -------------------------------------------------------------------------------------------------

    def come_back(self) -> None:
        """Plug it in (again): a new pseudo-terminal, as a new tty number."""
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
        """Its USB plug is pulled, and its power comes from elsewhere."""
        if self._ours is None or self._theirs is None:
            return
        asyncio.get_running_loop().remove_reader(self._ours)
        os.close(self._ours)
        os.close(self._theirs)
        self._ours = self._theirs = None
        if self.link is not None:
            self.link.unlink(missing_ok=True)

    def _readable(self) -> None:
        if self._ours is None:
            return
        try:
            received = os.read(self._ours, 4096)
        except (BlockingIOError, OSError):
            return
        self.received += received
        if not self.deaf and self._process is not None and self._process.stdin is not None:
            self._process.stdin.write(received)

    def _say(self, data: bytes) -> None:
        if self._ours is not None and not self.deaf:
            with contextlib.suppress(OSError):  # nobody reads: a real port would drop it, too
                os.write(self._ours, data + (self.noise if data.endswith(b"\n") else b""))

    def control(self, line: str) -> dict[str, Any]:
        """Carry out one control line; returns the answer. A bad line is answered with `error`, never raised."""
        try:
            request = json.loads(line)
            what = request["do"]
            if what == "press":
                task = asyncio.get_running_loop().create_task(self.press(request["outlet"], on=bool(request["on"])))
                self._tasks.add(task)
            elif what == "stick":
                self.stick(request["outlet"], stuck=bool(request["value"]))
            elif what == "deaf":
                self.deaf = bool(request["value"])
            elif what == "vanish":
                self.vanish()
            elif what == "return":
                self.come_back()
            elif what != "state":
                return {"ok": False, "error": f"unknown word {what!r}"}
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as problem:
            return {"ok": False, "error": f"{type(problem).__name__}: {problem}"}
        outlets = len((self.settings or {"outlets": PINS})["outlets"])
        return {"ok": True, "on": [self.is_on(number + 1) for number in range(outlets)], "device": self.device}


async def _serve(args: argparse.Namespace) -> None:
    async with VirtualPowerCable(link=args.link, python=args.python) as cable:
        await serve_until_told(cable.control, {"device": cable.device}, stop_at_eof=args.stop_at_eof)


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m virtual_lab.power_cable", description="A virtual power cable.")
    parser.add_argument("--link", type=Path, help="symbolic link to make to the pseudo-terminal")
    parser.add_argument("--stop-at-eof", action="store_true", help="end when standard input ends")
    parser.add_argument(
        "--python",
        nargs=argparse.REMAINDER,
        default=[sys.executable],
        help="last: what runs the firmware (micropython)",
    )
    asyncio.run(_serve(parser.parse_args(argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
