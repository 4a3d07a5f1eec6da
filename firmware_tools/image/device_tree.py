"""Flattened device trees (devicetree specification 0.4, chapter 5): read one, change properties, write it small.

No compiler is needed for it: a board's tree gets a serial number, a model or an Ethernet address of its own.
"""

import struct
from dataclasses import dataclass, field

_MAGIC = 0xD00DFEED
_VERSION = 17
_LAST_COMPATIBLE = 16
_HEADER = struct.Struct(">10I")
_BEGIN_NODE, _END_NODE, _PROPERTY, _NOP, _END = 1, 2, 3, 4, 9
# Deeper than any tree of a machine; a damaged one must not exhaust the stack.
_MAX_DEPTH = 64


class DeviceTreeError(ValueError):
    """The bytes are no flattened device tree."""


@dataclass(slots=True)
class Node:
    """A node: its name (`""` for the root), its properties in order, its children in order."""

    name: str
    properties: dict[str, bytes] = field(default_factory=dict)
    children: list["Node"] = field(default_factory=list)

    def set_text(self, name: str, *texts: str) -> None:
        """Set a property to one or more NUL-terminated strings."""
        self.properties[name] = b"".join(text.encode() + b"\0" for text in texts)


@dataclass(slots=True)
class DeviceTree:
    """A whole tree: the root, the memory reservations (address, size in bytes), the boot CPU."""

    root: Node
    reservations: list[tuple[int, int]] = field(default_factory=list)
    boot_cpu: int = 0


class _Reader:
    def __init__(self, structure: bytes, strings: bytes) -> None:
        self._structure = structure
        self._strings = strings
        self._at = 0

    def word(self) -> int:
        end = self._at + 4
        if end > len(self._structure):
            raise DeviceTreeError("the structure block ends in the middle of a node")
        value = int.from_bytes(self._structure[self._at : end], "big")
        self._at = end
        return value

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._structure):
            raise DeviceTreeError("a property is longer than the structure block")
        value = self._structure[self._at : end]
        self._at = end + (-end % 4)
        return value

    def name(self) -> str:
        return _text(self._structure, self._at, "a node's name")

    def node(self, depth: int = 0) -> Node:
        """The node whose BEGIN_NODE was just read."""
        if depth > _MAX_DEPTH:
            raise DeviceTreeError(f"nodes are nested deeper than {_MAX_DEPTH}")
        node = Node(self.name())
        self.take(len(node.name.encode("latin-1")) + 1)
        while (token := self.word()) != _END_NODE:
            if token == _PROPERTY:
                length, offset = self.word(), self.word()
                node.properties[_text(self._strings, offset, "a property's name")] = self.take(length)
            elif token == _BEGIN_NODE:
                node.children.append(self.node(depth + 1))
            elif token != _NOP:
                raise DeviceTreeError(f"token {token:#x} is none of the structure block's")
        return node


def _text(block: bytes, start: int, what: str) -> str:
    end = block.find(b"\0", start)
    if start > len(block) or end < 0:
        raise DeviceTreeError(f"{what} is not ended by NUL")
    return block[start:end].decode("latin-1")


def read(blob: bytes) -> DeviceTree:
    """The tree in `blob`.

    Raises:
        DeviceTreeError: it is none, or damaged.
    """
    if len(blob) < _HEADER.size:
        raise DeviceTreeError(f"{len(blob)} bytes are shorter than the header")
    (magic, total, structure_at, strings_at, reserved_at, version, oldest, boot_cpu, strings_size, structure_size) = (
        _HEADER.unpack_from(blob)
    )
    if magic != _MAGIC:
        raise DeviceTreeError(f"it begins with {magic:#010x}, not with {_MAGIC:#010x}")
    if version < _LAST_COMPATIBLE or oldest > _VERSION:
        raise DeviceTreeError(f"version {version} (compatible with {oldest}) is not readable here")
    if total > len(blob) or structure_at + structure_size > total or strings_at + strings_size > total:
        raise DeviceTreeError("the header points outside of the blob")
    reader = _Reader(blob[structure_at : structure_at + structure_size], blob[strings_at : strings_at + strings_size])
    token = reader.word()
    while token == _NOP:
        token = reader.word()
    if token != _BEGIN_NODE:
        raise DeviceTreeError("the structure block does not begin with a node")
    return DeviceTree(reader.node(), _reservations(blob, reserved_at), boot_cpu)


def _reservations(blob: bytes, at: int) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    while at + 16 <= len(blob):
        address, size = struct.unpack_from(">QQ", blob, at)
        if address == 0 and size == 0:
            return found
        found.append((address, size))
        at += 16
    raise DeviceTreeError("the list of memory reservations has no end")


def write(tree: DeviceTree) -> bytes:
    """The tree as a flattened blob without any padding."""
    strings: dict[str, int] = {}
    block = bytearray()

    def offset(name: str) -> int:
        if name not in strings:
            strings[name] = len(block)
            block.extend(name.encode("latin-1") + b"\0")
        return strings[name]

    def flat(node: Node) -> bytes:
        out = bytearray(_BEGIN_NODE.to_bytes(4, "big") + _padded(node.name.encode("latin-1") + b"\0"))
        for name, value in node.properties.items():
            out += struct.pack(">III", _PROPERTY, len(value), offset(name)) + _padded(value)
        for child in node.children:
            out += flat(child)
        return bytes(out + _END_NODE.to_bytes(4, "big"))

    structure = flat(tree.root) + _END.to_bytes(4, "big")
    reserved = b"".join(struct.pack(">QQ", *entry) for entry in [*tree.reservations, (0, 0)])
    structure_at = _HEADER.size + len(reserved)
    strings_at = structure_at + len(structure)
    total = strings_at + len(block)
    header = _HEADER.pack(
        _MAGIC, total, structure_at, strings_at, _HEADER.size, _VERSION, _LAST_COMPATIBLE, tree.boot_cpu,
        len(block), len(structure),
    )  # fmt: skip
    return header + reserved + structure + bytes(block)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
