"""Boot files that users write themselves: text with `@{field}`, checked when the settings are read.

`@{` and not `${`, because iPXE, GRUB, U-Boot and the shell have that for themselves. `@@{` stands for `@{`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FIELDS: Final = {
    "agent": "the agent's name",
    "arch": "the profile's architecture",
    "address": "the board's IPv4 address",
    "board": "the board's id; empty for a board that may join",
    "cmdline": "the kernel's whole command line, with the boot's secret; in grub.cfg quoted as GRUB wants it",
    "dtb": "the name under which the device tree is fetched",
    "initrd": "the name under which the initrd is fetched",
    "kernel": "the name under which the kernel is fetched",
    "mac": "the board's first MAC address, lower case with colons",
    "mqtt": "HOST:PORT of the MQTT server for boards",
    "prefix": "the prefix of the MQTT topics",
    "profile": "the profile's name",
    "secret": "the boot's secret alone; empty for a board that may join",
    "serial": "the board's serial number",
    "server": "our own address on the board network",
    "uuid": "the board's UUID",
}
"""What may stand in `@{...}`, and what it means."""

SECRET_FIELDS: Final = frozenset({"cmdline", "secret"})
"""The only fields that carry the boot's secret."""
BOARD_FIELDS: Final = frozenset({"serial", "uuid"})
"""Fields that only some boards have."""
MUST_CARRY: Final = frozenset({"pxelinux.cfg", "boot.ipxe", "grub.cfg", "cmdline.txt"})
"""Generated files that hand the board its command line: a template in place of one must do so too."""

MAX_TEMPLATE_BYTES = 64 * 1024  # the largest script that boot programs take is far below
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}")
_TOKEN = re.compile(r"@@\{|@\{([a-z_]{1,32})\}|@\{")


class TemplateError(ValueError):
    """A template cannot be used: mend it, or the settings. The message begins with its file and line."""


@dataclass(frozen=True, slots=True)
class BootTemplate:
    """A checked template. `name` is what the board asks for; `fields` are the fields with the line of each use."""

    name: str
    path: Path
    text: str
    fields: tuple[tuple[str, int], ...]

    @property
    def carries_secret(self) -> bool:
        """Whether what it makes holds the boot's secret."""
        return any(name in SECRET_FIELDS for name, _ in self.fields)

    def render(self, values: Mapping[str, str]) -> str:
        """The text with the fields filled in.

        Raises:
            KeyError: `values` misses a field.
        """
        return _TOKEN.sub(lambda token: values[token[1]] if token[1] else "@{", self.text)


def parse(name: str, path: Path, text: str) -> BootTemplate:
    """The template `text` of the file `path`, for what boards ask for as `name`.

    Raises:
        TemplateError: a field is unknown, or is not closed; or `name` is no file name.
    """
    if _NAME.fullmatch(name) is None:
        raise TemplateError(f"{path}: {name!r} must be a file's name without folders, as boot.ipxe or grub.cfg")
    if "\0" in text:
        raise TemplateError(f"{path}:{text.count(chr(10), 0, text.index(chr(0))) + 1}: a NUL, so this is no text")
    fields = []
    for token in _TOKEN.finditer(text):
        line = text.count("\n", 0, token.start()) + 1
        field = token[1]
        if token[0] == "@{":
            raise TemplateError(
                f"{path}:{line}: '@{{' begins no field: write @{{name}}, or @@{{ for the two characters"
            )
        if field is not None and field not in FIELDS:
            raise TemplateError(f"{path}:{line}: unknown field @{{{field}}}; known are: {', '.join(FIELDS)}")
        if field is not None:
            fields.append((field, line))
    return BootTemplate(name, path, text, tuple(fields))


def load(name: str, path: Path) -> BootTemplate:
    """`parse` of the file `path`. Reads it: not for the event loop.

    Raises:
        TemplateError: as `parse`, or the file is too large or no UTF-8.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(MAX_TEMPLATE_BYTES + 1)
    if len(data) > MAX_TEMPLATE_BYTES:
        raise TemplateError(f"{path}: larger than {MAX_TEMPLATE_BYTES} octets")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TemplateError(f"{path}:{line}: not UTF-8") from error
    return parse(name, path, text)


def lacking(template: BootTemplate, *, serial: str | None, uuid: str | None) -> str | None:
    """Why a board without `serial` or `uuid` cannot be served by `template`, or None where it can."""
    have = {"serial": serial, "uuid": uuid}
    for name, line in template.fields:
        if name in BOARD_FIELDS and not have[name]:
            return f"{template.path}:{line}: @{{{name}}}: the board has no {name}"
    return None
