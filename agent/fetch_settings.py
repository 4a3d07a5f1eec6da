"""`[netboot.fetch]`: from where the files of chosen boots may come, and how much of them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from yarl import URL

from agent.settings_table import Table
from netboot.fetch_download import FetchLimits
from netboot.fetch_policy import AllowedPlace, FetchPolicy


def _place(text: str) -> str:
    AllowedPlace(URL(text))
    return text


class FetchTable(Table):
    """`[netboot.fetch]`."""

    allow: list[Annotated[str, AfterValidator(_place)]] = Field(default=[], max_length=256)
    """Only URLs that begin with one of these; empty: any host but this one, link-local ones and clouds' metadata."""
    checksum: Literal["required", "optional"] = "required"
    """Whether a file needs its SHA-256."""
    cache_mib: int = Field(default=4096, ge=16, le=1 << 22)
    """All files together; the least used go first. A hundred kernels with their initrds."""
    file_mib: int = Field(default=2048, ge=1, le=1 << 22)
    """One file."""
    timeout_s: float = Field(default=1800.0, ge=5, le=86_400)
    """One file, with all tries."""

    @property
    def policy(self) -> FetchPolicy:
        """The same for netboot."""
        places = tuple(AllowedPlace(URL(text)) for text in self.allow)
        return FetchPolicy(allow=places, without_checksum=self.checksum == "optional")

    @property
    def limits(self) -> FetchLimits:
        """The same for netboot."""
        return FetchLimits(max_file_bytes=self.file_mib << 20, total_s=self.timeout_s)
