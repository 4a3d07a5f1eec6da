"""`[boards.NAME.actuators]`, `[boards.NAME.modes]`, `[boards.NAME.flash]` and `[flash]` of the agent's settings."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field, StringConstraints, model_validator

from agent.fetch_settings import FetchTable
from agent.power.feed import OutletRef
from agent.settings_table import Key, Table
from firmware_tools.flash import modes
from firmware_tools.flash.modes import NORMAL, POWER, WAIT, Actuator, Kind, Step
from firmware_tools.flash.muxes import MUXES, Mux
from firmware_tools.flash.tools import OWN, TOOLS, Tool, own_tool
from wire.names import Id

MuxName = Literal["usbsdmux", "sdwire", "sdwire3"]
ToolName = Literal["dfu-util", "fastboot", "uuu", "bmaptool", "snagflash", "snagrecover", "own"]
Word = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A value that goes into a tool's command; one that began with '-' would be an option."""
Plain = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^-\x00-\x20\x7f][^\x00-\x1f\x7f]*$")]
UsbId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}$", to_lower=True)]
StepWords = Annotated[str, StringConstraints(max_length=512)]
_VALUES = ("device", "serial", "path", "alt", "address", "partition", "script", "protocol", "soc")


class ActuatorTable(Table):
    """`[boards.NAME.actuators]`: one thing beside the board's power that can be switched."""

    outlet: str | None = None
    """`controller:outlet` of a relay or hub: a boot strap, a button, the USB port that a flash goes through."""
    mux: MuxName | None = None
    """An SD mux."""
    device: Plain | None = None
    """The mux's device or serial number, as its program wants it."""
    settle_s: float = Field(default=0.1, ge=0, le=60)
    """Rest after it was switched."""
    needs: list[StepWords] = Field(default=[], max_length=8)
    """What others must be in while it is switched, as `power off`."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> "ActuatorTable":
        if (self.outlet is None) == (self.mux is None):
            raise ValueError("give either outlet or mux")
        if self.mux is not None and self.device is None:
            raise ValueError("device: a mux needs its device or serial number")
        if self.outlet is not None:
            OutletRef.parse(self.outlet)
        for words in self.needs:
            if len(words.split()) != 2:
                raise ValueError(f"needs: {words!r} is not ACTUATOR STATE")
        return self

    @property
    def actuator(self) -> Actuator:
        """As modes are planned with it."""
        needs = tuple((words.split()[0], words.split()[1]) for words in self.needs)
        return Actuator(Kind.OUTLET if self.mux is None else Kind.MUX, self.settle_s, needs)

    def mux_named(self, name: str) -> Mux | None:
        """The mux that it is; None where it is an outlet."""
        return None if self.mux is None or self.device is None else Mux(name, MUXES[self.mux], self.device)


class FlashTable(Table):
    """`[boards.NAME.flash.METHOD]`: one way of writing an image to the board."""

    tool: ToolName
    command: list[Word] = Field(default=[], max_length=64)
    """Of `tool = "own"`: the program and its arguments; `{image}` stands for the image."""
    mode: Id | None = None
    """The mode in which the tool finds the board; none: the board is taken as it is."""
    then: Id = NORMAL
    """The mode after a good flash, where `mode` is given."""
    safe_mode: Id = NORMAL
    """The mode after one that failed, was cancelled or was cut short by the agent's end."""
    device: Plain | None = None
    """dfu-util, snagflash: VENDOR:PRODUCT; bmaptool: the block device of the card."""
    serial: Plain | None = None
    """Which of several devices; fastboot: also `udp:HOST` and `tcp:HOST`."""
    path: Plain | None = None
    """The USB path, as dfu-util and uuu take it: tells boards apart that have no serial number in their boot ROM."""
    alt: Plain | None = None
    address: Plain | None = None
    partition: Plain | None = None
    script: Plain | None = None
    protocol: Plain | None = None
    soc: Plain | None = None
    product: Plain | None = None
    """What the device must answer to fastboot's `getvar product` before anything is written."""
    compatible: list[Word] = Field(default=[], max_length=32)
    """What the board is, by its device tree, where it has never registered; compared with what an image declares."""
    declared: bool = False
    """Refuse an image that does not declare for which boards it is."""
    max_bytes: int | None = Field(default=None, ge=1)
    bmap: bool = True
    """Use the block map beside a disk's image."""
    verify: bool = True
    """Read back what was written, where the tool can."""
    reset: bool = False
    """Have the tool tell the device to go on, where it can; a mode that switches the power makes that needless."""
    boots: bool = False
    """The flash is good only when the board registers a new boot after the tool's end, within its boot_timeout_s. One
    that was up before does not count; without a `mode` that switches the power the tool has to start it anew."""
    find_s: float = Field(default=30.0, ge=1, le=3600)
    """How long a tool may wait for its device."""
    deadline_s: float = Field(default=900.0, ge=1, le=24 * 3600)
    """Of the tool as a whole."""

    @model_validator(mode="after")
    def _tool_has_what_it_needs(self) -> "FlashTable":
        if (self.tool == OWN) != bool(self.command):
            raise ValueError('command: is what tool = "own" needs, and no other')
        if self.tool == OWN:
            unknown = [name for name in re.findall(r"\{([a-z]+)\}", " ".join(self.command)) if name not in self.values]
            if unknown and unknown != ["image"] * len(unknown):
                raise ValueError(f"command: {{{next(name for name in unknown if name != 'image')}}} is not said here")
            return self
        for key in TOOLS[self.tool].needs:
            if getattr(self, key) is None:
                raise ValueError(f"{key}: {self.tool} needs it")
        if self.tool == "dfu-util" and (self.device is None or not re.fullmatch(r"[0-9A-Fa-f]{4}:.{4}", self.device)):
            raise ValueError("device: dfu-util wants VENDOR:PRODUCT, as 0483:df11")
        if self.tool == "dfu-util" and self.verify and "leave" in (self.address or ""):
            raise ValueError("address: with leave the device is gone before it is read back; say verify = false, too")
        if self.tool == "bmaptool" and (self.device is None or not self.device.startswith("/")):
            raise ValueError("device: bmaptool wants the path of a block device, best one below /dev/disk/by-id")
        return self

    @property
    def values(self) -> dict[str, str]:
        """What of it goes into the tool's command."""
        found = {name: getattr(self, name) for name in _VALUES}
        return {name: value for name, value in found.items() if value is not None}

    @property
    def the_tool(self) -> Tool:
        return own_tool(self.command) if self.tool == OWN else TOOLS[self.tool]

    @property
    def usb_device(self) -> str | None:
        """Vendor and product, where that is what `device` is."""
        return self.device.lower() if self.tool == "dfu-util" and self.device is not None else None


class FlashesTable(Table):
    """`[flash]`: what holds for all boards of the agent."""

    folders: list[Path] = Field(default=[], max_length=64)
    """Below these lie the images that may be named by path. None: images come by URL alone."""
    scratch: Path | None = None
    """For what is read back; `state_dir` if not given."""
    fetch: FetchTable = FetchTable(cache_mib=8192, file_mib=8192)
    """From where images may be fetched by URL, as `[netboot.fetch]`."""


class Flashable(Protocol):
    """A board's tables, as far as they matter here."""

    @property
    def actuators(self) -> Mapping[str, ActuatorTable]: ...
    @property
    def modes(self) -> Mapping[str, list[str]]: ...
    @property
    def flash(self) -> Mapping[str, FlashTable]: ...
    @property
    def never_off(self) -> bool: ...


def actuators_of(board: Flashable) -> dict[str, Actuator]:
    """All that can be switched at a board, its power included."""
    return {POWER: Actuator(Kind.POWER), **{name: table.actuator for name, table in board.actuators.items()}}


def steps_of(board: Flashable, mode: str) -> list[Step]:
    """The steps of a mode, with what they need before them. The settings are checked: it has no fault."""
    actuators = actuators_of(board)
    return modes.plan([modes.parse_step(words, actuators) for words in board.modes[mode]], actuators)


def contradictions(
    boards: Mapping[str, Flashable], controllers: Collection[str], fed: Mapping[str, str]
) -> Iterator[tuple[Key, str]]:
    """What is right alone and wrong together, with the key to change. `fed`: outlet -> the board that it feeds."""
    used: dict[str, str] = {}
    for name, board in boards.items():
        key = ("boards", name)
        for actuator, table in board.actuators.items():
            where = (*key, "actuators", actuator)
            if actuator in {POWER, WAIT}:
                yield where, f"{actuator} is a word of the steps; call it otherwise"
            place = table.outlet or f"{table.mux} {table.device}"
            if place in used:
                yield where, f"{place} is already actuator {used[place]}"
            used[place] = f"{actuator} of board {name}"
            if table.outlet is None:
                continue
            if table.outlet in fed:
                yield (*where, "outlet"), f"{table.outlet} feeds board {fed[table.outlet]}; steps say power for that"
            controller = table.outlet.partition(":")[0]
            if controller not in controllers:
                known = ", ".join(sorted(controllers)) or "none"
                yield (*where, "outlet"), f"there is no controller {controller!r}; known are: {known}"
        for mode, why in modes.objections(board.modes, actuators_of(board)):
            yield (*key, "modes", mode) if mode else (*key, "modes"), why
        yield from _methods_fit(key, board)


def _methods_fit(key: Key, board: Flashable) -> Iterator[tuple[Key, str]]:
    for method, table in board.flash.items():
        where = (*key, "flash", method)
        if table.mode is None:
            continue
        for word, mode in (("mode", table.mode), ("then", table.then), ("safe_mode", table.safe_mode)):
            if mode not in board.modes:
                known = ", ".join(sorted(board.modes)) or "none"
                yield (*where, word), f"there is no mode {mode!r} in this board's modes; known are: {known}"
    if board.never_off and any(words.startswith((f"{POWER} off", f"{POWER} cycle")) for words in _all_words(board)):
        yield (*key, "modes"), "a mode switches the power off, and the board has never_off"


def _all_words(board: Flashable) -> Iterator[str]:
    for words in board.modes.values():
        yield from words
    for table in board.actuators.values():
        yield from table.needs
