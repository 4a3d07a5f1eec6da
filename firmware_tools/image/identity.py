"""Gives a board's device tree what tells it from its sisters: serial number, model, Ethernet addresses. No I/O.

`serial-number`, `model` and `compatible` of the root: devicetree specification 0.4, section 3.2 and
Documentation/devicetree/bindings/root-node.yaml of Linux; `local-mac-address`: ethernet-controller.yaml there.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from firmware_tools.image.device_tree import DeviceTree, DeviceTreeError, Node, read, write

_MAC = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
_COMPATIBLE = re.compile(r"[A-Za-z0-9,.+_-]{1,255}")
_TOTAL_SIZE_AT = 4
MAX_PADDING_BYTES = 1024 * 1024


class IdentityError(ValueError):
    """What is to be set cannot be set in this tree. The message names the property or node."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What to set; what is empty stays as it is.

    Attributes:
        serial: `serial-number`, which Linux shows in /proc/device-tree and, on ARM, in /proc/cpuinfo.
        model: `model`.
        compatible: put before the tree's own `compatible`, the most special first.
        macs: pairs of an alias (`ethernet0`) or a path (`/soc/ethernet@30be0000`) and an Ethernet address.
        bootargs: `bootargs` of `/chosen`. Most boot programs replace it.
    """

    serial: str = ""
    model: str = ""
    compatible: Sequence[str] = ()
    macs: Sequence[tuple[str, str]] = ()
    bootargs: str = ""


def with_identity(blob: bytes, identity: Identity, padding_bytes: int = 0) -> bytes:
    """The flattened tree `blob` with `identity` in it, and `padding_bytes` of room for what a boot program adds.

    Raises:
        IdentityError: a value is not allowed, or a node is not there.
        DeviceTreeError: `blob` is no device tree.
    """
    tree = read(blob)
    _set_texts(tree, identity)
    for where, mac in identity.macs:
        _set_mac(_ethernet(tree, where), where, mac)
    if not 0 <= padding_bytes <= MAX_PADDING_BYTES:
        raise IdentityError(f"padding of {padding_bytes} bytes: 0 to {MAX_PADDING_BYTES} are allowed")
    return _padded(write(tree), padding_bytes)


def _set_texts(tree: DeviceTree, identity: Identity) -> None:
    for name, value in (("serial-number", identity.serial), ("model", identity.model)):
        if value:
            tree.root.set_text(name, _checked(name, value))
    if identity.compatible:
        for word in identity.compatible:
            if _COMPATIBLE.fullmatch(word) is None:
                raise IdentityError(f"compatible: {word!r} is no 'vendor,board' of letters, digits and ,.+_-")
        own = [word.decode("latin-1") for word in tree.root.properties.get("compatible", b"").split(b"\0") if word]
        tree.root.set_text("compatible", *dict.fromkeys([*identity.compatible, *own]))
    if identity.bootargs:
        chosen = _child(tree.root, "chosen")
        if chosen is None:
            chosen = Node("chosen")
            tree.root.children.append(chosen)
        chosen.set_text("bootargs", _checked("bootargs", identity.bootargs, limit=4096))


def _checked(name: str, value: str, limit: int = 255) -> str:
    if len(value) > limit or re.fullmatch(r"[\x20-\x7e]+", value) is None:
        raise IdentityError(f"{name}: {value[:60]!r}: 1 to {limit} printable ASCII characters")
    return value


def _ethernet(tree: DeviceTree, where: str) -> Node:
    path = where
    if not where.startswith("/"):
        aliases = _child(tree.root, "aliases")
        known = aliases.properties if aliases is not None else {}
        if where not in known:
            names = ", ".join(sorted(name for name in known if name.startswith("ethernet"))) or "none"
            raise IdentityError(
                f"{where}: no such alias in this tree (Ethernet aliases: {names}); name the node's path, as /soc/NODE"
            )
        path = known[where].rstrip(b"\0").decode("latin-1")
    node = tree.root
    for name in path.strip("/").split("/"):
        found = _child(node, name)
        if found is None:
            raise IdentityError(f"{where}: the tree has no node {path}")
        node = found
    return node


def _child(node: Node, name: str) -> Node | None:
    """A child by its name; the part from `@` on may be left out where that is no other child (specification, 2.2.3)."""
    exact = [child for child in node.children if child.name == name]
    loose = [child for child in node.children if child.name.partition("@")[0] == name]
    if exact:
        return exact[0]
    return loose[0] if len(loose) == 1 else None


def _set_mac(node: Node, where: str, mac: str) -> None:
    if _MAC.fullmatch(mac) is None:
        raise IdentityError(f"{where}: {mac!r} is no Ethernet address: six pairs of hexadecimal digits with ':'")
    octets = bytes.fromhex(mac.replace(":", ""))
    if octets[0] & 1 or not any(octets):
        raise IdentityError(f"{where}: {mac} is an address for groups or nobody, not for one board")
    node.properties["local-mac-address"] = octets
    if "mac-address" in node.properties:  # Linux takes it first
        node.properties["mac-address"] = octets


def _padded(blob: bytes, padding_bytes: int) -> bytes:
    total = (len(blob) + padding_bytes).to_bytes(4, "big")
    return blob[:_TOTAL_SIZE_AT] + total + blob[_TOTAL_SIZE_AT + 4 :] + bytes(padding_bytes)


__all__ = ["DeviceTreeError", "Identity", "IdentityError", "with_identity"]
