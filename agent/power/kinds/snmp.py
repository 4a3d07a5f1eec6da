"""PDUs and PoE switches over SNMP: settings and kind."""

from collections.abc import Mapping
from difflib import get_close_matches
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.drivers.snmp_family import Family
from agent.power.drivers.snmp_family_files import families, family_of_file, parse_family
from agent.power.settings import ControllerBase, NonEmpty, TimeoutS


class SnmpSettings(ControllerBase):
    """A PDU that speaks SNMP."""

    driver: Literal["snmp"]
    host: NonEmpty
    port: Annotated[int, Field(ge=1, le=65535)] = 161
    version: Literal["1", "2c", "3"] = "2c"
    family: NonEmpty = "auto"
    """`auto`, a name out of `agent/power/families`, or `custom`, which `oids` describes."""
    family_file: Path | None = None
    """Describes the family in a file of one's own, instead of `family`."""
    oids: Mapping[str, Any] | None = None
    """What `custom` is: the same keys as a family's file."""
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
    def _described(self) -> Self:
        if (self.family == "custom") != (self.oids is not None):
            raise ValueError('family = "custom" and the table oids need each other')
        if self.family_file is not None and self.family != "auto":
            raise ValueError("family and family_file: set one of them")
        if self.family not in {"auto", "custom"} and self.family not in families():
            near = get_close_matches(self.family, families(), n=5, cutoff=0.4)
            raise ValueError(
                f"family: there is no {self.family!r}; "
                + (f"near to it are {', '.join(near)}" if near else f"known are auto, custom, {', '.join(families())}")
            )
        self.described_family()
        return self

    def described_family(self) -> Family | None:
        """The family that the settings name or describe; None where it is to be detected.

        Raises:
            ValueError: what describes it is wrong; names file and key.
        """
        if self.oids is not None:
            return parse_family("custom", self.oids, "oids")
        if self.family_file is not None:
            return family_of_file(self.family_file)
        return None if self.family == "auto" else families()[self.family]

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
    """One line per file of `agent/power/families`."""
    ordered = sorted(families().values(), key=lambda one: (one.vendor.lower(), one.file))
    return tuple(_line(list(group)) for _, group in groupby(ordered, key=lambda one: one.file))


def _line(group: list[Family]) -> DeviceSupport:
    first = group[0]
    names = ", ".join(f"`{family.name}`" for family in group)
    verified = [first.verified_by]
    for name, _, what in (recording.partition(": ") for recording in first.recordings):
        verified.append(f"recording {name} of a real device" + (f" ({what})" if what else ""))
    found = sorted({"sysObjectID " + ".".join(map(str, start)) for family in group for start in family.object_ids})
    if first.descr is not None:
        found.append("sysDescr")
    if first.generic:
        found.append("its control table is there")
    return DeviceSupport(
        device=f"{first.vendor} {first.models} ({names})",
        read_back="yes" + (f"; {first.caution}" if first.caution else ""),
        verified_by=", ".join(verified),
        metering="no" if first.watts is None else "watts per outlet, where the model measures",
        discovery=", ".join(found),
        source=first.source,
    )


KIND = DriverKind(name="snmp", settings=SnmpSettings, make="agent.power.drivers.snmp:make", support=_support)
