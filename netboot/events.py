"""What netboot tells its owner. The agent maps these to phases: DHCP or a config file is `netboot`, a kernel that was
sent to its end is `booting`."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["config", "kernel", "initrd", "dtb", "other"]


@dataclass(frozen=True, slots=True)
class DhcpSeen:
    """A DHCP message arrived from `mac`. `board` is None for an unknown one.

    `address` is the one given, confirmed or offered, None where nothing was given. `message_type` is the client's
    (`DISCOVER`), `answer` ours (`OFFER`, `ACK`, `NAK`, or `""` for silence).
    """

    mac: str
    board: str | None
    address: str | None
    vendor_class: str
    message_type: str
    answer: str = ""


@dataclass(frozen=True, slots=True)
class FileRequested:
    """A file was asked for by TFTP and will be sent."""

    board: str | None
    client: str
    path: str
    role: Role


@dataclass(frozen=True, slots=True)
class FileSent:
    """A file went out to its last block. `seconds` counts from the request."""

    board: str | None
    client: str
    path: str
    role: Role
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class FileFailed:
    """A transfer that had begun ended early: the client aborted it or fell silent."""

    board: str | None
    client: str
    path: str
    role: Role
    reason: str


@dataclass(frozen=True, slots=True)
class FileRefused:
    """A request was answered with an error. `missing`: an ordinary look-up that finds nothing, as boot loaders make
    them by the dozen."""

    client: str
    path: str
    reason: str
    board: str | None = None
    missing: bool = False


NetbootEvent: TypeAlias = DhcpSeen | FileRequested | FileSent | FileFailed | FileRefused
