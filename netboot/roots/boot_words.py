"""What a board's kernel is told so that it runs from a root: words for its command line, a script for its initramfs.

| form | who mounts | what the kernel needs |
|---|---|---|
| initramfs | `root_init.sh` in our initramfs | modules nfsv4 (and overlay for memory), in the initramfs |
| kernel | the kernel itself | NFS v4 and the network card built in; `Documentation/admin-guide/nfs/nfsroot.rst` |

| `boardhand.root_upper=` | where the board's own writes go |
|---|---|
| `server` | into its view on the server: `boardhand.root` is that view, mounted to be written |
| `memory` | into a tmpfs, laid over `boardhand.root_identity` (copied first) and `boardhand.root`, both read only |
| `nfs` | into the ext4 file system in the file `upper.img` of `boardhand.root_disk`; laid over the same two |

For `nfs` the disk is mounted to be written, and its file by a loop device: the kernel's overlay takes no NFS as its
upper layer, but a loop does. Paths of NFS stand as `ADDRESS:PATH` and are mounted with `boardhand.root_options`;
`boardhand.root_init` is the root's init where it is not the usual one.
"""

from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path
from types import MappingProxyType

from netboot.roots.errors import RootError

INIT_PATH = "/lib/boardhand/root-init.sh"
MODULES = ("nfsv4", "overlay", "loop", "crc32c_generic", "ext4")
"""Kernel modules that the initramfs needs beside those for the network card; the last three for `nfs` alone.
Nothing names crc32c_generic as what ext4 depends on: the kernel asks for it by its purpose when it mounts."""
NFS_PORT = 2049
DISK_NAME = "upper.img"
NFS_OPTIONS = "vers=4.2,proto=tcp,hard"
"""hard: a board whose server is away waits for it, and goes on; with soft it would get errors and lose writes."""
NO_FSTAB = "fstab=no"
"""systemd-fstab-generator(8): a root that was a disk's names partitions in its fstab, and systemd would wait 90 s for
them and then give up. Other inits do not know the word."""
NFS3_OPTIONS = "vers=3,proto=tcp,nolock,hard"


class Upper(StrEnum):
    """Where a board's own writes go."""

    SERVER = "server"
    """Into its view on the server: bounded by the disk, can be saved as a new root."""
    MEMORY = "memory"
    """Into its memory: gone with its power, cannot be saved."""
    NFS = "nfs"
    """Into a file system in one file on the server: bounded by its size, can be saved while the board is off."""


class RootForm(StrEnum):
    """Who mounts the root on the board."""

    INITRAMFS = "initramfs"
    KERNEL = "kernel"


@dataclass(frozen=True, slots=True)
class NfsRoot:
    """Where a board's root is. `path` as the board mounts it: its view, or for `memory` and `nfs` the root itself, read
    only; `identity` then is the path of the small tree that makes the board itself, `disk` (`nfs`) that of the folder
    with its `upper.img`. `init` None: what the root has. `v3`: NFSv3 in place of 4.2.

    Raises:
        RootError: the parts do not go together.
    """

    server: IPv4Address
    path: str
    upper: Upper = Upper.SERVER
    form: RootForm = RootForm.INITRAMFS
    identity: str | None = None
    init: str | None = None
    port: int = NFS_PORT
    disk: str | None = None
    v3: bool = False

    def __post_init__(self) -> None:
        if self.upper is not Upper.SERVER and self.form is RootForm.KERNEL:
            raise RootError(f"a root with its writes in {self.upper} needs an initramfs: the kernel lays no overlay")
        if (self.upper is Upper.NFS) != (self.disk is not None):
            raise RootError("a disk goes with writes into nfs, and with nothing else")
        for text in (self.path, self.identity or "/", self.disk or "/", self.init or "/"):
            if not text.startswith("/") or not text.isascii() or not text.isprintable() or set(text) & set(" ,'\"$;\\"):
                raise RootError(f"{text!r} cannot stand on a kernel's command line as a path")


def kernel_words(root: NfsRoot) -> list[str]:
    """Words for the kernel's command line."""
    options = NFS3_OPTIONS if root.v3 else NFS_OPTIONS
    if root.port != NFS_PORT:
        options += f",port={root.port}"
    if root.form is RootForm.KERNEL:
        words = ["root=/dev/nfs", f"nfsroot={root.server}:{root.path},{options}", "ip=dhcp", "rw", NO_FSTAB]
        return words if root.init is None else [*words, f"init={root.init}"]
    words = [f"rdinit={INIT_PATH}", f"boardhand.root={root.server}:{root.path}", f"boardhand.root_options={options}"]
    words.append(f"boardhand.root_upper={root.upper}")
    if root.identity is not None:
        words.append(f"boardhand.root_identity={root.server}:{root.identity}")
    if root.disk is not None:
        words.append(f"boardhand.root_disk={root.server}:{root.disk}")
    words.append(NO_FSTAB)
    if root.init is not None:
        words.append(f"boardhand.root_init={root.init}")
    return words


def initramfs_files() -> MappingProxyType[str, bytes]:
    """`extra_files` for `firmware_tools.initramfs.build_board_initramfs`: the script that `rdinit=` names. An image
    with it still boots as before without these words."""
    return MappingProxyType({INIT_PATH: Path(__file__).with_name("root_init.sh").read_bytes()})
