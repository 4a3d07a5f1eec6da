"""The tools that write images, as data: how each is called, how its output is read, and what its end means.

What they print is theirs and changes with their versions; so it is only ever read for how far they are and for their
last words. Whether a flash is good is told by the exit code, and by reading back where the device can.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from firmware_tools.flash.errors import ToolMissingError
from firmware_tools.flash.image_check import Format

_PLACE = re.compile(r"\{([a-z]+)\}")


class Readback(StrEnum):
    """How what lies in the device is compared with the image."""

    NONE = "none"
    """The tool's word is all there is."""
    UPLOAD = "upload"
    """A second call reads it back into a file, which is compared."""
    DEVICE = "device"
    """It is read back from the block device, and compared."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """A line that says how far it is: `stage`, and by which groups the percentage is told.

    Two groups `done` and `of`, or one group `percent`, or none: then the line only names the stage.
    """

    stage: str
    line: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool.

    Attributes:
        argv: the command; `{image}` and the settings' keys are filled in, and a part in a tuple is left out whole
            where one of its keys is not set.
        needs: keys without which it makes no sense.
        absent: what it prints where it did not find the device; then nothing was written.
        probe: a question before anything is written, by its expected answer: see `Tool.probe_line`.
        after: a command when all is well, as `reboot`.
        terminal: it tells its progress only to a terminal, so it is given one.
    """

    name: str
    package: str
    argv: tuple[str | tuple[str, ...], ...]
    format: Format = Format.ANY
    needs: tuple[str, ...] = ()
    patterns: tuple[Pattern, ...] = ()
    absent: re.Pattern[str] = re.compile(r"(?!)")
    readback: Readback = Readback.NONE
    upload: tuple[str | tuple[str, ...], ...] = ()
    probe: tuple[str | tuple[str, ...], ...] = ()
    after: tuple[str | tuple[str, ...], ...] = ()
    terminal: bool = False
    keys: frozenset[str] = field(default=frozenset())


def _percent(stage: str, before: str) -> Pattern:
    return Pattern(stage, re.compile(before + r"\s*(?P<percent>[0-9]{1,3}(?:\.[0-9]+)?)\s*%"))


_DFU_DEVICE: tuple[str | tuple[str, ...], ...] = (
    "dfu-util", "-d", "{device}", ("-S", "{serial}"), ("-p", "{path}"), ("-a", "{alt}"),
)  # fmt: skip
_FASTBOOT: tuple[str | tuple[str, ...], ...] = ("fastboot", ("-s", "{serial}"))

TOOLS: Mapping[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "dfu-util",
            "dfu-util",
            (*_DFU_DEVICE, ("-s", "{address}"), "-D", "{image}"),
            format=Format.DFU,
            needs=("device",),
            # "Download\t[=====      ]  45%        46080 bytes"
            patterns=(_percent("erase", r"^Erase\s.*\]"), _percent("write", r"^Download\s.*\]"),
                      _percent("read back", r"^Upload\s.*\]")),
            absent=re.compile(r"No DFU capable USB device available|Cannot open DFU device|Lost device"),
            readback=Readback.UPLOAD,
            upload=(*_DFU_DEVICE, ("-s", "{address}:{bytes}"), "-Z", "{bytes}", "-U", "{file}"),
        ),
        Tool(
            "fastboot",
            "fastboot",
            (*_FASTBOOT, "flash", "{partition}", "{image}"),
            format=Format.FASTBOOT,
            needs=("partition",),
            # "Sending sparse 'system' 2/5 (65536 KB)   OKAY [  1.3s]", "Writing 'boot'   OKAY [  0.1s]"
            patterns=(
                Pattern("send", re.compile(r"^Sending sparse .* (?P<done>[0-9]+)/(?P<of>[0-9]+) ")),
                Pattern("send", re.compile(r"^Sending ")),
                Pattern("write", re.compile(r"^Writing ")),
                Pattern("erase", re.compile(r"^Erasing ")),
            ),
            absent=re.compile(r"< ?waiting for |error: cannot connect|no devices/emulators"),
            probe=(*_FASTBOOT, "getvar", "product"),
            after=(*_FASTBOOT, "reboot"),
        ),
        Tool(
            "uuu",
            "uuu",
            ("uuu", "-v", ("-m", "{path}"), ("-b", "{script}"), "{image}"),
            patterns=(_percent("write", r""),),
            absent=re.compile(r"Wait for Known USB Device|No (?:known )?USB device", re.IGNORECASE),
        ),
        Tool(
            "bmaptool",
            "bmap-tools",
            ("bmaptool", "copy", ("--bmap", "{bmap}"), "{nobmap}", "{image}", "{device}"),
            format=Format.DISK,
            needs=("device",),
            # "bmaptool: info: 45% copied"; the psplash pipe of Debian 12's bmaptool ends it with a NameError.
            patterns=(Pattern("write", re.compile(r"(?P<percent>[0-9]+)% copied")),),
            absent=re.compile(r"cannot open (?:destination file|block device)"),
            readback=Readback.DEVICE,
            terminal=True,
        ),
        Tool(
            "snagflash",
            "snagboot (PyPI)",
            ("snagflash", "-P", "{protocol}", ("-p", "{device}"), ("-D", "{alt}:{image}"),
             ("-f", "download:{image}", "-f", "flash:{partition}")),
            needs=("protocol",),
            patterns=(_percent("write", r""),),
            absent=re.compile(r"[Dd]evice .*not found|could not find"),
        ),
        Tool(
            "snagrecover",
            "snagboot (PyPI)",
            ("snagrecover", "-s", "{soc}", "-f", "{image}"),
            needs=("soc",),
            patterns=(_percent("write", r""),),
            absent=re.compile(r"[Dd]evice .*not found|could not find|Starting recovery .*timed out"),
        ),
    )
}  # fmt: skip

OWN = "own"
"""A command of the settings', for whatever else the field has: rkdeveloptool, openFPGALoader, a script."""
OWN_PATTERNS = (_percent("write", r"(?:^|[\s\[(])"),)


def own_tool(command: Sequence[str]) -> Tool:
    """The tool that a settings file spells out. `{image}` stands for the image."""
    return Tool(OWN, "", tuple(command), patterns=OWN_PATTERNS)


def fill(tool: str, parts: Sequence[str | tuple[str, ...]], values: Mapping[str, str]) -> list[str]:
    """The command with its values; a tuple is left out whole where one of its values is missing, and so is a part that
    is nothing but a value which is empty.

    Raises:
        ToolMissingError: a value is missing where there has to be one.
    """
    argv: list[str] = []
    for part in parts:
        group = part if isinstance(part, tuple) else (part,)
        keys = [key for text in group for key in _PLACE.findall(text)]
        missing = [key for key in keys if key not in values]
        if missing and isinstance(part, tuple):
            continue
        if missing:
            raise ToolMissingError(f"{tool}: needs {missing[0]!r}; say it in this flash's settings")
        # Filled in once: what stands in a value is never looked at again.
        filled = [_PLACE.sub(lambda found: values[found[1]], text) for text in group]
        argv += [word for word in filled if word]
    return argv


def far(patterns: Sequence[Pattern], line: str) -> tuple[str, float | None] | None:
    """How far a line says that the tool is: `(stage, per cent)`; None where it says nothing of that."""
    for pattern in patterns:
        found = pattern.line.search(line)
        if found is None:
            continue
        groups = found.groupdict()
        if "percent" in groups:
            return pattern.stage, min(100.0, float(groups["percent"]))
        if "of" in groups:
            of = int(groups["of"])
            return pattern.stage, 100.0 * min(int(groups["done"]), of) / of if of else None
        return pattern.stage, None
    return None
