"""Reads a tar archive member by member while passing it on: what is not passed on was never seen by `tar`.

POSIX pax (IEEE Std 1003.1-2008, pax, "ustar Interchange Format" and "pax Extended Header"), GNU long names and GNU
sparse files. Python's tarfile takes twice as long per member and gives no way to pass on the octets as they are.
"""

import hashlib
import os
import re
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from netboot.roots.errors import SourceError

BLOCK_BYTES = 512
CHUNK_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 20
"""Of one extended header: names and attributes, far below this in any honest archive."""
SMALL_BYTES = 64 << 10
"""Up to this, hashing takes less time than telling another thread to do it."""
MAX_EXTENDED = 1000
"""Extended headers before one member, and keys of all global ones; an honest archive has a handful."""
MAX_BEHIND_BYTES = 64 << 20
"""Behind an archive's end; tar pads to a record, 10 kB if not told otherwise."""
MAX_PENDING = 32
"""Chunks that wait to be hashed, 1 MiB each at most."""
_ZERO = bytes(BLOCK_BYTES)
_GNU_MAGIC = b"ustar  \0"
_SIZE = slice(124, 136)
_CHECKSUM = slice(148, 156)
_BLANK_CHECKSUM = 8 * 0x20
_KINDS = {b"0": "f", b"\0": "f", b"7": "f", b"S": "f", b"1": "h", b"2": "l", b"3": "c", b"4": "b", b"5": "d", b"6": "p"}
_NO_DATA = frozenset("hlcbdp")
_OCTAL = re.compile(rb"[0-7]{1,12}")
_DECIMAL = re.compile(rb"[0-9]{1,20}")
_SHAPING = ("path", "linkpath", "size", "GNU.sparse.")
"""Keys of one member that make no sense for all of an archive."""
_SHAPING_BYTES = tuple(key.encode() for key in _SHAPING)
_NEWLINE = 0x0A
_ATTRIBUTES = ("SCHILY.xattr.", "SCHILY.acl.", "RHT.security.")


class Reader(Protocol):
    """Gives up to so many octets, fewer only at the end."""

    def read(self, size: int, /) -> bytes: ...


class Writer(Protocol):
    """Takes all octets, or raises OSError."""

    def write(self, data: bytes, /) -> object: ...


@dataclass(slots=True)
class Member:
    """One member. `kind` is f, d, l, h (hard link), c, b or p; `size` counts the octets that follow in the archive.

    `plain`: those octets are the file's content (they are not for a sparse file). `length_bytes`: of the file, holes
    included. `xattrs`: names of its attributes, of access lists and of SELinux's label.
    """

    path: str
    kind: str
    mode: int
    uid: int
    gid: int
    size: int
    target: str
    device: tuple[int, int]
    xattrs: tuple[str, ...]
    plain: bool = True
    length_bytes: int = 0


@dataclass(slots=True)
class _Extended:
    """What extended headers before a member say of it."""

    raw: list[bytes] = field(default_factory=list)
    pax: dict[str, bytes] = field(default_factory=dict)
    path: bytes | None = None
    target: bytes | None = None


class TarStream:
    """One pass over an archive.

    `judge` sees every member before anything of it is passed on, and gives the path under which it is known, or None
    to leave it out; what it raises ends the pass. `digest` gets that path of a file, its size and SHA-256, some from
    another thread, and has got all of them when `run` returns. `moved` gets how many octets have been read.
    """

    def __init__(
        self,
        source: Reader,
        sink: Writer | None,
        judge: Callable[[Member], str | None],
        *,
        digest: Callable[[str, int, str], None] | None = None,
        moved: Callable[[int], None] | None = None,
    ) -> None:
        self._source = source
        self._sink = sink
        self._judge = judge
        self._digest = digest
        self._moved = moved
        self._globals: dict[str, bytes] = {}
        self._read = 0
        self._where = "before its first file"
        self._pending: deque[Future[None]] = deque()

    def run(self) -> int:
        """Read to the end of the archive and return how many members it had.

        Raises:
            SourceError: the archive is cut, damaged or has a member that no root can have.
            OSError: the sink does not take it.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="hash a root") as self._hasher:
            members = self._members()
            self._settle(0)
        if self._sink is not None:
            self._sink.write(_ZERO * 2)
        self._drain()
        return members

    def _drain(self) -> None:
        # A decompressor that is not read to its end reports a broken pipe; and its end tells that all was whole.
        behind = 0
        while data := self._source.read(CHUNK_BYTES):
            behind += len(data)
            if behind > MAX_BEHIND_BYTES:
                raise SourceError("the archive goes on behind its end: it is damaged, or made to keep us busy")

    def _members(self) -> int:
        members = 0
        extended = _Extended()
        while True:
            block = self._block()
            if block == _ZERO:
                return members
            if self._extend(block, extended):
                continue
            self._pass_on(block, extended)
            extended = _Extended()
            members += 1

    # --- octets ---

    def _take(self, size: int) -> bytes:
        data = self._source.read(size)
        self._read += len(data)
        if len(data) != size:
            raise SourceError(f"the archive ends {self._where}: it is cut; get it again")
        return data

    def _block(self) -> bytes:
        block = self._take(BLOCK_BYTES)
        if block != _ZERO:
            stated = _number(block[_CHECKSUM])
            if stated != sum(block) - sum(block[_CHECKSUM]) + _BLANK_CHECKSUM:
                raise SourceError(f"the archive is damaged {self._where}, or it is no tar archive")
        return block

    # --- headers ---

    def _extend(self, block: bytes, extended: _Extended) -> bool:
        """Take in an extended header. False when `block` is a member's own."""
        kind = block[156:157]
        if kind not in {b"x", b"g", b"L", b"K", b"V"}:
            return False
        size = _number(block[_SIZE])
        if size > MAX_HEADER_BYTES:
            raise SourceError(f"the archive has a header of {size} bytes {self._where}: it is damaged")
        padded = self._take(-(-size // BLOCK_BYTES) * BLOCK_BYTES)
        data = padded[:size]
        # What two readers may understand in two ways is refused: tar must write what was judged, and nothing else.
        if kind == b"g":
            self._globals.update(_pax(data))
            if any(key.startswith(_SHAPING) for key in self._globals):
                raise SourceError("the archive is damaged: a global header names one file")
        elif kind == b"x":
            if extended.pax:
                raise SourceError(f"the archive is damaged {self._where}: two extended headers of one file")
            extended.pax = _pax(data)
        elif kind == b"L":
            extended.path = _long_name(padded, size, extended.path)
        elif kind == b"K":
            extended.target = _long_name(padded, size, extended.target)
        if kind != b"V":
            extended.raw += (block, padded)
        if len(extended.raw) > MAX_EXTENDED or len(self._globals) > MAX_EXTENDED:
            raise SourceError(f"the archive is damaged {self._where}: it has headers without end")
        return True

    def _member(self, block: bytes, extended: _Extended) -> Member:
        pax = {**self._globals, **extended.pax} if self._globals else extended.pax
        name = block[:100].partition(b"\0")[0]
        if block[257:263] == b"ustar\0" and block[345]:
            name = block[345:500].partition(b"\0")[0] + b"/" + name
        path = pax.get("GNU.sparse.name") or pax.get("path") or extended.path or name
        target = pax.get("linkpath") or extended.target or block[157:257].partition(b"\0")[0]
        kind = _KINDS.get(block[156:157])
        text = os.fsdecode(path)
        if kind is None:
            raise SourceError(f"{text}: the archive has a member of the unknown kind {block[156:157]!r}")
        if kind == "f" and text.endswith("/"):
            kind = "d"  # archives of the time before ustar
        size = _decimal(pax["size"]) if "size" in pax else _number(block[_SIZE])
        old_sparse = block[156:157] == b"S"
        if (old_sparse and block[257:265] != _GNU_MAGIC) or (kind != "f" and "size" in pax):
            raise SourceError(f"{text}: the archive is damaged: a header that no reader understands alike")
        length = pax.get("GNU.sparse.realsize", pax.get("GNU.sparse.size"))
        return Member(
            path=text,
            kind=kind,
            mode=_number(block[100:108]) & 0o7777,
            uid=_decimal(pax["uid"]) if "uid" in pax else _number(block[108:116]),
            gid=_decimal(pax["gid"]) if "gid" in pax else _number(block[116:124]),
            size=0 if kind in _NO_DATA else size,
            target=os.fsdecode(target) if kind in "lh" else "",
            device=(_number(block[329:337]), _number(block[337:345])) if kind in "cb" else (0, 0),
            xattrs=tuple(key.removeprefix("SCHILY.xattr.") for key in pax if key.startswith(_ATTRIBUTES)),
            plain=not old_sparse and not any(key.startswith("GNU.sparse.") for key in pax),
            length_bytes=_decimal(length) if length is not None else _number(block[483:495]) if old_sparse else size,
        )

    # --- members ---

    def _pass_on(self, block: bytes, extended: _Extended) -> None:
        member = self._member(block, extended)
        self._where = f"in {member.path}"
        if member.kind != "f" and _number(block[_SIZE]):
            # Old archives state a size where no octets follow; readers differ in whether they skip as many.
            block = _with_no_size(block)
        path = self._judge(member)
        sink = self._sink if path is not None else None
        if sink is not None:
            for raw in extended.raw:
                sink.write(raw)
            sink.write(block)
        if block[156:157] == b"S":
            self._sparse_maps(block, sink)
        self._content(member, path, sink)
        if self._moved is not None:
            self._moved(self._read)

    def _sparse_maps(self, block: bytes, sink: Writer | None) -> None:
        """Old GNU sparse files (tar's manual, "Old GNU Format"): further blocks of the map follow the header."""
        more = block[482]
        while more:
            extension = self._take(BLOCK_BYTES)
            if sink is not None:
                sink.write(extension)
            more = extension[504]

    def _content(self, member: Member, path: str | None, sink: Writer | None) -> None:
        left = member.size
        padding = -left % BLOCK_BYTES
        wanted = member.kind == "f" and member.plain and sink is not None and self._digest is not None
        if left <= SMALL_BYTES:
            data = self._take(left + padding)
            if sink is not None:
                sink.write(data)
            if wanted:
                self._tell(path, left, hashlib.sha256(memoryview(data)[:left]))
            return
        hashed = hashlib.sha256() if wanted else None
        while left:
            data = self._take(min(left, CHUNK_BYTES))
            left -= len(data)
            if hashed is not None:
                self._later(hashed.update, data)
            if sink is not None:
                sink.write(data)
            if self._moved is not None and left:
                self._moved(self._read)
        if padding:
            data = self._take(padding)
            if sink is not None:
                sink.write(data)
        if hashed is not None:
            self._later(self._tell, path, member.size, hashed)

    def _tell(self, path: str | None, size: int, hashed: "hashlib._Hash") -> None:
        if self._digest is not None and path is not None:
            self._digest(path, size, hashed.hexdigest())

    def _later(self, work: Callable[..., None], *arguments: object) -> None:
        """Do it in the other thread: hashing takes as long as passing on, and lets go of the interpreter."""
        self._pending.append(self._hasher.submit(work, *arguments))
        if len(self._pending) > MAX_PENDING:
            self._settle(MAX_PENDING // 2)

    def _settle(self, left: int) -> None:
        while len(self._pending) > left:
            self._pending.popleft().result()


def _number(text: bytes) -> int:
    """A header's number: octal text, or base 256 where the first bit is set (GNU).

    Raises:
        SourceError: it is neither.
    """
    if text[:1] == b"\x80":
        return int.from_bytes(text[1:], "big")
    digits = text.partition(b"\0")[0].strip(b" ") or b"0"
    if _OCTAL.fullmatch(digits) is None:
        raise SourceError("it is no tar archive, or it is damaged: a header has no number in it")
    return int(digits, 8)


def _with_no_size(block: bytes) -> bytes:
    changed = bytearray(block)
    changed[_SIZE] = b"00000000000\0"
    changed[_CHECKSUM] = b" " * 8
    changed[_CHECKSUM] = b"%06o\0 " % sum(changed)
    return bytes(changed)


def _decimal(text: bytes) -> int:
    # Not int() alone: it takes signs, spaces and underscores, and a negative size would read all there is.
    if _DECIMAL.fullmatch(text) is None:
        raise SourceError("the archive is damaged: an extended header has no number in it")
    return int(text)


def _long_name(padded: bytes, size: int, earlier: bytes | None) -> bytes:
    name = padded.rstrip(b"\0")
    # GNU tar reads on to the first NUL, wherever that is.
    if earlier is not None or not name or len(name) > size or b"\0" in name:
        raise SourceError("the archive is damaged: a long name is not ended, is empty, or there are two")
    return name


def _pax(data: bytes) -> dict[str, bytes]:
    """Records `LENGTH KEY=VALUE\\n` of an extended header."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = int(data[at:space]) if _DECIMAL.fullmatch(data[at:space]) else 0
        record = data[space + 1 : at + length - 1]
        key, equals, value = record.partition(b"=")
        whole = space >= 0 and length >= 5 and at + length <= len(data) and data[at + length - 1] == _NEWLINE
        if not whole or not equals or (not value and key.startswith(_SHAPING_BYTES)):
            raise SourceError("the archive is damaged: an extended header cannot be read")
        found[key.decode("utf-8", "surrogateescape")] = value
        at += length
    return found
