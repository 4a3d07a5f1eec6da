"""What an image is to be made of: the model of an `image.toml`. docs/images.md has every key with its reason."""

import re
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator

BASE_PACKAGES = (
    "base-files", "base-passwd", "bash", "bsdutils", "coreutils", "dash", "debianutils", "diffutils", "dpkg",
    "findutils", "grep", "gzip", "hostname", "init-system-helpers", "iproute2", "kmod", "libc-bin", "login", "mount",
    "ncurses-base", "ncurses-bin", "openssh-server", "passwd", "perl-base", "procps", "sed", "systemd", "systemd-sysv",
    "sysvinit-utils", "tar", "usr-is-merged", "util-linux",
)  # fmt: skip
"""Debian's essential packages, which others may count on without saying so, and what makes a system of them that
starts and lets its owner in by SSH."""
CLIENT_PACKAGES = ("python3-minimal", "libpython3-stdlib")
"""What the board's client runs on."""
NOT_ON_BOARDS = (
    "usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian", "usr/share/bug",
)  # fmt: skip
"""Nobody reads manuals on a board, and each file is one more to import, to check and to delete."""
MAX_TEXT_BYTES = 64 * 1024
"""A longer file is one of its own, named by `source`."""

Arch = Literal["arm64", "armhf", "riscv64", "amd64"]
Output = Literal["tar", "tar.zst", "tar.xz", "tar.gz", "cpio.gz", "ext4", "disk"]
PackageName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9+.-]+$", max_length=128)]
UserName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,30}$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\n\r:]*$", max_length=255)]
_MODE = re.compile(r"[0-7]{3,4}")
_OWNER = re.compile(r"[0-9]{1,9}:[0-9]{1,9}")
_SIZE = re.compile(r"([0-9]{1,9})([MG])")


class _Table(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


def plain_path(path: str) -> str:
    """A path inside the image, without the `/` before it.

    Raises:
        ValueError: it is not absolute and plain.
    """
    parts = path.split("/")
    if not path.startswith("/") or any(part in {"", ".", ".."} for part in parts[1:]) or not path.isprintable():
        raise ValueError(f"{path!r} is no path in the image: write /etc/motd, without '.', '..' and '//'")
    return str(PurePosixPath(path))[1:]


class FileTable(_Table):
    """`[[file]]`: one file to lay in, over what packages have there."""

    path: str
    source: str | None = None
    text: str | None = Field(default=None, max_length=MAX_TEXT_BYTES)
    mode: str = "0644"
    owner: str = "0:0"

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        return plain_path(value)

    @field_validator("mode")
    @classmethod
    def _mode(cls, value: str) -> str:
        if _MODE.fullmatch(value) is None:
            raise ValueError(f"{value!r}: write the mode in octal, as '0755'")
        return value

    @field_validator("owner")
    @classmethod
    def _owner(cls, value: str) -> str:
        if _OWNER.fullmatch(value) is None:
            raise ValueError(f"{value!r}: write numbers of user and group, as '1000:1000'")
        return value

    @model_validator(mode="after")
    def _one_content(self) -> "FileTable":
        if (self.source is None) == (self.text is None):
            raise ValueError("say either source (a file beside this one) or text")
        return self


class UserTable(_Table):
    """`[[user]]`: somebody who may log in. Passwords come as hashes, from a file; keys too."""

    name: UserName
    uid: int | None = Field(default=None, ge=1000, le=59999)
    shell: Line = "/bin/bash"
    gecos: Line = ""
    groups: tuple[UserName, ...] = ()
    password_file: str | None = None
    ssh_keys: str | None = None


class KernelTable(_Table):
    """`[kernel]`: the kernel that comes out beside the root."""

    modules: bool = False
    dtbs: tuple[str, ...] = ()
    cmdline: str = Field(default="", max_length=1024, pattern=r"^[^\x00-\x1f\x7f]*$")


class Recipe(_Table):
    """The whole of an `image.toml`."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
    arch: Arch
    suite: Annotated[str, StringConstraints(pattern=r"^[a-z]+$")] | None = None
    mirror: Annotated[str, StringConstraints(pattern=r"^https?://[^\s\[\]]+$")] | None = None
    security_mirror: Annotated[str, StringConstraints(pattern=r"^https?://[^\s\[\]]+$")] | None = None
    keyring: str | None = None
    components: tuple[Annotated[str, StringConstraints(pattern=r"^[a-z-]+$")], ...] = ("main",)
    snapshot: datetime | None = None
    base: tuple[PackageName, ...] = BASE_PACKAGES
    packages: tuple[PackageName, ...] = ()
    client: bool = True
    leave_out: tuple[str, ...] = NOT_ON_BOARDS
    services_on: tuple[str, ...] = ()
    services_off: tuple[str, ...] = ()
    network: Literal["dhcp", "none"] | None = None
    package_database: bool = True
    size: str = "2G"
    outputs: tuple[Output, ...] = ("tar.zst",)
    file: tuple[FileTable, ...] = ()
    user: tuple[UserTable, ...] = ()
    kernel: KernelTable | None = None

    @field_validator("size")
    @classmethod
    def _size(cls, value: str) -> str:
        if _SIZE.fullmatch(value) is None:
            raise ValueError(f"{value!r}: write a size as '800M' or '2G' (of 1024s)")
        return value

    @field_validator("snapshot")
    @classmethod
    def _snapshot(cls, value: datetime | None) -> datetime | None:
        return value if value is None or value.tzinfo is not None else value.replace(tzinfo=UTC)

    @model_validator(mode="after")
    def _together(self) -> "Recipe":
        if self.mirror is not None and self.suite is None:
            raise ValueError('mirror needs suite: which Debian it is, as suite = "bookworm"')
        if self.mirror is None and (self.snapshot or self.security_mirror):
            raise ValueError("snapshot and security_mirror go with mirror: without one, this host's apt sources count")
        if len(set(self.outputs)) != len(self.outputs) or not self.outputs:
            raise ValueError("outputs: name each form once, and at least one")
        return self

    @property
    def size_bytes(self) -> int:
        """Size of the file system in an ext4 or disk image."""
        found = _SIZE.fullmatch(self.size)
        return int(found[1]) * (1024**2 if found[2] == "M" else 1024**3) if found else 0

    @property
    def all_packages(self) -> tuple[str, ...]:
        """Packages asked for, without what they depend on, sorted."""
        wanted = {*self.base, *self.packages, *(CLIENT_PACKAGES if self.client else ())}
        return tuple(sorted(wanted))

    @property
    def has_own_network(self) -> bool:
        """Whether the root asks for its address itself: not where it runs over NFS, whose address is there before."""
        if self.network is not None:
            return self.network == "dhcp"
        return bool({"ext4", "disk", "cpio.gz"} & set(self.outputs))
