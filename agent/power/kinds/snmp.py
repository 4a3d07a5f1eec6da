"""PDUs and PoE switches over SNMP: settings and kind."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.settings import ControllerBase, NonEmpty, TimeoutS


class SnmpSettings(ControllerBase):
    """A PDU that speaks SNMP."""

    driver: Literal["snmp"]
    host: NonEmpty
    port: Annotated[int, Field(ge=1, le=65535)] = 161
    version: Literal["1", "2c", "3"] = "2c"
    family: Literal["auto", "apc-spdu", "apc-rpdu", "apc-rpdu2"] = "auto"
    community_file: Path | None = None
    community_env: NonEmpty | None = None
    user: NonEmpty | None = None
    auth_protocol: Literal["none", "md5", "sha", "sha224", "sha256", "sha384", "sha512"] = "none"
    auth_key_file: Path | None = None
    auth_key_env: NonEmpty | None = None
    priv_protocol: Literal["none", "des", "aes", "aes192", "aes256"] = "none"
    priv_key_file: Path | None = None
    priv_key_env: NonEmpty | None = None
    timeout_s: TimeoutS = 1.0
    retries: Annotated[int, Field(ge=0, le=10)] = 1
    """How often an unanswered question is sent again. Commands are not: the core reads back first."""

    @model_validator(mode="after")
    def _credentials(self) -> Self:
        if self.version == "3":
            self._check_v3()
        elif self.user or self.auth_protocol != "none" or self.priv_protocol != "none":
            raise ValueError('user, auth_protocol and priv_protocol need version = "3"')
        elif (self.community_file is None) == (self.community_env is None):
            raise ValueError(
                "version 1 and 2c need the community, from exactly one of community_file and community_env "
                "(it is a secret: it never stands in the settings)"
            )
        return self

    def _check_v3(self) -> None:
        if self.community_file is not None or self.community_env is not None:
            raise ValueError("version 3 has no community: remove community_file and community_env")
        if self.user is None:
            raise ValueError("version 3 needs user")
        if self.priv_protocol != "none" and self.auth_protocol == "none":
            raise ValueError("priv_protocol needs auth_protocol: SNMPv3 has no privacy without authentication")
        for what, protocol, file, env in (
            ("auth", self.auth_protocol, self.auth_key_file, self.auth_key_env),
            ("priv", self.priv_protocol, self.priv_key_file, self.priv_key_env),
        ):
            given = (file is not None) + (env is not None)
            if given != (protocol != "none"):
                raise ValueError(
                    f"{what}_protocol = {protocol!r} needs "
                    + (
                        f"exactly one of {what}_key_file and {what}_key_env"
                        if protocol != "none"
                        else f"neither {what}_key_file nor {what}_key_env"
                    )
                )


def _support() -> tuple[DeviceSupport, ...]:
    return ()


KIND = DriverKind(name="snmp", settings=SnmpSettings, make="agent.power.drivers.snmp:make", support=_support)
