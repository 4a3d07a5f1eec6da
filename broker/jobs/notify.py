"""Telling others of a job's end: on an MQTT topic, and by webhooks.

What is to be told stands in the store from the transaction in which the job ended, so a restart forgets nobody; who
was told just before a kill -9 is told twice. Webhooks run on threads with timeouts: a server that never answers holds
up nobody.

A webhook is a POST of the job's summary as JSON (`JobSummary`), signed where a secret is set:
`X-Boardhand-Signature: sha256=HEX`, HMAC-SHA256 of the body; `X-Boardhand-Delivery` is the same at each try.
"""

import asyncio
import hashlib
import hmac
import http.client
import logging
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from broker.jobs.life import Job
from broker.jobs.result_store import Notice
from broker.jobs.store import JobStore
from broker.store.sql import StoreUnavailableError
from wire.payloads import JobSummary, encode

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
MAX_TRIES = 6
AGAIN_S = (2.0, 10.0, 60.0, 300.0, 900.0)
"""After the first try, the second, …: a CI server that restarts is back by then."""
AT_ONCE = 8
LOOK_AGAIN_S = 60.0
MAX_ANSWER_BYTES = 64 * 1024
OK_FROM, OK_BELOW = 200, 300
TRY_LATER = {408, 425, 429}
MAX_SECRET_BYTES = 4096

Publish = Callable[[str, JobSummary], Awaitable[bool]]
"""Says a summary under `notify/<name>`; whether the server has it."""


class NoticeError(Exception):
    """A webhook was not taken. `again`: it may be taken later."""

    def __init__(self, message: str, *, again: bool) -> None:
        super().__init__(message)
        self.again = again


def not_allowed(url: str, prefixes: Sequence[str]) -> str | None:
    """Why a job may not name this webhook, or None. Prefixes end their host with a slash, see the settings."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None:
        return "write no user name or password into the URL: everybody who sees the job would see them"
    if not prefixes:
        return "this broker calls no webhooks: webhooks in its settings is empty"
    # `..` and backslashes are read in many ways; a prefix with a path must not be left by them.
    if ".." in parts.path or "%2e" in parts.path.lower() or "\\" in url:
        return "its path holds '..'"
    if any(url.startswith(prefix) for prefix in prefixes):
        return None
    return f"the broker's settings allow only {', '.join(prefixes[:4])}"


def read_secret(path: Path) -> bytes:
    """The secret for signatures.

    Raises:
        OSError: it cannot be read.
        ValueError: it is empty or too long for a secret.
    """
    with path.open("rb") as file:
        secret = file.read(MAX_SECRET_BYTES + 1).strip()
    if not secret or len(secret) > MAX_SECRET_BYTES:
        raise ValueError(f"{path}: is empty, or longer than {MAX_SECRET_BYTES} bytes")
    return secret


def signature(secret: bytes, body: bytes) -> str:
    """The value of `X-Boardhand-Signature`."""
    return "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()


def call(url: str, body: bytes, delivery: str, secret: bytes | None, *, event: str = "job") -> None:
    """POST a webhook. Blocks, at most some `TIMEOUT_S`; follows no redirect.

    Raises:
        NoticeError: it was not taken.
    """
    parts = urlsplit(url)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "boardhand",
        "X-Boardhand-Event": event,
        "X-Boardhand-Delivery": delivery,
    }
    if secret is not None:
        headers["X-Boardhand-Signature"] = signature(secret, body)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection: http.client.HTTPConnection
    try:
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection = http.client.HTTPSConnection(parts.netloc, timeout=TIMEOUT_S, context=context)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_S)
        try:
            connection.request("POST", target, body, headers)
            answer = connection.getresponse()
            answer.read(MAX_ANSWER_BYTES)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoticeError(f"{url}: {str(error) or type(error).__name__}", again=True) from None
    if not OK_FROM <= answer.status < OK_BELOW:
        again = answer.status >= 500 or answer.status in TRY_LATER
        raise NoticeError(f"{url}: answered {answer.status} {answer.reason}"[:500], again=again)


class Notifier:
    """Tells what the store says is to be told. `look` when a job has ended; `run` does the rest."""

    def __init__(self, store: JobStore, publish: Publish, prefixes: Sequence[str], secret: bytes | None) -> None:
        self._store, self._publish = store, publish
        self._prefixes, self._secret = prefixes, secret
        self._news = asyncio.Event()
        self._due: dict[int, float] = {}
        """Jobs that are tried again, by loop time."""

    def look(self) -> None:
        """Jobs have ended."""
        self._news.set()

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._news.clear()
            try:
                due = [n for n in await self._store.results.notices(1000) if self._due.get(n.job, 0.0) <= loop.time()]
                for at in range(0, len(due), AT_ONCE):
                    await asyncio.gather(*(self._tell(notice) for notice in due[at : at + AT_ONCE]))
            except StoreUnavailableError as error:
                # Somebody may be told twice; nobody is forgotten.
                log.warning("who is to be told of ended jobs is looked up later: %s", error)
            until = min([*self._due.values(), loop.time() + LOOK_AGAIN_S])
            try:
                async with asyncio.timeout_at(until):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _tell(self, notice: Notice) -> None:
        found = await self._store.job(notice.job)
        if found is None:
            return
        job, _ = found
        try:
            await self._tell_all(job)
        except NoticeError as error:
            last = not error.again or notice.tries + 1 >= MAX_TRIES
            log.warning("%s: its end could not be told%s: %s", job.id, "" if last else " yet", error)
            await self._store.results.noticed(job.number, done=last, problem=str(error)[:1000])
            self._due.pop(job.number, None)
            if not last:
                pause_s = AGAIN_S[min(notice.tries, len(AGAIN_S) - 1)]
                self._due[job.number] = asyncio.get_running_loop().time() + pause_s
            return
        self._due.pop(job.number, None)
        await self._store.results.noticed(job.number, done=True, problem=None)

    async def _tell_all(self, job: Job) -> None:
        notify, summary = job.spec.notify, job.summary()
        if notify is None:
            return
        if notify.webhook is not None:
            # The settings may have changed since the job was taken.
            if (why := not_allowed(notify.webhook, self._prefixes)) is not None:
                raise NoticeError(f"{notify.webhook}: {why}", again=False)
            delivery = f"{job.id}-{int(job.ended.timestamp()) if job.ended is not None else 0}"
            await asyncio.to_thread(call, notify.webhook, encode(summary), delivery, self._secret)
        if notify.mqtt is not None and not await self._publish(notify.mqtt, summary):
            raise NoticeError("the MQTT server is away", again=True)
