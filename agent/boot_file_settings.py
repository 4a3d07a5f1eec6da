"""The keys of profiles and boards that say which boot files they get. What the files hold is read once, when the
settings are, so that a template's fault is told then and nothing is read later on the event loop."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from netboot import boot_loaders, boot_templates
from netboot.boot_raspberry import MAX_FILE_BYTES
from netboot.boot_templates import BootTemplate
from netboot.profile import Arch, Family
from netboot.tftp_limits import Limits


def _there(path: Path) -> Path:
    if not path.is_file():
        raise ValueError(f"{path} is not there, or is no file")
    return path.absolute()


def _folder_there(path: Path) -> Path:
    if not path.is_dir():
        raise ValueError(f"{path} is not there, or is no folder")
    return path.absolute()


FilePath = Annotated[Path, AfterValidator(_there)]
FolderPath = Annotated[Path, AfterValidator(_folder_there)]


class OwnBootFiles(BaseModel):
    """What a profile and a board may both say."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    overlays: list[FilePath] = []
    """Device-tree overlays; a board's own come after its profile's."""
    templates: dict[str, FilePath] = {}
    """Files with `@{field}`, in place of the generated boot file of this name or as a further one; a board's own come
    before its profile's."""
    _read: tuple[BootTemplate, ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _read_templates(self) -> Self:
        try:
            self._read = tuple(boot_templates.load(name, path) for name, path in self.templates.items())
        except OSError as error:
            raise ValueError(f"templates: {error}") from error
        return self

    @property
    def read_templates(self) -> tuple[BootTemplate, ...]:
        """The templates as they were when the settings were read."""
        return self._read


class TftpKeys(BaseModel):
    """What the TFTP client of these boards can take, where it is less than `[netboot]` allows all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_window: int | None = Field(default=None, ge=1, le=64)
    """Blocks for one acknowledgement."""
    max_block_bytes: int | None = Field(default=None, ge=8, le=65464)
    rollover: Literal[0, 1, "never"] = 0
    """The block number after 65535; `never`: the board stops there, and larger files are warned of in the log."""
    requests_per_s: int | None = Field(default=None, ge=0, le=100_000)
    """Beyond 90 at once; 0: without limit."""

    @property
    def limits(self) -> Limits:
        """As netboot takes them."""
        rollover = None if self.rollover == "never" else self.rollover
        return Limits(self.max_window, self.max_block_bytes, rollover, self.requests_per_s)


class BootFileKeys(OwnBootFiles):
    """What only a profile says."""

    arch: Arch = "arm64"
    family: Family = "auto"
    """Which boot program the files are for; `auto` makes those of every family that the architecture has."""
    files: dict[str, FilePath] = {}
    """Further files by the path that the board asks for."""
    folder: FolderPath | None = None
    """A folder that boards only read: the Raspberry Pi's firmware, or EFI programs and what grub-mknetdir made."""
    boot_file: str | None = None
    """What DHCP names, where it is not what the family says."""
    config_txt: list[str] = Field(default=[])
    """Further lines of a Raspberry Pi's config.txt."""
    tftp: TftpKeys | None = None
    _loaders: tuple[tuple[str, Path], ...] = PrivateAttr(default=())

    @model_validator(mode="after")
    def _find_loaders(self) -> Self:
        self._loaders = boot_loaders.find(self.arch, self.folder)
        if self.family in {"grub", "ipxe"} and not self._loaders and self.boot_file is None:
            raise ValueError(
                f"family {self.family}: there is no program for {self.arch} in `folder`, and none of Debian's"
                " (grub-efi-*-signed, grub-efi-*-bin, shim-signed, ipxe): install one, give `folder`, or `boot_file` if"
                " the board has it already"
            )
        return self

    @property
    def loaders(self) -> tuple[tuple[str, Path], ...]:
        """The boot programs that were there when the settings were read."""
        return self._loaders

    def templates_with(self, own: OwnBootFiles | None) -> tuple[BootTemplate, ...]:
        """The profile's templates with a board's own in their place."""
        found = {template.name: template for template in self.read_templates}
        found.update({template.name: template for template in (own.read_templates if own is not None else ())})
        return tuple(found.values())

    def overlays_with(self, own: OwnBootFiles | None) -> tuple[Path, ...]:
        """The profile's overlays, then a board's own."""
        return (*self.overlays, *(own.overlays if own is not None else ()))

    def too_large(self, *paths: Path | None) -> str | None:
        """Why a Raspberry Pi cannot fetch one of `paths`, None where it can."""
        if self.family != "raspberry-pi":
            return None
        for path in paths:
            if path is not None and path.stat().st_size > MAX_FILE_BYTES:
                return (
                    f"{path} has {path.stat().st_size / 1e6:.0f} MB; a Raspberry Pi's TFTP ends at"
                    f" {MAX_FILE_BYTES / 1e6:.0f} MB: make it smaller, or start U-Boot from its card (family uboot)"
                )
        return None
