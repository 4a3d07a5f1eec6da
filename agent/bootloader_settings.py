"""`[boards.NAME.bootloader]` of the agent's settings: how a board's boot loader is spoken to."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from agent.settings_table import Key, Table
from firmware_tools.bootloader.dialect import Kind
from firmware_tools.bootloader.pacing import Pace
from firmware_tools.bootloader.shell import LINE_MOST

if TYPE_CHECKING:
    from agent.settings import BoardTable

Words = Annotated[str, Field(min_length=1, max_length=64)]


class BootloaderTable(Table):
    """`[boards.NAME.bootloader]`; a board with a console and without it has all defaults."""

    kind: Kind = Kind.U_BOOT
    prompt: Words | None = None
    """As it stands at the line's begin, as `=> `; what looks like one where it is not given. Either is asked."""
    stop: Words | None = None
    """What stops the countdown, as `stop` or `\\u001b\\u001b`; what its message says, or any key, where not given."""
    char_delay_ms: float = Field(default=0.0, ge=0, le=1000)
    """Between two characters that are typed."""
    line_delay_ms: float = Field(default=0.0, ge=0, le=10_000)
    """After a typed line, beside that."""
    wait_for_echo: bool = False
    """Type a character when the one before has been echoed, or after 0.2 s."""
    line_most: int = Field(default=LINE_MOST, ge=120, le=8192)
    """Characters that it takes in one line: U-Boot's CONFIG_SYS_CBSIZE, less some."""
    catch_s: float = Field(default=60.0, ge=2, le=600)
    """From power on to its prompt."""
    catch_tries: int = Field(default=2, ge=1, le=5)
    """How often the power is cycled for that."""
    hold_s: float = Field(default=3600.0, ge=60, le=7 * 86400)
    """How long a caught board may stand at its prompt before it counts as one that did not come up."""
    netboot: Literal["environment", "dialogue"] = "environment"
    """`dialogue`: at each power on the agent stops it and has it boot from the net: its environment does not."""
    boot_commands: list[Annotated[str, Field(min_length=1, max_length=2000)]] = Field(default=[], max_length=50)
    """What to type to boot from the net, in place of DHCP, TFTP and our script; `{server}`, `{address}`, `{netmask}`
    and `{boot_file}` are filled in."""
    boot_s: float = Field(default=600.0, ge=10, le=7200)
    """From the last of those commands to the kernel's first word."""

    @field_validator("boot_commands")
    @classmethod
    def _can_be_typed(cls, commands: list[str]) -> list[str]:
        for command in commands:
            if not command.isascii() or not command.isprintable():
                raise ValueError(f"{command!r} must be one line of printable ASCII characters")
        return commands

    @field_validator("stop", "prompt")
    @classmethod
    def _is_ascii(cls, words: str | None) -> str | None:
        if words is not None and not words.isascii():
            raise ValueError("ASCII characters only")
        return words

    @property
    def pace(self) -> Pace:
        return Pace(self.char_delay_ms / 1000, self.line_delay_ms / 1000, self.wait_for_echo)


def contradictions(boards: "Mapping[str, BoardTable]", *, has_netboot: bool) -> Iterator[tuple[Key, str]]:
    """What is right alone and wrong together, with the key to change."""
    for name, board in boards.items():
        table = board.bootloader
        if table is None:
            continue
        key = ("boards", name, "bootloader")
        if board.console is None:
            yield key, "a boot loader is spoken to over the board's console: give it one"
        if table.netboot != "dialogue":
            continue
        if table.boot_commands:
            continue
        if table.kind is Kind.BAREBOX:
            yield (*key, "boot_commands"), "are needed: barebox takes no U-Boot script"
        if board.profile is None or board.address is None or not has_netboot:
            message = "to boot from the net the board needs an address and a profile, and the agent [netboot]"
            yield (*key, "netboot"), f"{message}; or give boot_commands"
