"""PDUs and PoE switches at given addresses, by SNMP. Which family one is of, its own detection decides (the data in
`agent/power/families`). Only questions are sent, no SET."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from pydantic import ValidationError

from agent.discovery import known
from agent.discovery.findings import Candidate, Problem, TomlValue, stem_of
from agent.discovery.sweep import Address
from agent.power.drivers.snmp import SnmpDriver
from agent.power.drivers.snmp_detection import SYS_DESCR, SYS_OBJECT_ID, Identity
from agent.power.drivers.snmp_engine import EnginePool, SharedEngine, read_credentials
from agent.power.drivers.snmp_family import text
from agent.power.drivers.snmp_family_files import families
from agent.power.drivers.snmp_session import SnmpSession
from agent.power.errors import ConfigurationError, PowerError, UnreachableError
from agent.power.kinds.snmp import SnmpSettings

SYS_NAME = "1.3.6.1.2.1.1.5.0"
"""RFC 3418, system group."""
ANSWER_S, RETRIES = 2.0, 1
"""For each question: a busy PDU takes 1.5 s for an answer, and the first datagram may be lost while ARP asks."""
DETECTION_S = 30.0
"""For one device's family and outlets: twenty questions of such a PDU."""


@dataclass(frozen=True, slots=True)
class SnmpAccess:
    """How devices are asked. `community_file` holds the community, which is a secret."""

    community_file: Path
    version: str = "2c"
    port: int = known.SNMP_PORT

    def settings(self, address: Address) -> SnmpSettings:
        """Those of a controller at `address`, as a person would write them.

        Raises:
            ValueError: they are wrong, which no address of ours makes them.
        """
        return SnmpSettings.model_validate(
            {
                "driver": "snmp",
                "host": str(address),
                "port": self.port,
                "version": self.version,
                "community_file": self.community_file,
                "timeout_s": ANSWER_S,
                "retries": RETRIES,
            }
        )


@dataclass(frozen=True, slots=True)
class OtherDevice:
    """A device that speaks SNMP and switches nothing that we know."""

    address: str
    about: str


SnmpFound = Candidate | OtherDevice | Problem | None
"""None: nobody answers there, or not to this community."""


class SnmpFinder:
    """Looks at one address after the other, with one engine."""

    def __init__(self, access: SnmpAccess) -> None:
        self._access = access
        self._engines = EnginePool()
        self._kept: SharedEngine | None = None

    async def start(self) -> None:
        """Read the community and make the engine, before a network is asked. While it is held, sessions that come
        and go cost no new one.

        Raises:
            ConfigurationError: the community cannot be read.
            ValueError: the version is none.
        """
        settings = self._access.settings(ip_address("127.0.0.1"))
        credentials = await asyncio.to_thread(read_credentials, "discover", settings)
        self._kept = await self._engines.take(credentials)

    def close(self) -> None:
        """Let go of the engine."""
        kept, self._kept = self._kept, None
        if kept is not None:
            self._engines.give_back(kept)

    async def look(self, address: Address) -> SnmpFound:
        """What is at `address`; never raises for what a device does."""
        try:
            settings = self._access.settings(address)
        except ValidationError as problem:
            return Problem(str(address), str(problem.errors()[0]["msg"]))
        session = SnmpSession(str(address), settings, self._engines)
        try:
            object_id, descr, name = await session.get(SYS_OBJECT_ID, SYS_DESCR, SYS_NAME)
        except UnreachableError:
            return None
        except PowerError as problem:
            return Problem(str(address), problem.problem, problem.do or "")
        finally:
            session.close()
        return await self._of(address, settings, Identity.of(object_id, descr), text(name))

    async def _of(self, address: Address, settings: SnmpSettings, identity: Identity, name: str) -> SnmpFound:
        driver = SnmpDriver(str(address), settings, self._engines)
        where = f"SNMP device {address} ({identity})"
        try:
            async with asyncio.timeout(DETECTION_S):
                said = await driver.identify()
                outlets = tuple(outlet.outlet for outlet in await driver.describe())
        except TimeoutError:
            return Problem(where, f"did not tell its family within {DETECTION_S:g} s", "write it by hand, with family")
        except ConfigurationError:
            return OtherDevice(str(address), str(identity))
        except PowerError as problem:
            return Problem(where, problem.problem, problem.do or "")
        finally:
            await driver.close()
        return self._candidate(address, said, name, outlets)

    def _candidate(self, address: Address, said: str, name: str, outlets: tuple[str, ...]) -> Candidate:
        family, _, why = said.partition(": ")
        known_family = families()[family]
        keys: dict[str, TomlValue] = {"driver": "snmp", "host": str(address)}
        keys |= self._not_default()
        keys |= {"family": family, "community_file": str(self._access.community_file)}
        hints = [f"Known by its {why}." if not why.startswith(("sysObjectID", "sysDescr")) else f"It says {why}."]
        if known_family.caution:
            hints.append(f"Beware: {known_family.caution}.")
        hints.append("To switch, the community must be one that may write.")
        if not outlets:
            hints.append("It tells no outlets.")
        return Candidate(
            stem=stem_of(name, f"pdu-{str(address).replace('.', '-').replace(':', '-')}"),
            keys=keys,
            about=f"{known_family.vendor} {known_family.models} at {address}" + (f", named {name}" if name else ""),
            outlets=outlets,
            hints=tuple(hints),
            identities=frozenset({known.snmp(str(address), self._access.port), *known.device_at(str(address))}),
        )

    def _not_default(self) -> Mapping[str, TomlValue]:
        found: dict[str, TomlValue] = {}
        if self._access.port != known.SNMP_PORT:
            found["port"] = self._access.port
        if self._access.version != "2c":
            found["version"] = self._access.version
        return found
