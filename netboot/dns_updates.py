"""Keeps the boards' names in a DNS server that takes updates (RFC 2136), signed with TSIG (RFC 8945).

One task sends one update after the other; a server that does not answer delays names and nothing else.
"""

import asyncio
import base64
import binascii
import contextlib
import logging
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import dns.exception
import dns.name
import dns.tsig

from netboot.dns_exchange import exchange, judged_error
from netboot.dns_names import DnsNames, State
from netboot.dns_records import Address, Answer, Trouble, Update, Verdict, ZoneSettings

log = logging.getLogger(__name__)

DNS_PORT = 53
RESOLVE_TIMEOUT_S = 5.0
NOT_STORED_RETRY_S = 30.0

_KEY = re.compile(r'key\s+"?([^\s"{;]+)"?\s*\{([^}]*)\}\s*;?', re.IGNORECASE)
_COMMENT = re.compile(r"/\*.*?\*/|(?://|#)[^\n]*", re.DOTALL)
_ALGORITHMS = {
    "hmac-sha256": dns.tsig.HMAC_SHA256,
    "hmac-sha384": dns.tsig.HMAC_SHA384,
    "hmac-sha512": dns.tsig.HMAC_SHA512,
}
"""RFC 8945, section 6: MD5 and SHA-1 are not to be used."""

SaveState = Callable[[State], Awaitable[None]]


class KeyFileError(ValueError):
    """The TSIG key cannot be had from its file. The message names the file, never the secret."""


@dataclass(frozen=True, slots=True)
class DnsServer:
    """The zone's primary. `host` is an address or a name; `key_name` may be left out where the file has one key."""

    host: str
    key_file: Path
    key_name: str | None = None
    port: int = DNS_PORT


def parse_key(text: str, name: str | None, source: str) -> dns.tsig.Key:
    """A key as BIND's `tsig-keygen` writes it: `key "NAME" { algorithm hmac-sha256; secret "BASE64"; };`.

    Raises:
        KeyFileError: there is no such key, or it cannot be used.
    """
    # A secret may hold "//", so comments are looked for outside of quotes only.
    plain = "".join(part if i % 2 else _COMMENT.sub(" ", part) for i, part in enumerate(re.split(r'("[^"\n]*")', text)))
    keys = {found[0].rstrip(".").lower(): found[1] for found in _KEY.findall(plain)}
    if not keys:
        raise KeyFileError(f"{source}: no key in BIND's format; make one with 'tsig-keygen NAME'")
    if name is None and len(keys) > 1:
        raise KeyFileError(f"{source}: holds the keys {', '.join(sorted(keys))}; say in key_name which is ours")
    wanted = next(iter(keys)) if name is None else name.rstrip(".").lower()
    if wanted not in keys:
        raise KeyFileError(f"{source}: has no key {name!r}; it has {', '.join(sorted(keys))}")
    fields = dict(re.findall(r'(\w+)\s+"?([^\s";]+)"?\s*;', keys[wanted]))
    algorithm = _ALGORITHMS.get(fields.get("algorithm", "").rstrip(".").lower())
    if algorithm is None:
        raise KeyFileError(f"{source}: key {wanted}: the algorithm must be one of {', '.join(_ALGORITHMS)}")
    try:
        secret = base64.b64decode(fields.get("secret", ""), validate=True)
        owner = dns.name.from_text(wanted)
    except (binascii.Error, dns.exception.DNSException):
        raise KeyFileError(f"{source}: key {wanted}: its secret is not base64, or its name no domain name") from None
    if not secret:
        raise KeyFileError(f"{source}: key {wanted} has no secret")
    return dns.tsig.Key(owner, secret, algorithm)


def load_key(server: DnsServer) -> dns.tsig.Key:
    """The key of `server`, read from its file.

    Raises:
        KeyFileError: the file cannot be read, or has no key for us.
    """
    try:
        text = server.key_file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "is not text"
        raise KeyFileError(f"key_file {server.key_file}: {why}") from None
    return parse_key(text, server.key_name, f"key_file {server.key_file}")


class DnsUpdates:
    """Keeps names as `want` said, from `start` to `stop`. Names stay in DNS when it stops: the boards are still there.

    `save` stores the state before an update is sent. `on_troubles` is told whenever the troubles have changed: owner
    name to what is wrong and what to do; it runs in the event loop and must not block.

    Raises:
        DnsStateError: `state` cannot be read.
    """

    def __init__(
        self,
        zones: ZoneSettings,
        server: DnsServer,
        *,
        state: State | None,
        save: SaveState,
        on_troubles: Callable[[dict[str, str]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._server = server
        self._names = DnsNames(zones, state)
        self._save = save
        self._on_troubles = on_troubles
        self._clock = clock
        self._key: dns.tsig.Key | None = None
        self._troubles: dict[str, str] = {}
        self._changed = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.sent = 0
        """Updates that were sent since the start."""

    async def start(self) -> None:
        """Begin, in the background.

        Raises:
            KeyFileError: there is no key to sign with.
        """
        self._key = await asyncio.to_thread(load_key, self._server)
        self._task = asyncio.create_task(self._run(), name="dns names")

    async def stop(self) -> None:
        """End; an update under way may or may not arrive, and is repeated at the next start. May be called twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def want(self, boards: Mapping[str, Iterable[Address]]) -> None:
        """As `DnsNames.want`: all boards, each with its addresses where they are known."""
        self._names.want(boards, self._clock())
        self._idle.clear()
        self._changed.set()

    def troubles(self) -> dict[str, str]:
        """Owner name to why it is not as wanted, and what to do."""
        return self._names.troubles()

    async def settled(self) -> None:
        """Wait until nothing is due. Names with troubles wait for their next try and do not count."""
        await self._idle.wait()

    # --- the task --------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                await self._round()
            except Exception:
                # A fault of ours costs names for a while; boards boot without them.
                log.exception("names in DNS: a fault of our own")
                await asyncio.sleep(NOT_STORED_RETRY_S)

    async def _round(self) -> None:
        self._changed.clear()
        update = self._names.next_update(self._clock())
        if update is None:
            self._tell()
            self._idle.set()
            await self._wait(self._names.next_due())
            return
        answer = await self._store()
        if answer is None:
            answer = await self._send(update)
            self.sent += 1
        self._names.answered(update, answer, self._clock())
        if self._names.unsaved:
            await self._store()

    async def _wait(self, due: float | None) -> None:
        # next_due is in the past while nobody has said what is wanted.
        timeout_s = None if due is None or due <= self._clock() else due - self._clock()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()

    def _tell(self) -> None:
        troubles = self._names.troubles()
        if troubles == self._troubles:
            return
        for name in sorted(troubles.keys() - self._troubles.keys()):
            log.warning("DNS: %s is not as wanted: %s", name.rstrip("."), troubles[name])
        for name in sorted(self._troubles.keys() - troubles.keys()):
            log.info("DNS: %s is as wanted again", name.rstrip("."))
        self._troubles = troubles
        if self._on_troubles is not None:
            self._on_troubles(dict(troubles))

    async def _store(self) -> Answer | None:
        """Store what may soon stand in DNS. None: it is stored."""
        if not self._names.unsaved:
            return None
        self._names.unsaved = False
        try:
            await self._save(self._names.state())
        except Exception as error:
            # Whatever the owner's store raises: what is not stored is not sent, or it would stay in DNS for ever.
            self._names.unsaved = True
            log.exception("names in DNS: the state cannot be stored")
            return Answer(Verdict.FAILED, Trouble.NOT_STORED, type(error).__name__)
        return None

    # --- one exchange ----------------------------------------------------------------------------------------

    async def _send(self, update: Update) -> Answer:
        try:
            key = self._key or await asyncio.to_thread(load_key, self._server)
            host = await self._address()
        except KeyFileError as error:
            return Answer(Verdict.FAILED, Trouble.KEY, str(error))
        except OSError as error:
            return judged_error(error)
        message = update.message()
        message.use_tsig(key)
        answer = await exchange(message, host, self._server.port)
        # A key that the server does not take may be another one in its file by the next time.
        self._key = None if answer.trouble in {Trouble.KEY, Trouble.SIGNATURE} else key
        return answer

    async def _address(self) -> str:
        host = self._server.host
        try:
            return str(ip_address(host))
        except ValueError:
            pass  # a name
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, self._server.port, type=socket.SOCK_DGRAM)
        return str(found[0][4][0])
