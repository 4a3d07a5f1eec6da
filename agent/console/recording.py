"""How a console's recording stands on disk, and how it is searched. Blocking; no clock.

A recording is a folder of segments. A segment's name says where it belongs, `<number>-<boot>-<began µs>.console`, so
nothing else has to be kept in step with it. A segment is a run of records: time, length and kind in 13 bytes, then the
bytes. A record that was cut by a kill -9 or a full disk ends its segment; a writer never goes on in an old one.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

HEADER = struct.Struct("<QIB")
"""Time in µs since 1970, length of what follows, kind."""
MAX_RECORD_BYTES = 1 << 20
"""What says to be longer is damaged."""
LINE_BYTES = 4096
"""A longer line is shown in pieces: noise has no line ends."""
SEGMENT_NAME = re.compile(r"(\d{10})-(\d{8})-(\d{17})\.console")


class RecordKind(IntEnum):
    """What a record holds."""

    DATA = 0
    """Bytes of the console."""
    NOTE = 1
    """A line of the agent's own, in UTF-8: the port went away, bytes are missing."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record, at a wall time in µs since 1970."""

    at_us: int
    kind: RecordKind
    data: bytes

    def encoded(self) -> bytes:
        return HEADER.pack(self.at_us, len(self.data), self.kind) + self.data


class Segment(NamedTuple):
    """One file of a recording. Sorts as it was written."""

    number: int
    boot: int
    began_us: int
    path: Path

    @classmethod
    def named(cls, folder: Path, number: int, boot: int, began_us: int) -> "Segment":
        return cls(number, boot, began_us, folder / f"{number:010d}-{boot:08d}-{began_us:017d}.console")


def segments(folder: Path) -> list[Segment]:
    """The segments of a recording, in order; none where there is no folder."""
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:
        return []
    found = []
    for path in paths:
        match = SEGMENT_NAME.fullmatch(path.name)
        if match is not None:
            found.append(Segment(int(match[1]), int(match[2]), int(match[3]), path))
    return sorted(found)


@dataclass(frozen=True, slots=True)
class RecordedBoot:
    """One boot of a recording: from one power-on, or restart, to the next."""

    number: int
    began: datetime
    size_bytes: int


def boots(folder: Path) -> list[RecordedBoot]:
    """The boots of a recording, oldest first."""
    found: dict[int, tuple[int, int]] = {}
    for segment in segments(folder):
        began_us, size = found.get(segment.boot, (segment.began_us, 0))
        try:
            found[segment.boot] = began_us, size + segment.path.stat().st_size
        except FileNotFoundError:
            continue  # its turn to be forgotten came while we looked
    return [RecordedBoot(number, wall(began_us), size) for number, (began_us, size) in sorted(found.items())]


def wall(at_us: int) -> datetime:
    """A record's time."""
    return datetime.fromtimestamp(at_us / 1e6, UTC)


def records(path: Path, offset: int = 0) -> Iterator[tuple[int, Record]]:
    """The records of a segment with where each ends, from `offset`, which is where one ended."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        file.seek(offset)
        while len(header := file.read(HEADER.size)) == HEADER.size:
            at_us, length, kind = HEADER.unpack(header)
            if length > MAX_RECORD_BYTES or kind not in set(RecordKind):
                return
            data = file.read(length)
            if len(data) < length:
                return
            offset += HEADER.size + length
            yield offset, Record(at_us, RecordKind(kind), data)


class Cursor(NamedTuple):
    """How far a search came: the records before `offset` of segment `number` are done with."""

    number: int
    offset: int

    @classmethod
    def parse(cls, text: str) -> "Cursor":
        """Raises ValueError: it is none of ours."""
        match = re.fullmatch(r"(\d{1,10}):(\d{1,15})", text)
        if match is None:
            raise ValueError(f"{text[:64]!r} is no place in a recording; take `next` of the answer before")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for.

    Attributes:
        boot: this boot only, by its number; None for all.
        since_us: not what came before this.
        parts: texts that must stand in a line in this order, in any case; none takes every line.
        after: where the answer before ended.
    """

    boot: int | None = None
    since_us: int = 0
    parts: tuple[bytes, ...] = ()
    after: Cursor | None = None


def parts_of(pattern: str) -> tuple[bytes, ...]:
    """A pattern with `*` for any text, as its parts. No regular expressions: the agent looks for whoever asks."""
    return tuple(part.encode().lower() for part in pattern.split("*") if part)


@dataclass(frozen=True, slots=True)
class RecordedLine:
    """A line, and when it began. `is_note`: it is the agent's word and not the board's."""

    at_us: int
    data: bytes
    is_note: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """A part of an answer; `next` is where it goes on, None at the end of what is there."""

    lines: list[RecordedLine]
    next: Cursor | None


def search(folder: Path, query: Query, *, most_bytes: int, most_read_bytes: int) -> Page:
    """The lines that `query` is after: about `most_bytes` of them, having read about `most_read_bytes`."""
    cutter = _Cutter(query.parts)
    read = 0
    chosen = [segment for segment in segments(folder) if _may_hold(segment, query)]
    for place, segment in enumerate(chosen):
        if place + 1 < len(chosen) and chosen[place + 1].began_us <= query.since_us:
            continue  # all of it was before
        offset = query.after.offset if query.after is not None and segment.number == query.after.number else 0
        for end, record in records(segment.path, offset):
            read += len(record.data) + HEADER.size
            if record.at_us >= query.since_us:
                cutter.take(record)
            fullness = max(cutter.size / most_bytes, read / most_read_bytes)
            if fullness >= (1 if cutter.between_lines else 2):
                cutter.end()
                return Page(cutter.lines, Cursor(segment.number, end))
    cutter.end()
    return Page(cutter.lines, None)


def _may_hold(segment: Segment, query: Query) -> bool:
    if query.after is not None and segment.number < query.after.number:
        return False
    return query.boot is None or segment.boot == query.boot


class _Cutter:
    """Cuts records into lines and keeps those that fit."""

    def __init__(self, parts: tuple[bytes, ...]) -> None:
        self.lines: list[RecordedLine] = []
        self.size = 0
        self._parts = parts
        self._partial = b""
        self._began_us = 0

    @property
    def between_lines(self) -> bool:
        """Whether no line is cut in two where a page ends here."""
        return not self._partial

    def take(self, record: Record) -> None:
        if record.kind is RecordKind.NOTE:
            self.end()
            self._keep(RecordedLine(record.at_us, record.data, is_note=True))
            return
        if not self._partial:
            self._began_us = record.at_us
        *whole, self._partial = (self._partial + record.data).split(b"\n")
        for line in whole:
            self._cut(line)
            self._began_us = record.at_us
        while len(self._partial) > LINE_BYTES:
            self._keep(RecordedLine(self._began_us, self._partial[:LINE_BYTES]))
            self._partial = self._partial[LINE_BYTES:]

    def end(self) -> None:
        """What is left is a line, too."""
        if self._partial:
            self._cut(self._partial)
            self._partial = b""

    def _cut(self, line: bytes) -> None:
        line = line.rstrip(b"\r")
        for at in range(0, max(len(line), 1), LINE_BYTES):
            self._keep(RecordedLine(self._began_us, line[at : at + LINE_BYTES]))

    def _keep(self, line: RecordedLine) -> None:
        if _fits(line.data, self._parts):
            self.lines.append(line)
            self.size += len(line.data) + 32


def _fits(line: bytes, parts: tuple[bytes, ...]) -> bool:
    if not parts:
        return True
    line = line.lower()
    at = 0
    for part in parts:
        found = line.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return True
