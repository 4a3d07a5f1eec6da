"""`[dns]`: where the boards' names go."""

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, Field, field_validator

if TYPE_CHECKING:
    from netboot.dns_records import ZoneSettings
    from netboot.dns_updates import DnsServer


class DnsTable(BaseModel):
    """The DNS server that takes updates of these zones, and the key they are signed with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    server: str = Field(pattern=r"^[A-Za-z0-9._:-]{1,253}$")
    """Address or name of the zones' primary."""
    port: int = Field(default=53, ge=1, le=65535)
    zone: str
    """Boards become BOARD.zone."""
    reverse_zones: list[str] = []
    """Zones of their addresses, as `77.10.in-addr.arpa`; an address in none of them gets no PTR record."""
    key_file: Path
    """The TSIG key, as `tsig-keygen` writes it."""
    key_name: str | None = None
    """Which key of the file; not needed where it has one."""
    ttl_s: int = Field(default=300, ge=0, le=2**31 - 1)

    @field_validator("zone")
    @classmethod
    def _is_a_zone(cls, zone: str) -> str:
        from netboot.dns_records import normal_zone  # noqa: PLC0415  # few need it, and dnspython is large

        return normal_zone(zone)

    @field_validator("reverse_zones")
    @classmethod
    def _are_zones(cls, zones: list[str]) -> list[str]:
        return [cls._is_a_zone(zone) for zone in zones]

    @field_validator("key_file")
    @classmethod
    def _file_is_there(cls, path: Path) -> Path:
        if not path.is_file():
            raise ValueError(f"{path} is not there, or is no file; make one with 'tsig-keygen NAME'")
        return path

    def zones(self, agent: str) -> "ZoneSettings":
        """The zones as netboot takes them."""
        from netboot.dns_records import ZoneSettings  # noqa: PLC0415  # as above

        return ZoneSettings(agent, self.zone, tuple(self.reverse_zones), self.ttl_s)

    def dns_server(self) -> "DnsServer":
        """The server as netboot takes it."""
        from netboot.dns_updates import DnsServer  # noqa: PLC0415  # as above

        return DnsServer(self.server, self.key_file, self.key_name, self.port)
