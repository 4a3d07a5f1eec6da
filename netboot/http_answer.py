"""One answer over HTTP: headers, ranges and body of octets or a file, and how it ended."""

import asyncio
import hashlib
import secrets
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter

from netboot.http_files import OCTETS, OpenFile, content_type
from netboot.http_pump import Pump, StalledClientError, Threads
from netboot.http_ranges import (
    ByteRange,
    Part,
    RangeNotSatisfiableError,
    Validators,
    multipart,
    precondition,
    wanted_ranges,
)

COPIED_BYTES = 128 * 1024
"""A piece of a file up to this size is read and written; a larger one goes by sendfile."""
HELD_BACK_BYTES = 4096
"""The end of a large piece, which leaves when the rest has arrived unchanged."""
WRITE_BYTES = 64 * 1024
"""Octets in memory are written in such pieces, each with the stall limit of its own."""
SERVER_NAME = "boardhand"


class Outcome(StrEnum):
    """How an answered question ended."""

    WHOLE = "whole"
    """The last octet of the file went out (all of it, or a range up to its end)."""
    PART = "part"
    """A range that does not reach the end of the file went out."""
    HEAD = "head"
    """Headers alone: HEAD, or the client has the file, or the range does not exist."""
    CUT = "cut"
    """It had begun and was ended early: the client is gone or stalls, or the file changed."""
    FAULT = "fault"
    """Nothing was sent: the file itself is missing, or cannot be read."""


@dataclass(frozen=True, slots=True)
class Pace:
    """What a client has to keep up with. `stall_s`: it takes no octet for so long. `slowest_bytes_s`: its average, once
    `stall_s` has passed."""

    stall_s: float
    slowest_bytes_s: float


@dataclass(slots=True)
class Progress:
    """How far an answer has come."""

    sent_bytes: int = 0
    begun: bool = False
    outcome: Outcome = Outcome.HEAD


@dataclass(frozen=True, slots=True)
class _Plan:
    """An answer that is decided. `parts` are in order; `reaches_end`: the file's last octet is among them."""

    status: int
    headers: dict[str, str]
    parts: list[Part] = field(default_factory=list)
    reaches_end: bool = False


def head_of(request: Mapping[str, str], validators: Validators, size_bytes: int, kind: str) -> _Plan:
    """Decide by the request's headers (RFC 9110 section 13.2.2: preconditions come before ranges)."""
    headers: dict[str, str] = {hdrs.ACCEPT_RANGES: "bytes", hdrs.ETAG: validators.etag}
    if validators.last_modified is not None:
        headers[hdrs.LAST_MODIFIED] = validators.last_modified
    judged = precondition(request, validators)
    if judged == "not-modified":
        return _Plan(304, headers)
    if judged == "failed":
        return _Plan(412, {**headers, hdrs.CONTENT_LENGTH: "0"})
    try:
        ranges = wanted_ranges(request, validators, size_bytes)
    except RangeNotSatisfiableError:
        return _Plan(416, {**headers, hdrs.CONTENT_RANGE: f"bytes */{size_bytes}", hdrs.CONTENT_LENGTH: "0"})
    headers[hdrs.CONTENT_TYPE] = kind
    if ranges is None:
        parts = [Part(b"", ByteRange(0, size_bytes))] if size_bytes else []
        return _Plan(200, {**headers, hdrs.CONTENT_LENGTH: str(size_bytes)}, parts, reaches_end=True)
    reaches_end = any(span.offset + span.count == size_bytes for span in ranges)
    if len(ranges) == 1:
        headers[hdrs.CONTENT_RANGE] = ranges[0].content_range(size_bytes)
        headers[hdrs.CONTENT_LENGTH] = str(ranges[0].count)
        return _Plan(206, headers, [Part(b"", ranges[0])], reaches_end)
    boundary = secrets.token_hex(16)
    parts, length = multipart(ranges, size_bytes, kind, boundary)
    headers[hdrs.CONTENT_TYPE] = f"multipart/byteranges; boundary={boundary}"
    return _Plan(206, {**headers, hdrs.CONTENT_LENGTH: str(length)}, parts, reaches_end)


class Answering:
    """Sends one answer. `progress` tells how far it came, also after an error."""

    def __init__(self, request: web.BaseRequest, threads: Threads, pace: Pace, progress: Progress) -> None:
        self._request = request
        self._threads = threads
        self._pace = pace
        self.progress = progress

    async def octets(self, name: str, data: bytes) -> web.StreamResponse:
        """Send octets in memory. They may hold a secret, so nobody is to keep them.

        Raises:
            StalledClientError, ConnectionError: the client takes nothing, or is gone.
        """
        validators = Validators(f'"{hashlib.sha256(data).hexdigest()[:32]}"')
        plan = head_of(self._request.headers, validators, len(data), content_type(name))
        response, writer = await self._begin(plan, "no-store")
        if self._request.method == hdrs.METH_HEAD or not plan.parts:
            return await self._end(response, plan)
        for part in plan.parts:
            await self._write(response, writer, part.text)
            if part.span is not None:
                await self._write(response, writer, data[part.span.offset : part.span.offset + part.span.count])
        return await self._end(response, plan)

    async def file(self, name: str, file: OpenFile, *, efi_program: bool) -> web.StreamResponse:
        """Send a file and close it.

        Raises:
            FileChangedError: it was changed meanwhile.
            StalledClientError, ConnectionError: the client takes nothing, or is gone.
            OSError: it cannot be read.
        """
        pump = self._pump(file)
        try:
            kind = content_type(name)
            kind = "application/efi" if kind == OCTETS and efi_program else kind
            plan = head_of(self._request.headers, file.validators, file.size_bytes, kind)
            response, writer = await self._begin(plan, "no-cache")
            if self._request.method == hdrs.METH_HEAD or not plan.parts:
                return await self._end(response, plan)
            for part in plan.parts:
                await self._write(response, writer, part.text)
                if part.span is not None:
                    await self._piece(response, writer, pump, part.span)
            return await self._end(response, plan)
        finally:
            pump.close()

    def _pump(self, file: OpenFile) -> Pump:
        transport = self._request.transport
        try:
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client is gone")
            socket_fd = transport.get_extra_info("socket").fileno()
            pace = self._pace
            return Pump(self._threads, socket_fd, file, stall_s=pace.stall_s, slowest_bytes_s=pace.slowest_bytes_s)
        except OSError:
            file.close()
            raise

    async def _piece(
        self, response: web.StreamResponse, writer: AbstractStreamWriter, pump: Pump, span: ByteRange
    ) -> None:
        early = span.count - HELD_BACK_BYTES if span.count > COPIED_BYTES else 0
        if early:
            before = self.progress.sent_bytes
            try:
                await pump.send(span.offset, early)
            finally:
                self.progress.sent_bytes = before + pump.sent_bytes
        last = await pump.read_last(span.offset + early, span.count - early)
        await self._write(response, writer, last)

    async def _begin(self, plan: _Plan, cache: str) -> tuple[web.StreamResponse, AbstractStreamWriter]:
        headers = {**plan.headers, hdrs.CACHE_CONTROL: cache, hdrs.SERVER: SERVER_NAME}
        response = web.StreamResponse(status=plan.status, headers=headers)
        writer = await response.prepare(self._request)
        if writer is None:
            raise ConnectionResetError("the client is gone")
        self.progress.begun = True
        self.progress.outcome = Outcome.CUT
        await self._drain(writer)
        return response, writer

    async def _end(self, response: web.StreamResponse, plan: _Plan) -> web.StreamResponse:
        await response.write_eof()
        if self._request.method == hdrs.METH_HEAD or plan.status >= 300:
            self.progress.outcome = Outcome.HEAD
        else:
            self.progress.outcome = Outcome.WHOLE if plan.reaches_end else Outcome.PART
        return response

    async def _write(self, response: web.StreamResponse, writer: AbstractStreamWriter, data: bytes) -> None:
        for start in range(0, len(data), WRITE_BYTES):
            piece = data[start : start + WRITE_BYTES]
            await self._within(response.write(piece))
            await self._drain(writer)
            self.progress.sent_bytes += len(piece)

    async def _drain(self, writer: AbstractStreamWriter) -> None:
        await self._within(writer.drain())

    async def _within(self, writing: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(self._pace.stall_s):
                await writing
        except TimeoutError:
            raise StalledClientError(f"the client took nothing for {self._pace.stall_s:.0f} s") from None
