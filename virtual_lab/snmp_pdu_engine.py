"""SNMP around tables: pysnmp's engine answers v1, v2c and v3 (authPriv) requests from a `PduTables`."""

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from pysnmp.carrier.asyncio.dgram import udp  # type: ignore[import-untyped]
from pysnmp.entity import config  # type: ignore[import-untyped]
from pysnmp.entity.engine import SnmpEngine  # type: ignore[import-untyped]
from pysnmp.entity.rfc3413 import cmdrsp, context  # type: ignore[import-untyped]
from pysnmp.proto.api import v2c  # type: ignore[import-untyped]
from pysnmp.smi import error as smi_error  # type: ignore[import-untyped]
from pysnmp.smi.instrum import AbstractMibInstrumController  # type: ignore[import-untyped]

from virtual_lab.snmp_pdu_tables import Oid, RefusedSetError

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
    """What is answered from: `snmp_pdu_tables.PduTables`."""

    def get(self, oid: Oid) -> int | str | Oid | None: ...
    def next(self, oid: Oid) -> tuple[Oid, int | str | Oid] | None: ...
    def set(self, oid: Oid, value: object) -> None: ...


def _encoded(value: int | str | Oid) -> Any:
    if isinstance(value, int):
        return v2c.Integer32(value)
    return v2c.OctetString(value) if isinstance(value, str) else v2c.ObjectIdentifier(value)


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
        found = [(name, self._tables.get(tuple(name))) for name, _ in bindings]
        return [(name, v2c.NoSuchInstance("") if value is None else _encoded(value)) for name, value in found]

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
        for number, (name, value) in enumerate(bindings):
            try:
                self._tables.set(tuple(name), int(value) if isinstance(value, v2c.Integer32) else bytes(value))
            except RefusedSetError as refusal:
                raise _STATUS_ERRORS[refusal.status](name=name, idx=number) from refusal
        return list(bindings)


class _Transport(udp.UdpAsyncioTransport):  # type: ignore[misc]
    """A UDP socket that can be deaf: what comes in is dropped unread."""

    def __init__(self, is_deaf: Callable[[], bool]) -> None:
        super().__init__(loop=asyncio.get_running_loop())
        self._is_deaf = is_deaf
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.closed.set()

    def datagram_received(self, datagram: bytes, address: Any) -> None:
        if not self._is_deaf():
            super().datagram_received(datagram, address)


class Responder:
    """One SNMP agent on one UDP socket."""

    def __init__(self, tables: Tables, is_deaf: Callable[[], bool], engine_id: str) -> None:
        self._engine = SnmpEngine(snmpEngineID=v2c.OctetString(hexValue=engine_id))
        self._is_deaf = is_deaf
        self._transport: _Transport | None = None
        served = context.SnmpContext(self._engine)
        served.unregister_context_name(v2c.OctetString(""))
        served.register_context_name(v2c.OctetString(""), _Instrumentation(tables))
        for responder in (
            cmdrsp.GetCommandResponder,
            cmdrsp.NextCommandResponder,
            cmdrsp.BulkCommandResponder,
            cmdrsp.SetCommandResponder,
        ):
            responder(self._engine, served)

    def allow(self, read_community: str, write_community: str, users: Iterable[V3User]) -> None:
        """Let these in, and nobody else."""
        for area, community, write in (("reader", read_community, _NONE), ("writer", write_community, _ALL)):
            config.add_v1_system(self._engine, area, community)
            for model in (1, 2):
                config.add_vacm_user(self._engine, model, area, "noAuthNoPriv", _ALL, write)
        for user in users:
            config.add_v3_user(
                self._engine,
                user.name,
                _AUTH[user.auth_protocol],
                user.auth_key,
                _PRIV[user.priv_protocol],
                user.priv_key,
            )
            config.add_vacm_user(self._engine, 3, user.name, user.level, _ALL, _ALL if user.may_write else _NONE)

    async def serve(self, sock: socket.socket) -> None:
        """Answer on `sock`, which is bound, until `close`."""
        self._transport = _Transport(self._is_deaf)
        self._transport.open_server_mode(sock=sock)
        config.add_transport(self._engine, udp.DOMAIN_NAME, self._transport)
        await self._transport._lport  # noqa: SLF001 - pysnmp offers no other way to know that it listens

    async def close(self) -> None:
        """Stop answering and close the socket; its port is free when this returns."""
        self._engine.close_dispatcher()
        if self._transport is not None:
            await self._transport.closed.wait()
