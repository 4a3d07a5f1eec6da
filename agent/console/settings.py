"""`[boards.NAME.console]` and `[consoles]` of the agent's settings."""

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from agent.settings_table import Key, Table

MAX_UNIX_PATH_BYTES = 107
"""Linux: sun_path of 108 with its end."""
_TCP = re.compile(r"(?:\[([0-9A-Fa-f:.%a-z]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})")


class PlaceKind(StrEnum):
    """What a console's port is."""

    TTY = "tty"
    """A serial port, or a pty."""
    UNIX = "unix"
    """A UNIX socket, as QEMU's."""
    TCP = "tcp"
    """A TCP port in the raw, as ser2net's `tcp` or a terminal server's."""


class Place(NamedTuple):
    """Where a console's port is."""

    kind: PlaceKind
    path: str
    """Of a tty or a socket; a host's name or address for TCP."""
    port: int = 0

    @classmethod
    def parse(cls, text: str) -> "Place":
        """`/dev/…`, `pty:/dev/pts/3`, `unix:/PATH` or `tcp:HOST:PORT`.

        Raises:
            ValueError: it is none of these.
        """
        kind, _, rest = text.partition(":")
        if kind == "tcp" and (match := _TCP.fullmatch(rest)) is not None and 0 < int(match[3]) <= 65535:
            return cls(PlaceKind.TCP, match[1] or match[2], int(match[3]))
        if kind == "unix" and rest.startswith("/"):
            return cls(PlaceKind.UNIX, rest)
        path = rest if kind == "pty" else text
        if path.startswith("/"):
            return cls(PlaceKind.TTY, path)
        raise ValueError(
            f"{text!r} is no console: write the path of a serial port (best one below /dev/serial/by-path), "
            "unix:/PATH of a socket, or tcp:HOST:PORT"
        )

    def __str__(self) -> str:
        if self.kind is PlaceKind.TCP:
            host = f"[{self.path}]" if ":" in self.path else self.path
            return f"tcp:{host}:{self.port}"
        return self.path if self.kind is PlaceKind.TTY else f"unix:{self.path}"


Port = Annotated[int, Field(ge=1, le=65535)]


class ConsoleTable(Table):
    """`[boards.NAME.console]`; `console = "DEVICE"` is the same with nothing but `device`."""

    device: str = Field(max_length=240)
    speed: int = Field(default=115200, ge=50, le=12_000_000)
    """Baud; 8 data bits."""
    parity: Literal["none", "even", "odd"] = "none"
    stop_bits: Literal[1, 2] = 1
    flow: Literal["none", "rtscts", "xonxoff"] = "none"
    dtr: bool | None = None
    """What the line is set to at opening; None leaves it to the driver. Boards with their reset on it want false."""
    rts: bool | None = None
    telnet_port: Port | None = None
    """Telnet and RFC 2217 for whoever may reach it, at the addresses of `[consoles]`."""
    raw_port: Port | None = None
    """TCP in the raw."""
    writers: Literal["anyone", "lease"] = "anyone"
    """`lease`: while somebody holds the board, only who shows the lease's token may type. That can `boardhand console`;
    other programs on these ports can not."""
    milestones: bool = True
    """Whether what it prints moves the board's phase and becomes events."""
    user: str | None = Field(default=None, min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")
    """Who logs in where the agent runs something and a login prompt stands there."""
    password_file: Path | None = None
    """A file with the user's password on its first line."""
    prompt: str | None = Field(default=None, min_length=1, max_length=200)
    """A regular expression for the end of the shell's prompt; without it one that ends in `#`, `$` or `%`."""
    line_characters: int = Field(default=240, ge=120, le=4000)
    """The longest line that is typed at once: busybox' editor takes 254, a terminal that edits itself 4095."""
    char_delay_ms: float = Field(default=0.0, ge=0, le=1000)
    """Between two characters that the agent types, for a UART that loses them when they come faster."""

    @field_validator("device")
    @classmethod
    def _is_a_place(cls, device: str) -> str:
        Place.parse(device)
        return device

    @field_validator("prompt")
    @classmethod
    def _is_a_pattern(cls, prompt: str | None) -> str | None:
        if prompt is not None:
            try:
                re.compile(prompt)
            except re.error as error:
                raise ValueError(f"{prompt!r} is no regular expression: {error}") from None
        return prompt

    @model_validator(mode="after")
    def _password_has_a_user(self) -> Self:
        if self.password_file is not None and self.user is None:
            raise ValueError("password_file without user: give both or neither")
        if self.password_file is not None and not self.password_file.is_file():
            raise ValueError(f"password_file: {self.password_file} is not there, or is no file")
        return self

    @property
    def place(self) -> Place:
        return Place.parse(self.device)


def _table_of(value: object) -> object:
    return {"device": value} if isinstance(value, str) else value


BoardConsole = Annotated[ConsoleTable, BeforeValidator(_table_of)]
"""A board's console, as a table or as the device alone."""


class ConsolesTable(Table):
    """`[consoles]`: what holds for all of them."""

    listen: list[IPv4Address | IPv6Address] = Field(default=[IPv4Address("127.0.0.1")])
    """Where the boards' ports are served. Whoever reaches them reads, and types: there is no password in telnet."""
    host: str | None = Field(default=None, max_length=100)
    """How others reach this host, as told in the boards' info; our name, or 127.0.0.1 where we listen on no other."""
    keep_mb: int = Field(default=64, ge=1, le=1_000_000)
    """Of recordings, for each board; the oldest go."""
    clients_set_speed: bool = False
    """Whether RFC 2217 clients change speed, DTR and RTS of the port. If not, they are told yes and nothing is done:
    pyserial asks for 9600 baud unless it was told otherwise."""
    writer_idle_s: float = Field(default=60.0, ge=1, le=86400)
    """Who has typed nothing for so long makes room for the next who types."""


def contradictions(consoles: Mapping[str, ConsoleTable | None]) -> Iterator[tuple[Key, str]]:
    """What is right for one board and wrong for two, with the key to change."""
    ports: dict[int, str] = {}
    places: dict[Place, str] = {}
    for board, console in consoles.items():
        if console is None:
            continue
        key = ("boards", board, "console")
        if console.place in places:
            yield (*key, "device"), f"{console.device} is already the console of board {places[console.place]}"
        places[console.place] = board
        for name, port in (("telnet_port", console.telnet_port), ("raw_port", console.raw_port)):
            if port is not None and port in ports:
                yield (*key, name), f"port {port} is already {ports[port]}"
            if port is not None:
                ports[port] = f"{name} of board {board}"


def socket_path(state_dir: Path, board: str) -> Path | None:
    """The UNIX socket of a board's console, for programs of this host; None where its path would be too long."""
    path = state_dir.absolute() / "consoles" / f"{board}.sock"
    return path if len(str(path).encode()) <= MAX_UNIX_PATH_BYTES else None
