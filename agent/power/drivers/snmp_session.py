"""SNMP questions and answers on pysnmp: plain values out, errors sorted by what the caller does next.

Every answer is held against its question: pysnmp drops what carries another request id (answers that come late), and
here an answer about another object than the one asked for is an error, never a state.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pysnmp.error import PySnmpError  # type: ignore[import-untyped]
from pysnmp.hlapi.v3arch import asyncio as pysnmp  # type: ignore[import-untyped]
from pysnmp.proto import errind, rfc1902, rfc1905  # type: ignore[import-untyped]

from agent.power.drivers.snmp_engine import Credentials, EnginePool, SharedEngine, read_credentials
from agent.power.drivers.snmp_family import Value, ValueKind
from agent.power.drivers.snmp_oid_template import arcs
from agent.power.errors import AuthenticationError, ConfigurationError, PowerError, RefusedError, UnreachableError
from agent.power.kinds.snmp import SnmpSettings

TIMER_RESOLUTION_S = 0.1
"""pysnmp looks for timeouts this often; its own default is 0.5 s, which would round short timeouts up."""
RENEW_AFTER = frozenset({2, 4, 8})
RENEW_EVERY = 16
"""After these many unanswered v3 requests in a row the engine is replaced: soon, because the PDU may have been
swapped, and then rarely, because it is more likely just off."""
MAX_BINDINGS = 24
"""Objects in one GET: the answer stays well below the 484 octets that every agent can send (RFC 3417, section 3.2),
for integers below OIDs of 20 arcs; names are longer, and an agent that cannot says tooBig."""
MAX_REPETITIONS = 24
"""Rows that one GETBULK asks for; an agent sends fewer when they do not fit (RFC 3416, section 4.2.3)."""

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
_TOO_BIG, _NO_SUCH_NAME, _GEN_ERR = 1, 2, 5
_STATUS_AUTHENTICATION = frozenset({6, 16})  # noAccess, authorizationError
_STATUS_MISSING = frozenset({2, 11, 18})  # noSuchName (v1), noCreation, inconsistentName


@dataclass(frozen=True, slots=True)
class _Reply:
    """An answer: its error-status and error-index, 0 when all is well, and what it binds."""

    status: int
    word: str
    index: int
    bound: list[tuple[str, Value]]


class SnmpSession:
    """Questions to one agent. Each call is one request and its answer where they fit, or a `PowerError`."""

    def __init__(self, name: str, settings: SnmpSettings, pool: EnginePool) -> None:
        self._name = name
        self._settings = settings
        self._pool = pool
        self._credentials: Credentials | None = None
        self._shared: SharedEngine | None = None
        self._targets: tuple[Any, Any] | None = None
        self._unanswered = 0
        self._max_bindings = MAX_BINDINGS

    async def get(self, *oids: str, outlet: str | None = None) -> list[Value]:
        """GET; one value per OID, None where the agent has no such instance."""
        found = await self.get_each(oids, outlet=outlet)
        values: list[Value] = []
        for oid in oids:
            value = found[oid]
            if isinstance(value, PowerError):
                raise value
            values.append(value)
        return values

    async def get_each(self, oids: Sequence[str], *, outlet: str | None = None) -> dict[str, Value | PowerError]:
        """GET of any number, as few requests as the agent bears; an object that it fails at has its error.

        Raises:
            PowerError: it did not answer, or answered no to everything.
        """
        found: dict[str, Value | PowerError] = {}
        waiting = [list(oids[at : at + self._max_bindings]) for at in range(0, len(oids), self._max_bindings)]
        while waiting:
            part = waiting.pop()
            reply = await self._ask(pysnmp.get_cmd, [(oid, None, 0) for oid in part], outlet)
            if reply.status == 0:
                self._check_same(part, reply, outlet)
                found.update(reply.bound)
            elif self._is_missing_in_v1(reply) and 1 <= reply.index <= len(part):
                found[part.pop(reply.index - 1)] = None  # v1 fails the whole request for one missing object
                waiting += [part] if part else []
            elif len(part) > 1 and reply.status in {_TOO_BIG, _NO_SUCH_NAME, _GEN_ERR}:
                half = len(part) // 2
                waiting += [part[:half], part[half:]]
                if reply.status == _TOO_BIG:
                    self._max_bindings = max(1, half)
            elif self._is_missing_in_v1(reply):
                found[part[0]] = None
            elif reply.status in _STATUS_AUTHENTICATION or len(part) > 1 or len(oids) == 1:
                raise self._answered_no(reply, outlet)
            else:
                found[part[0]] = self._answered_no(reply, outlet)
        return found

    async def get_next(self, *oids: str) -> list[tuple[str, Value]]:
        """GETNEXT; one (OID, value) per OID, value None at the end of the MIB."""
        reply = await self._ask(pysnmp.next_cmd, [(oid, None, 0) for oid in oids], None)
        if self._is_missing_in_v1(reply):
            if len(oids) == 1:
                return [(oids[0], None)]
            return [(await self.get_next(oid))[0] for oid in oids]
        if reply.status:
            raise self._answered_no(reply, None)
        if len(reply.bound) != len(oids):
            raise self._strange(f"{len(reply.bound)} objects where {len(oids)} were asked for", None)
        for asked, (oid, value) in zip(oids, reply.bound, strict=True):
            self._check_after(asked, oid, value)
        return reply.bound

    async def walk(self, start: str, limit: int) -> list[tuple[str, Value]]:
        """All instances below `start`, at most `limit`: by GETBULK, and GETNEXT in version 1, which has no other."""
        found: list[tuple[str, Value]] = []
        at = start
        while len(found) < limit:
            for oid, value in await self._following(at):
                if value is None or not oid.startswith(f"{start}."):
                    return found
                self._check_after(at, oid, value)
                found.append((oid, value))
                at = oid
        return found[:limit]

    async def set(self, oid: str, value: int | str, kind: ValueKind, *, outlet: str) -> bool:
        """SET one object. Sent once: whether to send it again is not decided here. False where the agent says that
        there is no such object to write."""
        reply = await self._ask(pysnmp.set_cmd, [(oid, kind, value)], outlet)
        if reply.status in _STATUS_MISSING:
            return False
        if reply.status:
            raise self._answered_no(reply, outlet)
        self._check_same([oid], reply, outlet)
        return reply.bound[0][1] is not None

    def close(self) -> None:
        """Give the engine back."""
        shared, self._shared = self._shared, None
        if shared is not None:
            self._pool.give_back(shared)

    async def _following(self, at: str) -> list[tuple[str, Value]]:
        if self._settings.version == "1":
            return await self.get_next(at)
        reply = await self._ask(pysnmp.bulk_cmd, [(at, None, 0)], None, (0, MAX_REPETITIONS))
        if reply.status:
            raise self._answered_no(reply, None)
        return reply.bound or [(at, None)]

    async def _ask(
        self,
        command: Any,
        wanted: Sequence[tuple[str, ValueKind | None, int | str]],
        outlet: str | None,
        numbers: tuple[int, ...] = (),
    ) -> _Reply:
        shared, targets = await self._ready()
        target = targets[0] if command is pysnmp.set_cmd else targets[1]
        try:
            objects = [shared.binding(*item) for item in wanted]
            indication, status, index, answers = await command(
                shared.engine, shared.auth, target, pysnmp.ContextData(), *numbers, *objects, lookupMib=False
            )
        except PySnmpError as problem:
            raise UnreachableError(
                f"the request failed: {problem}", controller=self._name, outlet=outlet, do="check host and port"
            ) from problem
        if indication is not None:
            raise await self._indicated(indication, outlet)
        self._unanswered = 0
        if number := int(status):
            word = status.prettyPrint() if hasattr(status, "prettyPrint") else str(number)
            return _Reply(number, word, int(index), [])
        return _Reply(0, "", 0, [(str(name), _plain(value)) for name, value in answers])

    async def _ready(self) -> tuple[SharedEngine, tuple[Any, Any]]:
        if self._credentials is None:
            self._credentials = await asyncio.to_thread(read_credentials, self._name, self._settings)
        if self._shared is None:
            self._shared = await self._pool.take(self._credentials)
        if self._targets is None:
            # A SET is sent once, so it may wait as long as a GET with its retries: some agents need more than a
            # second to answer one (net-snmp #194).
            retries, timeout_s = self._settings.retries, self._settings.timeout_s
            self._targets = (await self._target(timeout_s * (retries + 1), 0), await self._target(timeout_s, retries))
        dispatcher = self._shared.engine.transport_dispatcher
        if dispatcher is not None and dispatcher.get_timer_resolution() != TIMER_RESOLUTION_S:
            dispatcher.set_timer_resolution(TIMER_RESOLUTION_S)
        return self._shared, self._targets

    async def _target(self, timeout_s: float, retries: int) -> Any:
        kind = pysnmp.Udp6TransportTarget if ":" in self._settings.host else pysnmp.UdpTransportTarget
        where = (self._settings.host, self._settings.port)
        try:
            return await kind.create(where, timeout=timeout_s, retries=retries)
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
        self._targets = None  # a name may stand for another address by now
        if self._settings.version != "3" or self._shared is None or self._credentials is None:
            return
        if self._unanswered in RENEW_AFTER or self._unanswered % RENEW_EVERY == 0:
            shared, self._shared = self._shared, None
            self._shared = await self._pool.take(self._credentials, instead_of=shared)

    def _is_missing_in_v1(self, reply: _Reply) -> bool:
        """RFC 1157, section 4.1.2: version 1 says noSuchName for what later versions answer object by object."""
        return self._settings.version == "1" and reply.status == _NO_SUCH_NAME

    def _check_same(self, asked: Sequence[str], reply: _Reply, outlet: str | None) -> None:
        for oid, (answered, _) in zip(asked, reply.bound, strict=False):
            if oid != answered:
                raise self._strange(f"it was asked for {oid} and answered for {answered}", outlet)
        if len(asked) != len(reply.bound):
            raise self._strange(f"{len(reply.bound)} objects where {len(asked)} were asked for", outlet)

    def _check_after(self, asked: str, answered: str, value: Value) -> None:
        """RFC 3416, section 4.2.2: what GETNEXT answers stands behind what was asked, or a walk goes in circles."""
        if value is not None and arcs(answered) <= arcs(asked):
            raise self._strange(f"asked for what follows {asked} it answered {answered}", None)

    def _strange(self, what: str, outlet: str | None) -> RefusedError:
        return RefusedError(
            f"the device's answer cannot be used: {what}",
            controller=self._name,
            outlet=outlet,
            do="update its firmware, or put the device's fault down to its maker",
        )

    def _answered_no(self, reply: _Reply, outlet: str | None) -> PowerError:
        if reply.status in _STATUS_AUTHENTICATION:
            return AuthenticationError(
                f"the device answered {reply.word}",
                controller=self._name,
                outlet=outlet,
                do="use a community or user that may do this",
            )
        return RefusedError(
            f"the device answered {reply.word}",
            controller=self._name,
            outlet=outlet,
            do="look whether the outlet is locked, or its control is disabled, in the device's own pages",
        )


_ABSENT = (
    rfc1905.NoSuchObject,
    rfc1905.NoSuchInstance,
    rfc1905.EndOfMibView,
    rfc1905.UnSpecified,
    rfc1902.Null,
)


def _plain(value: Any) -> Value:
    """Pysnmp's value as Python's. What it decodes is of pyasn1's classes as well as of its own, so that they are told
    apart by what they can do."""
    if isinstance(value, _ABSENT):
        return None
    if hasattr(value, "asOctets"):
        return bytes(value)
    return int(value) if hasattr(value, "__int__") else str(value)
