"""Reads a tar archive member by member while passing it on: what is not passed on was never seen by `tar`.

POSIX pax (IEEE Std 1003.1-2008, pax, "ustar Interchange Format" and "pax Extended Header"), GNU long names and GNU
sparse files. Python's tarfile takes twice as long per member and gives no way to pass on the octets as they are.
"""

import hashlib
import os
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
MAX_PENDING = 32
"""Chunks that wait to be hashed, 1 MiB each at most."""
_ZERO = bytes(BLOCK_BYTES)
_CHECKSUM = slice(148, 156)
_BLANK_CHECKSUM = 8 * 0x20
_KINDS = {b"0": "f", b"\0": "f", b"7": "f", b"S": "f", b"1": "h", b"2": "l", b"3": "c", b"4": "b", b"5": "d", b"6": "p"}
_NO_DATA = frozenset("hlcbdp")


class Reader(Protocol):
    """Gives up to so many octets, fewer only at the end."""

    def read(self, size: int, /) -> bytes: ...


class Writer(Protocol):
    """Takes all octets, or raises OSError."""

    def write(self, data: bytes, /) -> object: ...


@dataclass(slots=True)
class Member:
    """One member. `kind` is f, d, l, h (hard link), c, b or p; `size` counts the octets that follow in the archive.

    `plain`: those octets are the file's content (they are not for a sparse file).
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
    to leave it out; what it raises ends the pass. `digest` gets that path of a file, its size and SHA-256, from another
    thread, and has got all of them when `run` returns. `moved` gets how many octets have been read.
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
        while self._source.read(CHUNK_BYTES):  # a decompressor that is not read to its end reports a broken pipe
            pass
        return members

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
        size = _number(block[124:136])
        if size > MAX_HEADER_BYTES:
            raise SourceError(f"the archive has a header of {size} bytes {self._where}: it is damaged")
        padded = self._take(-(-size // BLOCK_BYTES) * BLOCK_BYTES)
        data = padded[:size]
        if kind == b"g":
            self._globals.update(_pax(data))
        elif kind == b"x":
            extended.pax.update(_pax(data))
        elif kind == b"L":
            extended.path = data.rstrip(b"\0")
        elif kind == b"K":
            extended.target = data.rstrip(b"\0")
        if kind != b"V":
            extended.raw += (block, padded)
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
        size = int(pax["size"]) if "size" in pax else _number(block[124:136])
        return Member(
            path=text,
            kind=kind,
            mode=_number(block[100:108]) & 0o7777,
            uid=int(pax["uid"]) if "uid" in pax else _number(block[108:116]),
            gid=int(pax["gid"]) if "gid" in pax else _number(block[116:124]),
            size=0 if kind in _NO_DATA else size,
            target=os.fsdecode(target) if kind in "lh" else "",
            device=(_number(block[329:337]), _number(block[337:345])) if kind in "cb" else (0, 0),
            xattrs=tuple(key[13:] for key in pax if key.startswith("SCHILY.xattr.")),
            plain=block[156:157] != b"S" and not any(key.startswith("GNU.sparse.") for key in pax),
        )

    # --- members ---

    def _pass_on(self, block: bytes, extended: _Extended) -> None:
        try:
            member = self._member(block, extended)
        except ValueError:
            raise SourceError(f"the archive is damaged {self._where}: a header has no number in it") from None
        self._where = f"in {member.path}"
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

    def _tell(self, path: str, size: int, hashed: "hashlib._Hash") -> None:
        if self._digest is not None:
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
    if text[:1] >= b"\x80":
        return int.from_bytes(bytes((text[0] & 0x3F,)) + text[1:], "big")
    try:
        return int(text.partition(b"\0")[0].strip() or b"0", 8)
    except ValueError:
        raise SourceError("it is no tar archive, or it is damaged: a header has no number in it") from None


def _pax(data: bytes) -> dict[str, bytes]:
    """Records `LENGTH KEY=VALUE\\n` of an extended header."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        try:
            length = int(data[at:space])
        except ValueError:
            length = 0
        record = data[space + 1 : at + length - 1]
        key, equals, value = record.partition(b"=")
        if space < 0 or length < 5 or at + length > len(data) or not equals:
            raise SourceError("the archive is damaged: an extended header cannot be read")
        found[key.decode("utf-8", "surrogateescape")] = value
        at += length
    return found
