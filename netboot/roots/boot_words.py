"""What a board's kernel is told so that it runs from a root: words for its command line, a script for its initramfs.

| form | who mounts | what the kernel needs |
|---|---|---|
| initramfs | `root_init.sh` in our initramfs | modules nfsv4 (and overlay for memory), in the initramfs |
| kernel | the kernel itself | NFS v4 and the network card built in; `Documentation/admin-guide/nfs/nfsroot.rst` |

With `memory`, what a board writes stays in its memory and the server's disk is never written: the root is exported read
only and laid under a tmpfs. An upper layer on NFS is not offered: the kernel's overlay takes none.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType

from netboot.roots.errors import RootError

INIT_PATH = "/lib/boardhand/root-init.sh"
MODULES = ("nfsv4", "overlay")
"""Kernel modules that the initramfs needs beside those for the network card."""
NFS_OPTIONS = "vers=4.2,proto=tcp,hard"
"""hard: a board whose server is away waits for it, and goes on; with soft it would get errors and lose writes."""


class Upper(StrEnum):
    """Where a board's own writes go."""

    SERVER = "server"
    """Into its view on the server: bounded by the disk, can be saved as a new root."""
    MEMORY = "memory"
    """Into its memory: gone with its power, cannot be saved."""


class RootForm(StrEnum):
    """Who mounts the root on the board."""

    INITRAMFS = "initramfs"
    KERNEL = "kernel"


@dataclass(frozen=True, slots=True)
class NfsRoot:
    """Where a board's root is. `path` as the board mounts it: its view, or for `memory` the root itself, read only;
    `identity` then is the path of the small tree that makes the board itself. `init` None: what the root has.

    Raises:
        RootError: the parts do not go together.
    """

    server: IPv4Address
    path: str
    upper: Upper = Upper.SERVER
    form: RootForm = RootForm.INITRAMFS
    identity: str | None = None
    init: str | None = None
    port: int = 2049

    def __post_init__(self) -> None:
        if self.upper is Upper.MEMORY and self.form is RootForm.KERNEL:
            raise RootError("a root with its writes in memory needs an initramfs: the kernel alone lays no overlay")
        for text in (self.path, self.identity or "/", self.init or "/"):
            if not text.startswith("/") or not text.isascii() or not text.isprintable() or set(text) & set(" ,'\"$;\\"):
                raise RootError(f"{text!r} cannot stand on a kernel's command line as a path")


def kernel_words(root: NfsRoot) -> list[str]:
    """Words for the kernel's command line."""
    options = NFS_OPTIONS if root.port == 2049 else f"{NFS_OPTIONS},port={root.port}"
    if root.form is RootForm.KERNEL:
        words = ["root=/dev/nfs", f"nfsroot={root.server}:{root.path},{options}", "ip=dhcp", "rw"]
        return words if root.init is None else [*words, f"init={root.init}"]
    words = [f"rdinit={INIT_PATH}", f"boardhand.root={root.server}:{root.path}", f"boardhand.root_options={options}"]
    words.append(f"boardhand.root_upper={root.upper}")
    if root.identity is not None:
        words.append(f"boardhand.root_identity={root.server}:{root.identity}")
    if root.init is not None:
        words.append(f"boardhand.root_init={root.init}")
    return words


def initramfs_files() -> MappingProxyType[str, bytes]:
    """`extra_files` for `firmware_tools.initramfs.build_board_initramfs`: the script that `rdinit=` names. An image
    with it still boots as before without these words."""
    return MappingProxyType({INIT_PATH: Path(__file__).with_name("root_init.sh").read_bytes()})
