"""Settings of controllers and feeds. Secrets are never among them: a setting names the file or the environment
variable that holds one."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, field_validator, model_validator

from agent.power.feed import OutletRef

Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]
TimeoutS = Annotated[float, Field(gt=0, le=300, allow_inf_nan=False)]
NonEmpty = Annotated[str, Field(min_length=1, max_length=4096)]

OUTLET_PLACEHOLDER = "{outlet}"


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Controller(_Settings):
    description: Annotated[str, Field(max_length=256)] = ""
    inrush_spacing_s: Seconds = 0.0
    """Least time between two switch-ons of this controller, so that a shelf does not blow its fuse."""


class SerialCableSettings(_Controller):
    """A power cable on a serial port: `agent/power/drivers/serial_cable.py` has the protocol."""

    driver: Literal["serial_cable"]
    device: NonEmpty
    """Use a path that survives replugging, below /dev/serial/by-path or by-id."""
    baudrate: Annotated[int, Field(ge=50, le=4_000_000)] = 9600
    reply_timeout_s: TimeoutS = 0.3
    read_back: bool = True
    """Whether the cable may be asked with `?`. False for an old cable that takes `?` for a digit: power is then
    unknown for ever."""


class SnmpSettings(_Controller):
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


class CommandSettings(_Controller):
    """Any program that switches an outlet. Argument lists, never shell strings; `{outlet}` is replaced."""

    driver: Literal["command"]
    on: Annotated[list[NonEmpty], Field(min_length=1)]
    off: Annotated[list[NonEmpty], Field(min_length=1)]
    state: Annotated[list[NonEmpty], Field(min_length=1)] | None = None
    """Prints `on` or `off` (or 1 or 0). Without it the board's power is `unknown` for ever, and a switch whose
    program exits 0 is reported as done with power unknown: it is never claimed as verified."""
    timeout_s: TimeoutS = 10.0
    verify_deadline_s: TimeoutS = 10.0


class QmpSettings(_Controller):
    """A QEMU machine, switched through its QMP socket; the one outlet is called `1`."""

    driver: Literal["qmp"]
    socket: Path
    timeout_s: TimeoutS = 5.0


ControllerSettings = Annotated[
    SerialCableSettings | SnmpSettings | CommandSettings | QmpSettings, Discriminator("driver")
]


class BoardFeed(_Settings):
    """What powers one board: outlets in the order in which they are switched on; off goes the other way round."""

    outlets: Annotated[list[str], Field(min_length=1, max_length=16)]
    """Each `controller:outlet`."""
    min_off_s: Seconds | None = None
    verify_deadline_s: TimeoutS | None = None
    attempts: Annotated[int, Field(ge=1, le=20)] | None = None

    @field_validator("outlets")
    @classmethod
    def _named(cls, outlets: list[str]) -> list[str]:
        refs = [OutletRef.parse(text) for text in outlets]
        if len(set(refs)) != len(refs):
            raise ValueError("an outlet stands twice in this feed; name each once")
        return outlets

    @property
    def refs(self) -> tuple[OutletRef, ...]:
        """The outlets, taken apart."""
        return tuple(OutletRef.parse(text) for text in self.outlets)


FeedSettings = BoardFeed
