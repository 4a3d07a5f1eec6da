"""Conditional and range requests for one representation: what to answer to which headers. Pure functions.

Sources: RFC 9110 sections 8.8 (validators), 13 (conditional requests) and 14 (range requests).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from typing import Literal, TypeAlias

MAX_RANGES = 16
"""Boot loaders ask for one; a list of more is ignored, as RFC 9110 section 14.2 allows for many small ranges."""
MAX_HEADER_CHARACTERS = 1024
_UNIT = re.compile(r"bytes[ \t]*=", re.IGNORECASE)
_SPEC = re.compile(r"([0-9]{0,19})-([0-9]{0,19})")
_ETAG = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"')

Precondition: TypeAlias = Literal["go-on", "not-modified", "failed"]


class RangeNotSatisfiableError(ValueError):
    """No octet of what was asked for exists: answer 416 with the size."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """`count` octets from `offset`, at least one, all of them there."""

    offset: int
    count: int

    def content_range(self, size_bytes: int) -> str:
        """The value of Content-Range (section 14.4)."""
        return f"bytes {self.offset}-{self.offset + self.count - 1}/{size_bytes}"


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells one version of a file from another. `etag` is strong, with its quotes; `modified_s` is in seconds
    since 1970, None where no date is known."""

    etag: str
    modified_s: int | None = None

    @property
    def last_modified(self) -> str | None:
        """The value of Last-Modified."""
        return None if self.modified_s is None else formatdate(self.modified_s, usegmt=True)


def http_date(text: str) -> int | None:
    """Seconds since 1970, or None for what is no date (section 5.6.7)."""
    try:
        moment = parsedate_to_datetime(text)
        return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _any_matches(header: str, etag: str, *, weak: bool) -> bool:
    if header.strip() == "*":
        return True
    return any(found == etag or (weak and found.removeprefix("W/") == etag) for found in _ETAG.findall(header))


def precondition(headers: Mapping[str, str], validators: Validators) -> Precondition:
    """Judge If-Match, If-Unmodified-Since, If-None-Match and If-Modified-Since, in the order of section 13.2.2, for
    GET and HEAD."""
    modified = validators.modified_s
    match = headers.get("If-Match")
    if match is not None:
        if not _any_matches(match, validators.etag, weak=False):
            return "failed"
    elif modified is not None:
        since = http_date(headers.get("If-Unmodified-Since", ""))
        if since is not None and modified > since:
            return "failed"
    none_match = headers.get("If-None-Match")
    if none_match is not None:
        return "not-modified" if _any_matches(none_match, validators.etag, weak=True) else "go-on"
    if modified is not None:
        since = http_date(headers.get("If-Modified-Since", ""))
        if since is not None and modified <= since:
            return "not-modified"
    return "go-on"


def wanted_ranges(headers: Mapping[str, str], validators: Validators, size_bytes: int) -> list[ByteRange] | None:
    """The ranges to send in the order asked, or None for the whole: no Range, one that cannot be read, another unit,
    too many, more octets than the whole, or an If-Range that names another version.

    Raises:
        RangeNotSatisfiableError: none of the ranges has an octet.
    """
    header = headers.get("Range")
    if header is None or not _if_range_holds(headers.get("If-Range"), validators):
        return None
    specs = _specs(header)
    if specs is None:
        return None
    clipped = [_clipped(first, last, size_bytes) for first, last in specs]
    satisfiable = [found for found in clipped if found is not None]
    if not satisfiable:
        raise RangeNotSatisfiableError(f"{header!r} asks for nothing of {size_bytes} octets")
    if len(satisfiable) > 1 and sum(found.count for found in satisfiable) > size_bytes:
        return None  # overlapping: the whole costs less
    return satisfiable


def _specs(header: str) -> list[tuple[str, str]] | None:
    """First and last position of each range, in digits or empty; None for a header that is to be ignored."""
    unit = _UNIT.match(header)
    if unit is None or len(header) > MAX_HEADER_CHARACTERS:
        return None
    elements = [element.strip(" \t") for element in header[unit.end() :].split(",")]
    parsed = [_SPEC.fullmatch(element) for element in elements if element]  # section 5.6.1.2: empty ones are ignored
    specs = [(found[1], found[2]) for found in parsed if found is not None]
    if not specs or len(specs) != len(parsed) or len(specs) > MAX_RANGES:
        return None
    if any((not first and not last) or (first and last and int(last) < int(first)) for first, last in specs):
        return None
    return specs


def _clipped(first: str, last: str, size_bytes: int) -> ByteRange | None:
    """A range of digits as octets that are there (section 14.1.2), None for none."""
    if not first:
        count = min(int(last), size_bytes)
        return ByteRange(size_bytes - count, count) if count else None
    offset = int(first)
    if offset >= size_bytes:
        return None
    return ByteRange(offset, (min(int(last), size_bytes - 1) if last else size_bytes - 1) - offset + 1)


def _if_range_holds(header: str | None, validators: Validators) -> bool:
    """Section 13.1.5: a strong ETag that is the same, or exactly the same date."""
    if header is None:
        return True
    text = header.strip()
    if text.startswith(('"', "W/")):
        return text == validators.etag
    return validators.modified_s is not None and http_date(text) == validators.modified_s


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a body: `text` first, then `span` of the representation."""

    text: bytes
    span: ByteRange | None


def multipart(ranges: list[ByteRange], size_bytes: int, content_type: str, boundary: str) -> tuple[list[Part], int]:
    """The body of `multipart/byteranges` (section 14.6) and its length in octets."""
    parts, length, lead = [], 0, ""
    for span in ranges:
        head = f"{lead}--{boundary}\r\nContent-Type: {content_type}\r\n"
        text = f"{head}Content-Range: {span.content_range(size_bytes)}\r\n\r\n".encode()
        parts.append(Part(text, span))
        length += len(text) + span.count
        lead = "\r\n"
    end = f"\r\n--{boundary}--\r\n".encode()
    parts.append(Part(end, None))
    return parts, length + len(end)
