"""Which file a client may fetch by TFTP: decisions on names, no file system.

A client is known by its address. What it asks for is looked up in a short list of names, never joined to a folder, so
no path can lead out. A folder before the names is tolerated (U-Boot puts the folder of its boot file there), except
where it names another board.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal, TypeAlias

from netboot.boot_files import DTB, INITRD, KERNEL, kernel_name
from netboot.events import Role
from netboot.profile import BootProfile

MAX_PATH_CHARACTERS = 512
GeneratedKind: TypeAlias = Literal["script", "pxe", "ipxe"]
_FOREIGN = "these are another board's files"
_MISSING = "no such file for this board"
_PXE_FOLDER = "pxelinux.cfg"
_BY_MAC = re.compile(r"01-([0-9a-f]{2}(?:-[0-9a-f]{2}){5})")
_BY_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BY_ADDRESS = re.compile(r"[0-9a-f]{1,8}")
_BY_DEFAULT = re.compile(r"default(?:-[a-z0-9_]+){0,3}")


@dataclass(frozen=True, slots=True)
class TreeClient:
    """A client as the tree sees it: `board` None for one that may join. MACs in lower case with colons."""

    board: str | None
    macs: tuple[str, ...]
    address: IPv4Address
    profile: BootProfile
    uuid: str | None = None


@dataclass(frozen=True, slots=True)
class GeneratedFile:
    """Made at the moment it is fetched. `carries_secret`: it holds the command line."""

    client: TreeClient
    kind: GeneratedKind

    @property
    def carries_secret(self) -> bool:
        """Whether fetching it hands out the boot's secret."""
        return self.kind != "script" and self.client.board is not None


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file of the client's profile."""

    client: TreeClient
    path: Path
    role: Role


@dataclass(frozen=True, slots=True)
class Refused:
    """Not for this client. `missing`: an ordinary look-up that finds nothing (a UUID, a default), no attempt at
    anything."""

    reason: str
    missing: bool = False


Lookup: TypeAlias = GeneratedFile | SharedFile | Refused


def look_up(client: TreeClient | None, path: str, *, other_boards: Collection[str] = ()) -> Lookup:
    """What `client` gets for `path`. `other_boards` are the ids of the boards that it is not."""
    if client is None:
        return Refused("no board has this address")
    parts = [part for part in path.replace("\\", "/").split("/") if part not in {"", "."}]
    if not parts or "\0" in path or len(path) > MAX_PATH_CHARACTERS:
        return Refused("no usable path")
    if ".." in parts:
        return Refused("the path leads upwards")
    *folders, name = parts
    if any(folder in other_boards for folder in folders):
        return Refused(_FOREIGN)
    return _pxe(client, name.lower()) if folders and folders[-1] == _PXE_FOLDER else _named(client, name)


def _named(client: TreeClient, name: str) -> Lookup:
    profile = client.profile
    if profile.arch != "x86_64" and name in {"boot.scr.uimg", "boot.scr"}:
        return GeneratedFile(client, "script")
    if name == "boot.ipxe":
        return GeneratedFile(client, "ipxe")
    if name in {KERNEL, kernel_name(profile)}:
        return SharedFile(client, profile.kernel, "kernel")
    if name == INITRD and profile.initrd is not None:
        return SharedFile(client, profile.initrd, "initrd")
    if name == DTB and profile.dtb is not None:
        return SharedFile(client, profile.dtb, "dtb")
    return Refused(_MISSING, missing=True)


def _pxe(client: TreeClient, name: str) -> Lookup:
    """The custom of PXELINUX: first the UUID, then 01-MAC, then the address in hexadecimal with ever fewer digits, then
    default names. All of them mean the board itself, unless they name another."""
    by_mac = _BY_MAC.fullmatch(name)
    if by_mac is not None:
        own, foreign = not client.macs or by_mac[1].replace("-", ":") in client.macs, True
    elif _BY_UUID.fullmatch(name) is not None:
        own, foreign = client.uuid is not None and name == client.uuid.lower(), False
    elif _BY_ADDRESS.fullmatch(name) is not None:
        own, foreign = f"{int(client.address):08x}".startswith(name), True
    else:
        own, foreign = _BY_DEFAULT.fullmatch(name) is not None, False
    if own:
        return GeneratedFile(client, "pxe")
    return Refused(_FOREIGN) if foreign else Refused(_MISSING, missing=True)


class BootTree:
    """The clients of one network by address, and `look_up` for them."""

    def __init__(self, boards: Mapping[IPv4Address, TreeClient]) -> None:
        self._boards = dict(boards)

    def board_at(self, address: IPv4Address) -> TreeClient | None:
        """The known board with this address."""
        return self._boards.get(address)

    def look_up(self, address: IPv4Address, path: str, *, joining: TreeClient | None = None) -> Lookup:
        """What the client at `address` gets for `path`. `joining`: who it is when it is no known board."""
        client = self._boards.get(address, joining)
        own = client.board if client is not None else None
        names = {board.board for board in self._boards.values() if board.board is not None and board.board != own}
        return look_up(client, path, other_boards=names)
