"""SNMP engines of pysnmp: one per credential set, made off the event loop and kept.

Facts that shape it: an engine costs 0.1-0.7 s and stalls the event loop while it is made, so engines are made on a
thread, warmed there and kept. One engine with two keys for the same v3 user mixes them up, so there is one engine per
credential set. An engine never recovers when a v3 agent comes back with another engine ID, so `EnginePool.take` can
replace one. An engine without an engine ID of its own choosing keeps nothing on disk: pysnmp's shared folder of boot
counters is for those that choose one.
"""

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pysnmp.hlapi import varbinds  # type: ignore[import-untyped]
from pysnmp.hlapi.v3arch import asyncio as pysnmp  # type: ignore[import-untyped]

from agent.power.drivers.snmp_family import ValueKind
from agent.power.errors import ConfigurationError
from agent.power.kinds.snmp import SnmpSettings

MAX_KEPT_BINDINGS = 8192
"""Per engine; two for each outlet of 80 PDUs of 48 that have nothing in common. Then all are dropped."""

_AUTH_PROTOCOLS = {
    "none": pysnmp.USM_AUTH_NONE,
    "md5": pysnmp.USM_AUTH_HMAC96_MD5,
    "sha": pysnmp.USM_AUTH_HMAC96_SHA,
    "sha224": pysnmp.USM_AUTH_HMAC128_SHA224,
    "sha256": pysnmp.USM_AUTH_HMAC192_SHA256,
    "sha384": pysnmp.USM_AUTH_HMAC256_SHA384,
    "sha512": pysnmp.USM_AUTH_HMAC384_SHA512,
}
_PRIV_PROTOCOLS = {
    "none": pysnmp.USM_PRIV_NONE,
    "des": pysnmp.USM_PRIV_CBC56_DES,
    "aes": pysnmp.USM_PRIV_CFB128_AES,
    "aes192": pysnmp.USM_PRIV_CFB192_AES,
    "aes256": pysnmp.USM_PRIV_CFB256_AES,
}
_WRITTEN = {"integer": pysnmp.Integer32, "gauge": pysnmp.Unsigned32, "string": pysnmp.OctetString}
MIN_V3_KEY_CHARACTERS = 8
"""RFC 3414, section 11.2: passwords of SNMPv3 have at least eight characters."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a device is asked with. Secrets do not show in its repr."""

    version: str
    user: str | None = None
    community: str | None = field(default=None, repr=False)
    auth_protocol: str = "none"
    auth_key: str | None = field(default=None, repr=False)
    priv_protocol: str = "none"
    priv_key: str | None = field(default=None, repr=False)

    def for_pysnmp(self) -> "pysnmp.CommunityData | pysnmp.UsmUserData":
        """The same as pysnmp wants it."""
        if self.version != "3":
            return pysnmp.CommunityData(self.community, mpModel=0 if self.version == "1" else 1)
        return pysnmp.UsmUserData(
            self.user,
            authKey=self.auth_key,
            privKey=self.priv_key,
            authProtocol=_AUTH_PROTOCOLS[self.auth_protocol],
            privProtocol=_PRIV_PROTOCOLS[self.priv_protocol],
        )


def read_credentials(name: str, settings: SnmpSettings) -> Credentials:
    """Read the secrets that `settings` point to. Touches files: not for the event loop.

    Raises:
        ConfigurationError: a secret is missing, empty or too short; names the file or variable, never its content.
    """
    if settings.version != "3":
        community = _secret(name, settings.community_file, settings.community_env, 1)
        return Credentials(settings.version, community=community)
    auth = priv = None
    if settings.auth_protocol != "none":
        auth = _secret(name, settings.auth_key_file, settings.auth_key_env, MIN_V3_KEY_CHARACTERS)
    if settings.priv_protocol != "none":
        priv = _secret(name, settings.priv_key_file, settings.priv_key_env, MIN_V3_KEY_CHARACTERS)
    return Credentials("3", settings.user, None, settings.auth_protocol, auth, settings.priv_protocol, priv)


def _secret(name: str, file: Path | None, env: str | None, min_characters: int) -> str:
    if file is not None:
        where = str(file)
        try:
            secret = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else "no UTF-8 text"
            raise ConfigurationError(
                f"the secret in {where} cannot be read: {reason}", controller=name, do="mend the file or its mode"
            ) from problem
    else:
        where = f"environment variable {env}"
        secret = os.environ.get(env or "", "").strip()
    if len(secret) < min_characters:
        raise ConfigurationError(
            f"the secret in {where} has fewer than {min_characters} characters", controller=name, do="put it there"
        )
    return secret


@dataclass(eq=False)
class SharedEngine:
    """One pysnmp engine, its credentials in pysnmp's form, and how many sessions use it."""

    engine: pysnmp.SnmpEngine
    auth: "pysnmp.CommunityData | pysnmp.UsmUserData"
    users: int = 0
    _bindings: dict[tuple[str, ValueKind | None, int | str], Any] = field(default_factory=dict, repr=False)

    def binding(self, oid: str, kind: ValueKind | None = None, value: int | str = 0) -> Any:
        """The variable binding of an OID, and of a value to write.

        Kept, because resolving an OID against the loaded MIBs is two thirds of what a GET of 24 objects costs
        (6.3 ms without, 2.2 ms with, on one core of 2026).
        """
        key = (oid, kind, value)
        found = self._bindings.get(key)
        if found is None:
            if len(self._bindings) >= MAX_KEPT_BINDINGS:
                self._bindings.clear()
            written = () if kind is None else (_WRITTEN[kind](value),)
            found = self._bindings[key] = pysnmp.ObjectType(pysnmp.ObjectIdentity(oid), *written)
        return found


def _make_engine(credentials: Credentials) -> SharedEngine:
    engine = pysnmp.SnmpEngine()
    # The first variable binding loads MIB modules, about 100 ms: better here than in the event loop.
    warm = pysnmp.ObjectType(pysnmp.ObjectIdentity("1.3.6.1.2.1.1.2.0"))
    varbinds.CommandGeneratorVarBinds().make_varbinds(engine.cache, (warm,))
    return SharedEngine(engine, credentials.for_pysnmp())


class EnginePool:
    """One engine per credential set, for all controllers of one event loop."""

    def __init__(self) -> None:
        self._engines: dict[Credentials, SharedEngine] = {}
        self._making = asyncio.Lock()

    async def take(self, credentials: Credentials, instead_of: SharedEngine | None = None) -> SharedEngine:
        """The engine for `credentials`; a new one where there is none, or only `instead_of`, which is given back."""
        async with self._making:
            shared = self._engines.get(credentials)
            if shared is None or shared is instead_of:
                shared = await asyncio.to_thread(_make_engine, credentials)
                self._engines[credentials] = shared
            shared.users += 1
        if instead_of is not None:
            self.give_back(instead_of)
        return shared

    def give_back(self, shared: SharedEngine) -> None:
        """Close the engine when its last user has left."""
        shared.users -= 1
        if shared.users == 0:
            for credentials, known in list(self._engines.items()):
                if known is shared:
                    del self._engines[credentials]
            if shared.engine.transport_dispatcher is not None:
                shared.engine.close_dispatcher()
