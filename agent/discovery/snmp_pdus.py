"""PDUs and PoE switches at given addresses, by SNMP. Which family one is of, its own detection decides (the data in
`agent/power/families`). Only questions are sent, no SET."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

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
    """How devices are asked. `keys` are those of a controller's table that say it: the version, and the file or the
    environment variable that holds the community or, for version 3, beside the user the keys. No secret is in them."""

    keys: Mapping[str, TomlValue]
    port: int = known.SNMP_PORT

    def settings(self, address: Address) -> SnmpSettings:
        """Those of a controller at `address`, as a person would write them.

        Raises:
            ValueError: the keys do not fit together; says how.
        """
        told = {"driver": "snmp", "host": str(address), "port": self.port, "timeout_s": ANSWER_S, "retries": RETRIES}
        return SnmpSettings.model_validate({**told, **self.keys})

    @property
    def is_v3(self) -> bool:
        return self.keys.get("version") == "3"

    def hints(self) -> list[str]:
        """What a person has to know of these credentials."""
        who = "user" if self.is_v3 else "community"
        found = [f"To switch, the {who} must be one that may write."]
        names = [str(value) for key, value in self.keys.items() if key.endswith("_env")]
        if names:
            found.append(f"The agent needs {' and '.join(names)} in its environment.")
        return found


@dataclass(frozen=True, slots=True)
class OtherDevice:
    """A device that speaks SNMP and switches nothing that we know."""

    address: str
    about: str


SnmpFound = Candidate | OtherDevice | Problem | None
"""None: nobody answers there, or not to this community or user."""


class SnmpFinder:
    """Looks at one address after the other, with one engine for each access. Of several, those that come later are
    tried where the ones before were of no use."""

    def __init__(self, accesses: Sequence[SnmpAccess]) -> None:
        self._accesses = accesses
        self._engines = EnginePool()
        self._kept: list[SharedEngine] = []

    async def start(self) -> None:
        """Read the secrets and make the engines, before a network is asked. While they are held, sessions that come
        and go cost no new one.

        Raises:
            ConfigurationError: a secret cannot be read.
            ValueError: an access is none.
        """
        for access in self._accesses:
            settings = access.settings(ip_address("127.0.0.1"))
            credentials = await asyncio.to_thread(read_credentials, "discover", settings)
            self._kept.append(await self._engines.take(credentials))

    def close(self) -> None:
        """Let go of the engines."""
        while self._kept:
            self._engines.give_back(self._kept.pop())

    async def look(self, address: Address) -> SnmpFound:
        """What is at `address`; never raises for what a device does."""
        problem: Problem | None = None
        for access in self._accesses:
            found = await self._look(address, access)
            if isinstance(found, Candidate | OtherDevice):
                return found
            problem = problem or found
        return problem

    async def _look(self, address: Address, access: SnmpAccess) -> SnmpFound:
        try:
            settings = access.settings(address)
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
        return await self._of(address, access, settings, Identity.of(object_id, descr), text(name))

    async def _of(
        self, address: Address, access: SnmpAccess, settings: SnmpSettings, identity: Identity, name: str
    ) -> SnmpFound:
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
        return _candidate(address, access, said, name, outlets)


def _candidate(address: Address, access: SnmpAccess, said: str, name: str, outlets: tuple[str, ...]) -> Candidate:
    family, _, why = said.partition(": ")
    known_family = families()[family]
    keys: dict[str, TomlValue] = {"driver": "snmp", "host": str(address)}
    if access.port != known.SNMP_PORT:
        keys["port"] = access.port
    credentials = {key: value for key, value in access.keys.items() if (key, value) != ("version", "2c")}
    if "version" in credentials:
        keys["version"] = credentials.pop("version")
    keys |= {"family": family, **credentials}
    hints = [f"Known by its {why}." if not why.startswith(("sysObjectID", "sysDescr")) else f"It says {why}."]
    if known_family.caution:
        hints.append(f"Beware: {known_family.caution}.")
    hints += access.hints()
    if not outlets:
        hints.append("It tells no outlets.")
    return Candidate(
        stem=stem_of(name, f"pdu-{str(address).replace('.', '-').replace(':', '-')}"),
        keys=keys,
        about=f"{known_family.vendor} {known_family.models} at {address}" + (f", named {name}" if name else ""),
        outlets=outlets,
        hints=tuple(hints),
        identities=frozenset({known.snmp(str(address), access.port), *known.device_at(str(address))}),
    )
