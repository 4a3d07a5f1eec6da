"""What a board boots next, where that is not its standing profile: a profile by name, or files by URL and checksum.

The choice holds from when it is made until the board loses its power after that boot has registered: a board that hangs
on the way and is cycled boots the chosen profile again, and one that was up is back at its standing profile. Nothing
is counted. No I/O here; the files and the netboot server are `boot_files_desk`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from netboot.profile import Family
from wire.names import Id
from wire.payloads import Token

Sha256 = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$")]


class ChosenFile(BaseModel):
    """One file of a chosen boot.

    Attributes:
        url: `http://` or `https://`; only what has the checksum is booted.
        sha256: may be left out where `[netboot.fetch] checksum` is `optional`.
        name: the file's name as the board asks for it, where the URL's last part is none. Its ending matters: U-Boot
            unpacks a `.gz`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, Field(min_length=8, max_length=2048)]
    sha256: Sha256 | None = None
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}$")] | None = None

    @property
    def file_name(self) -> str:
        """How the file is called for the board."""
        last = self.url.split("?", 1)[0].split("#", 1)[0].rstrip("/").rpartition("/")[2]
        usable = "".join(letter for letter in last if letter.isascii() and (letter.isalnum() or letter in "._+-"))
        return self.name or usable.lstrip("._+-")[:64] or "file"


MAX_OVERLAYS = 16
"""Each is a file more to fetch and to ask for; a board with more wants a device tree of its own."""


def overlay_part(number: int) -> str:
    """What the overlay at this place in the order is called among the parts of a boot."""
    return f"overlay-{number}"


class BootRequest(BaseModel):
    """The data of `agent/<agent>/request/boot`.

    Either `profile` names one of the agent's profiles, or `kernel` and the rest describe one, or neither: the board
    then goes back to its standing profile.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    board: Id
    token: Token | None = None
    """That of the board's lease, where somebody holds one."""
    profile: Id | None = None
    kernel: ChosenFile | None = None
    initrd: ChosenFile | None = None
    dtb: ChosenFile | None = None
    overlays: Annotated[list[ChosenFile], Field(max_length=MAX_OVERLAYS)] = Field(default=[])
    """Device-tree overlays, in the order in which they are applied."""
    cmdline: Annotated[str, Field(max_length=1536)] = ""
    arch: Literal["arm64", "arm", "x86_64", "riscv64"] | None = None
    """Where it is not that of the board's standing profile."""
    family: Family | None = None
    """How the board asks for its files, where it is not as its standing profile says."""
    root: Id | None = None
    """A root of the agent's; its view is made as the standing profile says. None: no root."""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        parts = (self.kernel, self.initrd, self.dtb, self.family, self.root)
        described = any(part is not None for part in parts) or self.cmdline != "" or bool(self.overlays)
        if self.profile is not None and described:
            raise ValueError("profile names what to boot already: leave out kernel, initrd and whatever describes one")
        if described and self.kernel is None:
            raise ValueError("kernel: is needed with initrd, dtb, overlays, cmdline, family or root")
        return self

    @property
    def chooses(self) -> bool:
        """Whether it asks for anything but the standing profile."""
        return self.profile is not None or self.kernel is not None

    @property
    def files(self) -> dict[str, ChosenFile]:
        """What has to be fetched, by its part in the boot."""
        parts = {"kernel": self.kernel, "initrd": self.initrd, "dtb": self.dtb}
        parts |= {overlay_part(number): file for number, file in enumerate(self.overlays)}
        return {part: file for part, file in parts.items() if file is not None}

    def pinned(self, sha256: Mapping[str, str]) -> "BootRequest":
        """The same with these checksums by part, so that it means the same files after a restart."""
        pinned = {
            part: file.model_copy(update={"sha256": sha256[part]}) if part in sha256 else file
            for part, file in self.files.items()
        }
        overlays = [pinned.pop(overlay_part(number)) for number in range(len(self.overlays))]
        return self.model_copy(update={**pinned, "overlays": overlays})


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice that holds. `registered`: the boot that it was made for is up, or was."""

    request: BootRequest
    registered: bool = False


class BootChoices:
    """The choices of one agent's boards."""

    def __init__(self, stored: dict[str, object] | None = None) -> None:
        """`stored` is what `state` gave before a restart; what cannot be read in it is dropped."""
        self._choices: dict[str, Choice] = {}
        for board, item in (stored or {}).items():
            if isinstance(item, dict):
                try:
                    request = BootRequest.model_validate(item.get("request"))
                except ValueError:
                    continue
                self._choices[board] = Choice(request, item.get("registered") is True)

    def state(self) -> dict[str, object]:
        """Everything, as plain JSON values."""
        return {
            board: {"request": choice.request.model_dump(mode="json"), "registered": choice.registered}
            for board, choice in self._choices.items()
        }

    @property
    def boards(self) -> list[str]:
        """The boards with a choice."""
        return list(self._choices)

    def get(self, board: str) -> BootRequest | None:
        """What was chosen for the board's next boot."""
        choice = self._choices.get(board)
        return None if choice is None else choice.request

    def choose(self, request: BootRequest) -> None:
        """Take a choice, or the standing profile again."""
        if request.chooses:
            self._choices[request.board] = Choice(request)
        else:
            self._choices.pop(request.board, None)

    def registered(self, board: str) -> bool:
        """The board has proved that it is up; returns whether that changed anything to be stored."""
        choice = self._choices.get(board)
        if choice is None or choice.registered:
            return False
        self._choices[board] = Choice(choice.request, registered=True)
        return True

    def power_lost(self, board: str) -> bool:
        """The board lost its power; returns whether it is back at its standing profile by that."""
        choice = self._choices.get(board)
        if choice is None or not choice.registered:
            return False
        del self._choices[board]
        return True
