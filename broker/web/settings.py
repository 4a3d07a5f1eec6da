"""`[web]` of the settings file: where the API and the page are served."""

import ipaddress
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

DEFAULT_PORT = 8070


class WebTable(BaseModel):
    """`[web]`. Without the table nothing is served."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    address: str = "127.0.0.1"
    """An address of this host, never a name: names change what is reachable."""
    port: int = Field(default=DEFAULT_PORT, ge=0, le=65535)
    """0: any free one; the log says which."""
    tokens: Path = Path("/etc/boardhand/tokens.toml")
    """Who may do what, as `boardhand token` writes it."""
    certificate: Path | None = None
    key: Path | None = None
    """PEM files for TLS."""
    plaintext: bool = False
    """Serve others than this host without TLS: behind a proxy that does TLS, or on a network where you trust all."""
    anonymous: bool = False
    """Whoever reaches the page may look without a token."""
    events_kept: int = Field(default=200_000, ge=1000, le=100_000_000)
    """Events of boards that stay in the store, for timelines."""

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, address: str) -> str:
        try:
            return str(ipaddress.ip_address(address))
        except ValueError:
            raise ValueError(f"{address!r} is no address; write one of this host's, as 127.0.0.1 or 0.0.0.0") from None

    @model_validator(mode="after")
    def _tokens_are_not_sent_in_the_clear(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together")
        near = ipaddress.ip_address(self.address).is_loopback
        if not near and self.certificate is None and not self.plaintext:
            raise ValueError(
                f"address {self.address} can be reached by others, and tokens would travel in the clear: "
                "set certificate and key, or plaintext = true behind a proxy that does TLS"
            )
        return self
