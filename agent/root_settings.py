"""`[roots]` of the agent's settings, and the keys of a profile that say what root a board runs from."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from agent.settings_table import Key, Table
from netboot.profile import MAX_CMDLINE_BYTES, MAX_CMDLINE_SHORT_BYTES
from wire.names import Id

if TYPE_CHECKING:
    from agent.netboot_settings import ProfileTable
    from agent.settings import AgentSettings

NFS_PORT = 2049
ROOT_WORDS_BYTES = 420
"""At most: what stands on the command line of a board that runs from here, with names and paths of usual length."""
AuthorisedKey = Annotated[str, Field(pattern=r"^[\x20-\x7e]{16,16384}$")]


class RootsTable(Table):
    """`[roots]`: where roots and the boards' views of them lie, and which NFS server boards reach them by."""

    dir: Path
    """Roots, views and what was thrown away, on one file system that takes overlays: ext4, xfs or btrfs."""
    engine: Literal["ganesha", "ganesha-service", "kernel"] = "ganesha"
    """`ganesha`: a child of the agent. `ganesha-service`: one that systemd runs, told by D-Bus. `kernel`: exportfs."""
    port: int = Field(default=NFS_PORT, ge=1, le=65535)
    nfs3: bool = False
    """NFSv3 in place of v4.2, for kernels without v4; needs rpcbind."""
    authorised_keys: list[AuthorisedKey] = Field(default=[])
    """Lines of authorized_keys: who may log in as root on every board that runs from a root."""
    upper_gib: int = Field(default=16, ge=1, le=16384)
    """How much a board may write with root_view `client-nfs`, in GiB; the file takes what is written."""


class RootKeys(BaseModel):
    """What a profile says of the root."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: Id | None = None
    """A root that was imported."""
    root_view: Literal["server", "client-memory", "client-nfs"] = "server"
    """Where the board's own writes go: into its view here, its memory, or a file system of its own over NFS."""
    root_reset: Literal["boot", "job", "never"] = "boot"
    """When it gets the root as it was imported again."""
    root_mount: Literal["initramfs", "kernel"] | None = None
    """Who mounts it on the board. None: our initramfs if there is an initrd, else the kernel."""
    root_init: str | None = Field(default=None, pattern=r"^/[!-~]{0,200}$")
    """The root's first program, where it is not /sbin/init or systemd."""

    def mounts_by(self, *, initrd: bool) -> Literal["initramfs", "kernel"]:
        """Who mounts the root, in a profile with or without an initrd."""
        return self.root_mount or ("initramfs" if initrd else "kernel")


def contradictions(settings: "AgentSettings") -> Iterator[tuple[Key, str]]:
    """What is right alone and wrong together, with the key to change."""
    table = settings.roots
    if table is not None and settings.netboot is None:
        yield ("roots",), "boards run from a root by netboot, and there is no [netboot] table"
    if table is not None and table.engine == "kernel" and table.port != NFS_PORT:
        yield ("roots", "port"), f"the kernel's server listens at {NFS_PORT}; take engine ganesha for another port"
    for name, profile in settings.profiles.items():
        if profile.root is not None:
            for key, what in _profile_fits(profile):
                yield ("profiles", name, key), what
            if table is None:
                yield ("profiles", name, "root"), "a root needs a store, and there is no [roots] table"


def _profile_fits(profile: "ProfileTable") -> Iterator[tuple[str, str]]:
    mounts = profile.mounts_by(initrd=profile.initrd is not None)
    if profile.family in {"efi-stub", "raw"}:
        yield "root", f"family {profile.family} gives the kernel no command line, so it cannot be told of a root"
    if mounts == "initramfs" and profile.initrd is None:
        yield "root_mount", 'there is no initrd: give boardhand\'s, or say root_mount = "kernel"'
    if mounts == "kernel" and profile.root_view != "server":
        yield "root_view", f'{profile.root_view} needs boardhand\'s initramfs: the kernel alone takes "server"'
    if any(word.startswith(("root=", "nfsroot=", "rdinit=")) for word in profile.cmdline.split()):
        yield "cmdline", "root=, nfsroot= and rdinit= come from the profile's root: leave them out"
    limit = MAX_CMDLINE_SHORT_BYTES if profile.arch in {"arm", "riscv64"} else MAX_CMDLINE_BYTES
    if len(profile.cmdline.encode()) > limit - ROOT_WORDS_BYTES:
        yield "cmdline", f"with a root it may have {limit - ROOT_WORDS_BYTES} octets: the root's words stand there, too"
