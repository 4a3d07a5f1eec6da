"""Which file a client may fetch: decisions on names, no file system.

A client is known by its address. What it asks for is looked up in short lists of names: what is generated for it, what
its profile names; only a profile's folder and labgrid's are reached by a path, below their root and by the kernel's own
check (`safe_open`). So no path leads out, and whatever is answered is the asker's own: every answer holds the client
that asked. A folder before the names is tolerated (U-Boot puts the folder of its boot file there, GRUB its prefix, a
Raspberry Pi its serial number), except where it names another board.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal, TypeAlias

from netboot.boot_raspberry import NEVER_SENT
from netboot.boot_words import DTB, INITRD, KERNEL, OVERLAYS, kernel_name
from netboot.events import Role
from netboot.profile import BootProfile, Family

MAX_PATH_CHARACTERS = 512
GeneratedKind: TypeAlias = Literal["script", "pxe", "ipxe", "grub", "config", "cmdline", "text"]
"""`text` is a template that stands in for none of ours."""

TEMPLATE_NAMES: dict[GeneratedKind, str] = {
    "script": "boot.scr.uimg",
    "pxe": "pxelinux.cfg",
    "ipxe": "boot.ipxe",
    "grub": "grub.cfg",
    "config": "config.txt",
    "cmdline": "cmdline.txt",
}
"""The names of the templates that take the place of a generated file."""

_CARRIERS: frozenset[GeneratedKind] = frozenset({"pxe", "ipxe", "grub", "cmdline"})
_BY_NAME: dict[str, GeneratedKind] = {
    "boot.scr.uimg": "script",
    "boot.scr": "script",
    "extlinux.conf": "pxe",
    "boot.ipxe": "ipxe",
    "autoexec.ipxe": "ipxe",  # newer iPXE looks for it by itself, beside the program
    "config.txt": "config",
    "cmdline.txt": "cmdline",
}
_KINDS: dict[Family, frozenset[GeneratedKind]] = {
    "auto": frozenset({"script", "pxe", "ipxe", "grub"}),
    "uboot": frozenset({"script", "pxe"}),
    "ipxe": frozenset({"ipxe"}),
    "grub": frozenset({"grub"}),
    "raspberry-pi": frozenset({"config", "cmdline"}),
    "efi-stub": frozenset(),
    "raw": frozenset(),
}
_FOREIGN = "these are another board's files"
MISSING = "no such file for this board"
"""The reason of an ordinary look-up that finds nothing."""
_PXE_FOLDER = "pxelinux.cfg"
_GRUB_FILE = "grub.cfg"
_MAC = r"[0-9a-f]{2}(?:-[0-9a-f]{2}){5}"
_MAC_FOLDER = re.compile(_MAC)
_SERIAL_FOLDER = re.compile(r"[0-9a-f]{8}")
_BY_MAC = re.compile(rf"01-({_MAC})")
_BY_MAC_GRUB = re.compile(rf"(?:01-)?({_MAC})")  # GRUB up to 2.06 puts 01- before it, as PXELINUX does
_BY_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BY_ADDRESS = re.compile(r"[0-9a-f]{1,8}")
_BY_DEFAULT = re.compile(r"default(?:-[a-z0-9_]+){0,3}")
_FOLDER_PART = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9._+ ,=@~-]{0,127}")
_NO_OWNERS: Mapping[str, str | None] = {}
SERIAL_CHARACTERS = 8
"""The Raspberry Pi uses the last 8 characters of its serial number as its folder, also the Pi 5, whose number has 16
(rpi-eeprom issue 563)."""


@dataclass(frozen=True, slots=True)
class TreeClient:
    """A client as the tree sees it: `board` None for one that may join. MACs in lower case with colons. `serial` is the
    Raspberry Pi's number, of 8 or more hexadecimal digits. `staged`: its folder in labgrid's tree."""

    board: str | None
    macs: tuple[str, ...]
    address: IPv4Address
    profile: BootProfile
    uuid: str | None = None
    serial: str | None = None
    staged: str | None = None

    @property
    def folders(self) -> frozenset[str]:
        """The folders that mean this board, in lower case: its id, its MACs, its serial number, labgrid's."""
        found = {mac.replace(":", "-") for mac in self.macs}
        found |= {name.lower() for name in (self.board, self.staged) if name is not None}
        if self.serial is not None:
            found.add(self.serial[-SERIAL_CHARACTERS:].lower())
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class GeneratedFile:
    """Made at the moment it is fetched. `name` is the template's, for `text`."""

    client: TreeClient
    kind: GeneratedKind
    name: str = ""

    @property
    def template_name(self) -> str:
        """The name of the template that makes it, where the profile has one."""
        return self.name or TEMPLATE_NAMES[self.kind]

    @property
    def carries_secret(self) -> bool:
        """Whether fetching it hands out the boot's secret."""
        if self.client.board is None:
            return False
        template = self.client.profile.template(self.template_name)
        return self.kind in _CARRIERS if template is None else template.carries_secret


@dataclass(frozen=True, slots=True)
class SharedFile:
    """A file of the client's profile. `root`: the folder that no link in `path` may leave; None: its own folder."""

    client: TreeClient
    path: Path
    role: Role
    root: Path | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Not for this client. `missing`: an ordinary look-up that finds nothing (a UUID, a default), no attempt at
    anything."""

    reason: str
    missing: bool = False


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file that labgrid may have staged for this board, as `staged.resolve` finds it; `otherwise` if it has not."""

    client: TreeClient
    folder: str
    name: str
    otherwise: "GeneratedFile | SharedFile | Refused"


Lookup: TypeAlias = GeneratedFile | SharedFile | StagedFile | Refused


def look_up(
    client: TreeClient | None, path: str, *, owners: Mapping[str, str | None] = _NO_OWNERS, staging: bool = False
) -> Lookup:
    """What `client` gets for `path`. `owners`: the board that a folder, in lower case, means. `staging`: labgrid's tree
    is served too."""
    if client is None:
        return Refused("no board has this address")
    parts = [part for part in path.replace("\\", "/").split("/") if part not in {"", "."}]
    if not parts or "\0" in path or len(path) > MAX_PATH_CHARACTERS:
        return Refused("no usable path")
    if ".." in parts:
        return Refused("the path leads upwards")
    own = client.folders
    for folder in parts[:-1]:
        refused = _folder_refused(client, folder.lower(), own, owners)
        if refused is not None:
            return refused
    found = _profile_file(client, parts[1:] if len(parts) > 1 and parts[0].lower() in own else parts)
    if staging and client.staged is not None and len(parts) == 2 and parts[0] == client.staged:
        return StagedFile(client, parts[0], parts[1], found)
    return found


def _folder_refused(
    client: TreeClient, folder: str, own: frozenset[str], owners: Mapping[str, str | None]
) -> Refused | None:
    """Why a path with this folder, in lower case, is not for `client`."""
    if folder in own:
        return None
    if folder in owners or (client.macs and _MAC_FOLDER.fullmatch(folder)):
        return Refused(_FOREIGN)
    if client.serial is not None and _makes(client.profile, "config") and _SERIAL_FOLDER.fullmatch(folder):
        return Refused(f"the board has the serial number {folder}, and by the settings {client.serial}")
    return None


def _profile_file(client: TreeClient, parts: list[str]) -> "GeneratedFile | SharedFile | Refused":
    *folders, name = parts
    profile = client.profile
    asked = "/".join(parts)
    for given, path in profile.files:
        if given == asked:
            return SharedFile(client, path, "kernel" if path == profile.kernel else "other")
    if folders and folders[-1].lower() == _PXE_FOLDER:
        return _pxe(client, name.lower())
    if name.lower() == _GRUB_FILE or name.lower().startswith(f"{_GRUB_FILE}-"):
        return _grub(client, name.lower())
    found = _named(client, name)
    if found is None and folders and folders[-1] == OVERLAYS:
        found = _overlay(client, name)
    if found is None:
        found = _in_folder(client, parts)
    return found or Refused(MISSING, missing=True)


def _makes(profile: BootProfile, kind: GeneratedKind) -> bool:
    """Whether `kind` is generated for this profile."""
    if kind == "script" and profile.arch == "x86_64":
        return False
    if kind in {"config", "cmdline"} and profile.family == "auto" and profile.folder is not None:
        return True
    return kind in _KINDS[profile.family] or profile.template(TEMPLATE_NAMES[kind]) is not None


def _named(client: TreeClient, name: str) -> GeneratedFile | SharedFile | None:
    profile = client.profile
    kind = _BY_NAME.get(name)
    if kind is not None and _makes(profile, kind):
        return GeneratedFile(client, kind)
    if profile.template(name) is not None and name not in TEMPLATE_NAMES.values():
        return GeneratedFile(client, "text", name)
    named: dict[str, tuple[Path | None, Role]] = {
        **{loader: (path, "other") for loader, path in profile.loaders},
        profile.boot_file: (profile.kernel if profile.family in {"raw", "efi-stub"} else None, "kernel"),
        KERNEL: (profile.kernel, "kernel"),
        kernel_name(profile): (profile.kernel, "kernel"),
        INITRD: (profile.initrd, "initrd"),
        DTB: (profile.dtb, "dtb"),
    }
    path, role = named.get(name) or named.get(name.lower()) or (None, "other")
    return None if path is None else SharedFile(client, path, role)


def _overlay(client: TreeClient, name: str) -> SharedFile | None:
    for path in client.profile.overlays:
        if name == f"{path.name.partition('.')[0]}.dtbo":
            return SharedFile(client, path, "dtb")
    return None


def _in_folder(client: TreeClient, parts: list[str]) -> SharedFile | None:
    """A file of the profile's folder, which may not be there. Boot programs ask with a folder of their own before the
    path as well (GRUB its prefix): the path is taken as it is."""
    folder = client.profile.folder
    if folder is None or parts[-1].lower() in NEVER_SENT or not all(_FOLDER_PART.fullmatch(part) for part in parts):
        return None
    role: Role = "dtb" if parts[-1].endswith((".dtb", ".dtbo")) else "other"
    return SharedFile(client, folder.joinpath(*parts), role, folder)


def _pxe(client: TreeClient, name: str) -> GeneratedFile | Refused:
    """The custom of PXELINUX: first the UUID, then 01-MAC, then the address in hexadecimal with ever fewer digits, then
    default names. All of them mean the board itself, unless they name another."""
    if not _makes(client.profile, "pxe"):
        return Refused(MISSING, missing=True)
    verdict = _means(client, name, _BY_MAC)
    if verdict is None:
        verdict = None if _BY_DEFAULT.fullmatch(name) else Refused(MISSING, missing=True)
    elif verdict is _SELF:
        verdict = None
    return GeneratedFile(client, "pxe") if verdict is None else verdict


def _grub(client: TreeClient, name: str) -> GeneratedFile | Refused:
    """GRUB's custom (grub-core/net/net.c, `grub_net_search_config_file`): `grub.cfg-` and the UUID, the MAC or the
    address, then `grub.cfg`."""
    if not _makes(client.profile, "grub"):
        return Refused(MISSING, missing=True)
    if name == _GRUB_FILE:
        return GeneratedFile(client, "grub")
    verdict = _means(client, name.removeprefix(_GRUB_FILE).removeprefix("-"), _BY_MAC_GRUB)
    if verdict is _SELF:
        return GeneratedFile(client, "grub")
    return verdict or Refused(MISSING, missing=True)


_SELF = Refused("")  # of `_means`: the name means the client itself


def _means(client: TreeClient, name: str, by_mac: re.Pattern[str]) -> Refused | None:
    """Whom a configuration's name means: `_SELF`, a refusal, or None where it is no MAC, UUID or address."""
    mac = by_mac.fullmatch(name)
    if mac is not None:
        return _SELF if not client.macs or mac[1].replace("-", ":") in client.macs else Refused(_FOREIGN)
    if _BY_UUID.fullmatch(name) is not None:
        own = client.uuid is not None and name == client.uuid.lower()
        return _SELF if own else Refused(MISSING, missing=True)
    if _BY_ADDRESS.fullmatch(name) is not None:
        return _SELF if f"{int(client.address):08x}".startswith(name) else Refused(_FOREIGN)
    return None


class BootTree:
    """The clients of one network by address, and `look_up` for them. `staging`: labgrid's tree is served too."""

    def __init__(self, boards: Mapping[IPv4Address, TreeClient], *, staging: bool = False) -> None:
        self._boards = dict(boards)
        self._staging = staging
        self._owners: dict[str, str | None] = {}
        for board in self._boards.values():
            self._owners.update(dict.fromkeys(board.folders, board.board))

    def board_at(self, address: IPv4Address) -> TreeClient | None:
        """The known board with this address."""
        return self._boards.get(address)

    def look_up(self, address: IPv4Address, path: str, *, joining: TreeClient | None = None) -> Lookup:
        """What the client at `address` gets for `path`. `joining`: who it is when it is no known board."""
        client = self._boards.get(address, joining)
        return look_up(client, path, owners=self._owners, staging=self._staging)
