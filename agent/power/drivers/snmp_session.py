"""SNMP questions and answers on pysnmp, with errors sorted by what the caller does next.

Facts that shape it: an engine costs 0.1-0.7 s and stalls the event loop while it is made, so engines are made on a
thread, warmed there and kept. One engine with two keys for the same v3 user mixes them up, so there is one engine per
credential set. An engine never recovers when a v3 agent comes back with another engine ID, so an engine that only
times out is replaced.
"""

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pysnmp.error import PySnmpError  # type: ignore[import-untyped]
from pysnmp.hlapi import varbinds  # type: ignore[import-untyped]
from pysnmp.hlapi.v3arch import asyncio as pysnmp  # type: ignore[import-untyped]
from pysnmp.proto import errind  # type: ignore[import-untyped]

from agent.power.errors import AuthenticationError, ConfigurationError, PowerError, RefusedError, UnreachableError
from agent.power.kinds.snmp import SnmpSettings

SYS_OBJECT_ID = "1.3.6.1.2.1.1.2.0"
TIMER_RESOLUTION_S = 0.1
"""pysnmp looks for timeouts this often; its own default is 0.5 s, which would round short timeouts up."""
RENEW_AFTER = frozenset({2, 4, 8})
RENEW_EVERY = 16
"""After these many unanswered v3 requests in a row the engine is replaced: soon, because the PDU may have been
swapped, and then rarely, because it is more likely just off."""

Value = Any
"""A pyasn1 value, as pysnmp hands it over."""

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
MIN_V3_KEY_CHARACTERS = 8
"""RFC 3414, section 11.2: passwords of SNMPv3 have at least eight characters."""

_CREDENTIAL_FAULTS = (
    errind.UnknownUserName,
    errind.WrongDigest,
    errind.AuthenticationFailure,
    errind.AuthenticationError,
    errind.UnknownSecurityName,
    errind.UnsupportedSecurityLevel,
    errind.DecryptionError,
    errind.UnknownCommunityName,
    errind.NoSuchView,
    errind.NoAccessEntry,
    errind.NoGroupName,
    errind.NotInView,
)
_SETTINGS_FAULTS = (errind.EncryptionError, errind.UnsupportedAuthProtocol, errind.UnsupportedPrivProtocol)

# RFC 3416, section 3, error-status; those that are not here mean that the device said no.
_STATUS_AUTHENTICATION = frozenset({6, 16})  # noAccess, authorizationError
_STATUS_MISSING = frozenset({2, 11, 18})  # noSuchName (v1), noCreation, inconsistentName


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


def _make_engine(credentials: Credentials) -> SharedEngine:
    engine = pysnmp.SnmpEngine()
    # The first variable binding loads MIB modules, about 100 ms: better here than in the event loop.
    warm = pysnmp.ObjectType(pysnmp.ObjectIdentity(SYS_OBJECT_ID))
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


class SnmpSession:
    """Questions to one agent. Each call is one request and its answer, or a `PowerError`."""

    def __init__(self, name: str, settings: SnmpSettings, pool: EnginePool) -> None:
        self._name = name
        self._settings = settings
        self._pool = pool
        self._credentials: Credentials | None = None
        self._shared: SharedEngine | None = None
        self._targets: tuple[Any, Any] | None = None
        self._unanswered = 0

    async def get(self, *oids: str, outlet: str | None = None) -> list[Value]:
        """GET; one value per OID, None where the agent has no such instance."""
        return [value for _, value in await self._request(pysnmp.get_cmd, [(oid, None) for oid in oids], outlet)]

    async def get_next(self, *oids: str) -> list[tuple[str, Value]]:
        """GETNEXT; one (OID, value) per OID, value None at the end of the MIB."""
        return await self._request(pysnmp.next_cmd, [(oid, None) for oid in oids], None)

    async def set_integer(self, oid: str, value: int, *, outlet: str) -> None:
        """SET one INTEGER. Sent once: whether to send it again is not decided here."""
        answers = await self._request(pysnmp.set_cmd, [(oid, pysnmp.Integer32(value))], outlet)
        if answers[0][1] is None:
            raise self._missing(outlet)

    def close(self) -> None:
        """Give the engine back."""
        shared, self._shared = self._shared, None
        if shared is not None:
            self._pool.give_back(shared)

    async def _request(
        self, command: Any, bindings: list[tuple[str, Value]], outlet: str | None
    ) -> list[tuple[str, Value]]:
        shared, targets = await self._ready()
        target = targets[0] if command is pysnmp.set_cmd else targets[1]
        objects = [
            pysnmp.ObjectType(pysnmp.ObjectIdentity(oid), *(() if value is None else (value,)))
            for oid, value in bindings
        ]
        try:
            indication, status, index, answers = await command(
                shared.engine, shared.auth, target, pysnmp.ContextData(), *objects, lookupMib=False
            )
        except PySnmpError as problem:
            raise UnreachableError(
                f"the request failed: {problem}", controller=self._name, outlet=outlet, do="check host and port"
            ) from problem
        if indication is not None:
            raise await self._indicated(indication, outlet)
        self._unanswered = 0
        if int(status) != 0:
            if self._settings.version == "1" and int(status) == 2 and command is not pysnmp.set_cmd:
                return _without(bindings, int(index))
            raise self._answered_no(int(status), status, outlet)
        return [(str(name), None if _is_absent(value) else value) for name, value in answers]

    async def _ready(self) -> tuple[SharedEngine, tuple[Any, Any]]:
        if self._credentials is None:
            self._credentials = await asyncio.to_thread(read_credentials, self._name, self._settings)
        if self._shared is None:
            self._shared = await self._pool.take(self._credentials)
        if self._targets is None:
            self._targets = (await self._target(retries=0), await self._target(retries=self._settings.retries))
        dispatcher = self._shared.engine.transport_dispatcher
        if dispatcher is not None and dispatcher.get_timer_resolution() != TIMER_RESOLUTION_S:
            dispatcher.set_timer_resolution(TIMER_RESOLUTION_S)
        return self._shared, self._targets

    async def _target(self, *, retries: int) -> Any:
        kind = pysnmp.Udp6TransportTarget if ":" in self._settings.host else pysnmp.UdpTransportTarget
        where = (self._settings.host, self._settings.port)
        try:
            return await kind.create(where, timeout=self._settings.timeout_s, retries=retries)
        except (PySnmpError, OSError) as problem:
            raise UnreachableError(
                f"{self._settings.host} cannot be resolved", controller=self._name, do="check host, or the DNS"
            ) from problem

    async def _indicated(self, indication: Any, outlet: str | None) -> PowerError:
        where = f"{self._settings.host}:{self._settings.port}"
        if isinstance(indication, _CREDENTIAL_FAULTS):
            do = "check user, protocols and keys" if self._settings.version == "3" else "check the community"
            return AuthenticationError(
                f"{where} refused our credentials: {indication}", controller=self._name, outlet=outlet, do=do
            )
        if isinstance(indication, _SETTINGS_FAULTS):
            do = "check auth_protocol and priv_protocol; privacy needs the package cryptography"
            return ConfigurationError(f"{indication}", controller=self._name, outlet=outlet, do=do)
        await self._count_unanswered()
        do = "check its power, cable, address and access list"
        if self._settings.version != "3":
            do += f"; an SNMP {self._settings.version} device stays silent at a wrong community, too"
        return UnreachableError(f"no answer from {where}: {indication}", controller=self._name, outlet=outlet, do=do)

    async def _count_unanswered(self) -> None:
        self._unanswered += 1
        if self._settings.version != "3" or self._shared is None or self._credentials is None:
            return
        if self._unanswered in RENEW_AFTER or self._unanswered % RENEW_EVERY == 0:
            shared, self._shared = self._shared, None
            self._shared = await self._pool.take(self._credentials, instead_of=shared)

    def _answered_no(self, number: int, status: Any, outlet: str | None) -> PowerError:
        word = status.prettyPrint() if hasattr(status, "prettyPrint") else str(number)
        if number in _STATUS_AUTHENTICATION:
            return AuthenticationError(
                f"the device answered {word}",
                controller=self._name,
                outlet=outlet,
                do="use a community or user that may write",
            )
        if number in _STATUS_MISSING:
            return self._missing(outlet, word)
        return RefusedError(
            f"the device answered {word}",
            controller=self._name,
            outlet=outlet,
            do="look whether the outlet is locked, or its control is disabled, in the device's own pages",
        )

    def _missing(self, outlet: str | None, word: str = "noSuchInstance") -> ConfigurationError:
        return ConfigurationError(
            f"the device answered {word}: it has no such outlet",
            controller=self._name,
            outlet=outlet,
            do="correct the outlet's number or family",
        )


def _without(bindings: list[tuple[str, Value]], index: int) -> list[tuple[str, Value]]:
    """Version 1 fails a whole request for one missing object; with one object asked, that is the answer."""
    del index
    return [(oid, None) for oid, _ in bindings]


def _is_absent(value: Any) -> bool:
    return type(value).__name__ in {"NoSuchInstance", "NoSuchObject", "EndOfMibView"}
