"""Scripts as U-Boot's `source` reads them: the legacy image (`mkimage -T script`) and FIT (`mkimage -f`). No I/O.

The same text gives the same bytes: the time in both is `timestamp_s`, 0 if nobody says otherwise.

FIT: U-Boot doc/usage/fit/source_file_format.rst. `source ADDRESS` without a name takes the image that `default` of
`/images` names (U-Boot before 2023.01), or that `script` of the default configuration names (later): both are there.
"""

import hashlib
import struct
import zlib

from firmware_tools.image import device_tree
from firmware_tools.image.device_tree import DeviceTree, Node

_HEADER = struct.Struct("!IIIIIIIBBBB32s")  # U-Boot include/image.h, struct legacy_img_hdr
_MAGIC = 0x27051956
_OS_LINUX, _TYPE_SCRIPT, _COMPRESSION_NONE = 5, 6, 0
_NAME_BYTES = 31
ARCHES = {"arm64": (22, "arm64"), "armhf": (2, "arm"), "amd64": (24, "x86_64"), "riscv64": (26, "riscv")}
"""Debian's name: the number in a legacy image, the word in a FIT (U-Boot include/image.h, boot/image.c)."""
MAX_SCRIPT_BYTES = 1024 * 1024
"""A script this long is a kernel by mistake. U-Boot itself sets no limit but its memory."""
SCRIPT_NAME = "script-1"
MAX_TIMESTAMP_S = 2**32 - 1


class ScriptError(ValueError):
    """The text cannot be a script of U-Boot. The message names the line."""


def script_bytes(text: str) -> bytes:
    """The text as U-Boot reads it: lines end with LF, the last one too.

    Raises:
        ScriptError: it is empty, too long, or has an octet that ends it early.
    """
    plain = text.replace("\r\n", "\n")
    if not plain.strip():
        raise ScriptError("the script is empty")
    for number, line in enumerate(plain.split("\n"), start=1):
        for bad, name in (("\0", "NUL"), ("\r", "a lone CR")):
            if bad in line:
                raise ScriptError(f"line {number}: {name}; a script is text")
    data = (plain if plain.endswith("\n") else plain + "\n").encode()
    if len(data) > MAX_SCRIPT_BYTES:
        raise ScriptError(f"{len(data)} bytes: a script has at most {MAX_SCRIPT_BYTES}")
    return data


def _arch(arch: str) -> tuple[int, str]:
    if arch not in ARCHES:
        raise ScriptError(f"no architecture {arch}; known: {', '.join(ARCHES)}")
    return ARCHES[arch]


def legacy_script(text: str, *, arch: str, name: str = "boardhand", timestamp_s: int = 0) -> bytes:
    """A legacy image of type script. `name` is shown by U-Boot and cut to 31 octets.

    Raises:
        ScriptError: see `script_bytes`; or the architecture is not known.
    """
    script = script_bytes(text)
    body = struct.pack("!II", len(script), 0) + script  # a list of one size, ended by 0
    kinds = (_OS_LINUX, _arch(arch)[0], _TYPE_SCRIPT, _COMPRESSION_NONE)
    fields = (len(body), 0, 0, zlib.crc32(body), *kinds, name.encode("ascii", "replace")[:_NAME_BYTES])
    crc = zlib.crc32(_HEADER.pack(_MAGIC, 0, timestamp_s, *fields))
    return _HEADER.pack(_MAGIC, crc, timestamp_s, *fields) + body


def fit_script(text: str, *, arch: str, name: str = "boardhand", timestamp_s: int = 0) -> bytes:
    """A FIT with the script as its only image, with its SHA-256.

    Raises:
        ScriptError: see `script_bytes`; or the architecture is not known.
    """
    script = script_bytes(text)
    digest = Node("hash-1", {"value": hashlib.sha256(script).digest()})
    digest.set_text("algo", "sha256")
    image = Node(SCRIPT_NAME, {"data": script}, [digest])
    for key, value in (("description", name), ("type", "script"), ("arch", _arch(arch)[1]), ("compression", "none")):
        image.set_text(key, value)
    images = Node("images", children=[image])
    images.set_text("default", SCRIPT_NAME)
    configuration = Node("conf-1")
    configuration.set_text("description", name)
    configuration.set_text("script", SCRIPT_NAME)
    configurations = Node("configurations", children=[configuration])
    configurations.set_text("default", "conf-1")
    root = Node(
        "", {"timestamp": struct.pack(">I", timestamp_s), "#address-cells": b"\0\0\0\1"}, [images, configurations]
    )
    root.set_text("description", name)
    return device_tree.write(DeviceTree(root))
