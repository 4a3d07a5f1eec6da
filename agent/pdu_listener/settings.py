"""`[pdu_listener]` of the agent's settings."""

import ipaddress
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from agent.power.feed import OutletRef

DEFAULT_PORT = 16421
"""pdudaemon's; pduclient of pdudaemon knows no other."""
MIN_TOKEN_CHARACTERS = 16
"""A shorter one can be guessed over a network."""

Key = tuple[str, ...]


class ListenerError(Exception):
    """The listener cannot be started. One line, which names the key and says what to do."""


class Endpoint(NamedTuple):
    """Where to listen."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Endpoint":
        """Take `ADDRESS:PORT` apart; without a port it is pdudaemon's.

        Raises:
            ValueError: it is not written so.
        """
        host, colon, port = text.rpartition(":")
        if not colon or text.endswith("]"):
            host, port = text, str(DEFAULT_PORT)
        host = host.removeprefix("[").removesuffix("]")
        try:
            host = "127.0.0.1" if host == "localhost" else str(ipaddress.ip_address(host))
        except ValueError:
            raise ValueError(
                f"{text!r}: write ADDRESS:PORT with an address of this host, as 127.0.0.1:{DEFAULT_PORT} or "
                f"[::1]:{DEFAULT_PORT}; 0.0.0.0 stands for all of them"
            ) from None
        if not (port.isascii() and port.isdigit() and int(port) <= 65535):
            raise ValueError(f"{text!r}: {port!r} is no port")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _endpoint(text: str) -> str:
    return str(Endpoint.parse(text))


EndpointText = Annotated[str, Field(max_length=64), AfterValidator(_endpoint)]
AliasName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,64}$")]


class PduListenerTable(BaseModel):
    """Where pdudaemon's clients are heard, and who may switch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    http: EndpointText | None = None
    """`ADDRESS:PORT` for HTTP; port 0 takes a free one, which the log tells."""
    tcp: EndpointText | None = None
    """`ADDRESS:PORT` for the line protocol. It has no place for a token."""
    token_file: Path | None = None
    """A file with the token on its first line; HTTP requests without it are refused."""
    token_env: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    """The environment variable that holds the token."""
    anyone_may_switch: bool = False
    """Whether hosts of the network may switch without a token."""
    aliases: dict[AliasName, str] = Field(default={})
    """What `?alias=` may name: a board, or `controller:outlet`. Boards have their own names already."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.http is None and self.tcp is None:
            raise ValueError(f'opens nothing: give http or tcp, as http = "127.0.0.1:{DEFAULT_PORT}"')
        if self.http is not None and self.http == self.tcp and Endpoint.parse(self.http).port:
            raise ValueError(f"http and tcp cannot share {self.http}: give them different ports or addresses")
        if self.token_file is not None and self.token_env is not None:
            raise ValueError("token_file and token_env both name the token: keep one")
        if self.token_file is not None and not self.token_file.is_file():
            raise ValueError(f"token_file: {self.token_file} is not there, or is no file")
        for name, text, guarded in (("http", self.http, self.has_token), ("tcp", self.tcp, False)):
            if text is not None and not guarded and not self.anyone_may_switch and not Endpoint.parse(text).is_loopback:
                cure = (
                    "give token_file or token_env, or say"
                    if name == "http"
                    else ("the line protocol has no place for a token: listen on 127.0.0.1, or say")
                )
                raise ValueError(
                    f"{name} = {text!r} lets every host that reaches it switch power; {cure} anyone_may_switch = true"
                )
        return self

    @property
    def has_token(self) -> bool:
        return self.token_file is not None or self.token_env is not None

    def read_token(self) -> bytes | None:
        """The token, or None where none is set.

        Raises:
            ListenerError: it cannot be read, or is too short.
        """
        if self.token_file is not None:
            where = f"token_file {self.token_file}"
            try:
                text = self.token_file.read_text(encoding="utf-8").split("\n", 1)[0].strip()
            except (OSError, UnicodeDecodeError) as error:
                raise ListenerError(f"pdu_listener: {where}: cannot be read: {error}") from None
        elif self.token_env is not None:
            where = f"token_env: the environment variable {self.token_env}"
            text = os.environ.get(self.token_env, "").strip()
        else:
            return None
        if len(text) < MIN_TOKEN_CHARACTERS:
            raise ListenerError(
                f"pdu_listener: {where}: holds less than {MIN_TOKEN_CHARACTERS} characters; make it longer"
            )
        return text.encode()


def contradictions(
    table: PduListenerTable, controllers: Collection[str], boards: Mapping[str, object]
) -> Iterator[tuple[Key, str]]:
    """What is right alone and does not fit the other tables, with the key to change."""
    for name, place in table.aliases.items():
        key = ("pdu_listener", "aliases", name)
        if ":" not in place:
            if place not in boards:
                yield key, f"there is no board {place!r}; name a board, or write controller:outlet"
            continue
        try:
            ref = OutletRef.parse(place)
        except ValueError as error:
            yield key, str(error)
            continue
        if ref.controller not in controllers:
            known = ", ".join(sorted(controllers)) or "none"
            yield key, f"there is no controller {ref.controller!r}; known are: {known}"
