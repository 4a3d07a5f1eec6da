"""SNMP around tables: pysnmp's engine answers v1, v2c and v3 (authPriv) requests from a `PduTables`."""

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pysnmp.carrier.asyncio.dgram import udp  # type: ignore[import-untyped]
from pysnmp.entity import config  # type: ignore[import-untyped]
from pysnmp.entity.engine import SnmpEngine  # type: ignore[import-untyped]
from pysnmp.entity.rfc3413 import cmdrsp, context  # type: ignore[import-untyped]
from pysnmp.proto.api import v2c  # type: ignore[import-untyped]
from pysnmp.smi import error as smi_error  # type: ignore[import-untyped]
from pysnmp.smi.instrum import AbstractMibInstrumController  # type: ignore[import-untyped]

from virtual_lab.snmp_pdu_ber import V1, V2C, LightResponder, version_of
from virtual_lab.snmp_pdu_model import (
    Counter32,
    Counter64,
    Gauge,
    IpAddress,
    Oid,
    Opaque,
    RefusedSetError,
    TimeTicks,
    Value,
)

_AUTH = {
    "none": config.USM_AUTH_NONE,
    "md5": config.USM_AUTH_HMAC96_MD5,
    "sha": config.USM_AUTH_HMAC96_SHA,
    "sha256": config.USM_AUTH_HMAC192_SHA256,
    "sha512": config.USM_AUTH_HMAC384_SHA512,
}
_PRIV = {
    "none": config.USM_PRIV_NONE,
    "des": config.USM_PRIV_CBC56_DES,
    "aes": config.USM_PRIV_CFB128_AES,
    "aes256": config.USM_PRIV_CFB256_AES,
}
_LEVELS = ("noAuthNoPriv", "authNoPriv", "authPriv")
_ALL: Oid = (1, 3, 6, 1)
_NONE: Oid = (1, 3, 6, 1, 6, 3, 16)
"""A subtree without any of our objects. pysnmp lets everybody write where the write view is empty."""
_STATUS_ERRORS = {
    "genErr": smi_error.GenError,
    "noCreation": smi_error.NoCreationError,
    "notWritable": smi_error.NotWritableError,
    "wrongType": smi_error.WrongTypeError,
    "wrongValue": smi_error.WrongValueError,
}


@dataclass(frozen=True, slots=True)
class V3User:
    """One SNMPv3 user of the PDU. Keys are passwords of at least eight characters (RFC 3414)."""

    name: str
    auth_protocol: str = "none"
    auth_key: str | None = None
    priv_protocol: str = "none"
    priv_key: str | None = None
    may_write: bool = True

    @property
    def level(self) -> str:
        return _LEVELS[(self.auth_protocol != "none") + (self.priv_protocol != "none")]


class Tables(Protocol):
    """What is answered from: `snmp_pdu_tables.PduTables`, or a recording."""

    def answer(self, oid: Oid) -> tuple[Oid, Value | None]: ...
    def next(self, oid: Oid) -> tuple[Oid, Value] | None: ...
    def set_all(self, bindings: Sequence[tuple[Oid, Value]]) -> list[tuple[Oid, Value]]: ...


class Line(Protocol):
    """What happens to packets: `snmp_pdu_faults.LineFaults`."""

    late_s: float

    def lets_in(self) -> bool: ...
    def lets_out(self) -> bool: ...


_TYPES: dict[type, Any] = {
    int: v2c.Integer32,
    str: v2c.OctetString,
    bytes: v2c.OctetString,
    tuple: v2c.ObjectIdentifier,
    Gauge: v2c.Gauge32,
    Counter32: v2c.Counter32,
    Counter64: v2c.Counter64,
    TimeTicks: v2c.TimeTicks,
    IpAddress: v2c.IpAddress,
    Opaque: v2c.Opaque,
}
_WRITTEN: dict[Any, Callable[[Any], Value]] = {
    v2c.Integer32.tagSet: int,
    v2c.OctetString.tagSet: bytes,
    v2c.ObjectIdentifier.tagSet: tuple,
    v2c.Gauge32.tagSet: lambda value: Gauge(int(value)),
    v2c.Counter32.tagSet: lambda value: Counter32(int(value)),
    v2c.Counter64.tagSet: lambda value: Counter64(int(value)),
    v2c.TimeTicks.tagSet: lambda value: TimeTicks(int(value)),
    v2c.IpAddress.tagSet: lambda value: IpAddress(bytes(value)),
    v2c.Opaque.tagSet: lambda value: Opaque(bytes(value)),
}


def _encoded(value: Value) -> Any:
    return _TYPES[type(value)](value)


def _decoded(value: Any) -> Value:
    convert = _WRITTEN.get(value.tagSet)
    if convert is None:
        raise RefusedSetError("wrongType")
    return convert(value)


class _Instrumentation(AbstractMibInstrumController):  # type: ignore[misc]
    """pysnmp's own MIB tree replaced: it asks our tables."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    @staticmethod
    def _check(view: str, bindings: Iterable[Any], asked: dict[str, Any]) -> None:
        """Ask pysnmp's access control; it returns True for what is outside of the view, and raises for the rest."""
        verify = asked["acFun"]
        rest = {key: value for key, value in asked.items() if key not in {"acFun", "idx"}}
        for number, (name, value) in enumerate(bindings):
            if verify(view, (name, value), idx=number, **rest) and view == "write":
                raise smi_error.NoAccessError(name=name, idx=number)

    def read_variables(self, *bindings: Any, **asked: Any) -> list[Any]:
        self._check("read", bindings, asked)
        found = [self._tables.answer(tuple(name)) for name, _ in bindings]
        return [
            (v2c.ObjectIdentifier(name), v2c.NoSuchInstance("") if value is None else _encoded(value))
            for name, value in found
        ]

    def read_next_variables(self, *bindings: Any, **asked: Any) -> list[Any]:
        self._check("read", bindings, asked)
        answers = []
        for name, _ in bindings:
            following = self._tables.next(tuple(name))
            if following is None:
                answers.append((name, v2c.EndOfMibView("")))
            else:
                answers.append((v2c.ObjectIdentifier(following[0]), _encoded(following[1])))
        return answers

    def write_variables(self, *bindings: Any, **asked: Any) -> list[Any]:
        self._check("write", bindings, asked)
        try:
            written = self._tables.set_all([(tuple(name), _decoded(value)) for name, value in bindings])
        except RefusedSetError as refusal:
            raise _STATUS_ERRORS[refusal.status](name=bindings[refusal.at][0], idx=refusal.at) from refusal
        return [(v2c.ObjectIdentifier(name), bound[1]) for (name, _), bound in zip(written, bindings, strict=True)]


class _Transport(udp.UdpAsyncioTransport):  # type: ignore[misc]
    """A UDP socket with the faults of its line; engines come and go behind it."""

    def __init__(self, line: Line, light: LightResponder | None, wake: Callable[[], None]) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._line = line
        self._light = light
        self._wake = wake
        self._late: set[asyncio.TimerHandle] = set()
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.closed.set()

    def datagram_received(self, datagram: bytes, address: Any) -> None:
        if not self._line.lets_in():
            return
        if self._light is not None and version_of(datagram) in {V1, V2C}:
            answer = self._light.answer(datagram)
            if answer is not None:
                self.send_message(answer, address)
            return
        self._wake()
        # At once: pysnmp's own would call it in the next turn of the loop, when its engine may have been replaced.
        self._callback_function(self, address, datagram)

    def send_message(self, message: bytes, address: Any) -> None:
        if not self._line.lets_out():
            return
        if self._line.late_s <= 0:
            super().send_message(message, address)
            return

        def send() -> None:
            self._late.discard(timer)
            super(_Transport, self).send_message(message, address)

        timer = self.loop.call_later(self._line.late_s, send)
        self._late.add(timer)

    def shut(self) -> None:
        """Close the socket; answers that are late are never sent."""
        for timer in self._late:
            timer.cancel()
        if self.transport is not None:
            self.transport.close()


@dataclass(frozen=True, slots=True)
class Access:
    """Whom a device lets in. Any other community meets silence, and SETs with the one that reads noAccess."""

    read_community: str
    write_community: str
    users: tuple[V3User, ...] = ()


class Responder:
    """One SNMP agent on one UDP socket. `boot` first, then `serve`.

    Args:
        light: answer v1 and v2c by `snmp_pdu_ber`; pysnmp's engine is then made at the first packet of v3.
    """

    def __init__(self, tables: Tables, line: Line, access: Access, *, light: bool = False) -> None:
        self._tables = tables
        self._access = access
        self._light = LightResponder(tables, access.read_community, access.write_community) if light else None
        self._transport = _Transport(line, self._light, self._wake)
        self._engine: SnmpEngine | None = None
        self._engine_id = ""

    def boot(self, engine_id: str) -> None:
        """A new engine takes the place of the one before, on the same socket; pysnmp counts its boots up."""
        if self._engine is not None:
            config.delete_transport(self._engine, udp.DOMAIN_NAME)
            self._transport.unregister_callback()
        self._engine, self._engine_id = None, engine_id
        if self._light is None:
            self._wake()

    def _wake(self) -> None:
        """Make the engine where it has not been made yet; 0.1 s of CPU."""
        if self._engine is not None:
            return
        engine = self._engine = SnmpEngine(snmpEngineID=v2c.OctetString(hexValue=self._engine_id))
        served = context.SnmpContext(engine)
        served.unregister_context_name(v2c.OctetString(""))
        served.register_context_name(v2c.OctetString(""), _Instrumentation(self._tables))
        for responder in (
            cmdrsp.GetCommandResponder,
            cmdrsp.NextCommandResponder,
            cmdrsp.BulkCommandResponder,
            cmdrsp.SetCommandResponder,
        ):
            responder(engine, served)
        self._allow(engine)
        config.add_transport(engine, udp.DOMAIN_NAME, self._transport)

    def _allow(self, engine: SnmpEngine) -> None:
        """Let these in, and nobody else."""
        communities = {self._access.read_community: _NONE} | {self._access.write_community: _ALL}
        for number, (community, write) in enumerate(communities.items()):
            area = f"community-{number}"
            config.add_v1_system(engine, area, community)
            for model in (1, 2):
                config.add_vacm_user(engine, model, area, "noAuthNoPriv", _ALL, write)
        for user in self._access.users:
            config.add_v3_user(
                engine, user.name, _AUTH[user.auth_protocol], user.auth_key, _PRIV[user.priv_protocol], user.priv_key
            )
            config.add_vacm_user(engine, 3, user.name, user.level, _ALL, _ALL if user.may_write else _NONE)

    async def serve(self, sock: socket.socket) -> None:
        """Answer on `sock`, which is bound, until `close`."""
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self._transport, sock=sock)

    async def close(self) -> None:
        """Stop answering and close the socket; its port is free when this returns."""
        if self._engine is not None:
            self._engine.close_dispatcher()
        self._transport.shut()
        if self._transport.transport is not None:
            await self._transport.closed.wait()
