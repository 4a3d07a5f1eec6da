"""What netboot tells its owner. The agent maps these to phases: DHCP or a config file is `netboot`, a kernel that was
sent to its end is `booting`."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Role: TypeAlias = Literal["config", "kernel", "initrd", "dtb", "other"]
FileVia: TypeAlias = Literal["tftp", "http"]
"""The protocol by which a file was asked for."""


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
    """A file was asked for and will be sent. `number` is the request's own, to tell its end from another's; 0 where it
    has none."""

    board: str | None
    client: str
    path: str
    role: Role
    via: FileVia = "tftp"
    number: int = 0


@dataclass(frozen=True, slots=True)
class FileSent:
    """A file went out to its last block. `seconds` counts from the request, `resent` the packets that were sent
    again."""

    board: str | None
    client: str
    path: str
    role: Role
    size_bytes: int
    seconds: float
    resent: int = 0
    via: FileVia = "tftp"
    number: int = 0


@dataclass(frozen=True, slots=True)
class FilePart:
    """A request for less than the file was answered: for its size alone, or for a range."""

    board: str | None
    client: str
    path: str
    role: Role
    size_bytes: int
    seconds: float
    via: FileVia = "http"
    number: int = 0


@dataclass(frozen=True, slots=True)
class FileFailed:
    """A transfer that had begun ended early: the client aborted it or fell silent. `size_bytes` is the file's."""

    board: str | None
    client: str
    path: str
    role: Role
    reason: str
    size_bytes: int = 0
    seconds: float = 0.0
    resent: int = 0
    via: FileVia = "tftp"
    number: int = 0


@dataclass(frozen=True, slots=True)
class FileRefused:
    """A request was answered with an error. `missing`: an ordinary look-up that finds nothing, as boot loaders make
    them by the dozen."""

    client: str
    path: str
    reason: str
    board: str | None = None
    missing: bool = False
    via: FileVia = "tftp"
    number: int = 0
    """Where the file was promised first and then could not be opened."""


NetbootEvent: TypeAlias = DhcpSeen | FileRequested | FileSent | FilePart | FileFailed | FileRefused
