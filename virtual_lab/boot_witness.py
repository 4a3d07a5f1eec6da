"""What really goes over the wire while a client boots: DHCP both ways, TFTP's requests and what options were granted.

It reads packets with a reader of its own, not netboot's, so it can be a witness against netboot. The kernel hands it
these few packets only, and none of the data.
"""

import ctypes
import socket
import struct
from ipaddress import IPv4Address
from typing import Any

_ETH_P_ALL = 0x0003
_SO_ATTACH_FILTER = 26  # asm-generic/socket.h
_READ_BYTES = 2048
_BURST = 64
_IP, _UDP = 0x0800, 17
_DHCP_SERVER, _DHCP_CLIENT, _TFTP = 67, 68, 69
_OACK = 6
_COOKIE = b"\x63\x82\x53\x63"
_OPTIONS_AT = 236 + len(_COOKIE)  # RFC 2131 section 2
# RFC 2132, RFC 3004, RFC 4578
_MESSAGE_TYPE, _VENDOR_CLASS, _BOOT_FILE, _USER_CLASS, _ARCH, _UUID = 53, 60, 67, 77, 93, 97
_TYPES = ("", "DISCOVER", "OFFER", "REQUEST", "DECLINE", "ACK", "NAK", "RELEASE", "INFORM")

# linux/bpf_common.h: UDP over IPv4 to 67, 68 or 69, or whatever begins as an OACK does.
_FILTER = (
    (0x28, 0, 0, 12),  # half word: type of the frame
    (0x15, 0, 10, _IP),
    (0x30, 0, 0, 23),  # octet: protocol
    (0x15, 0, 8, _UDP),
    (0xB1, 0, 0, 14),  # x = length of the IP header
    (0x48, 0, 0, 16),  # half word at x: target port
    (0x15, 4, 0, _DHCP_SERVER),
    (0x15, 3, 0, _DHCP_CLIENT),
    (0x15, 2, 0, _TFTP),
    (0x48, 0, 0, 22),  # half word at x: the first of the payload
    (0x15, 0, 1, _OACK),
    (0x06, 0, 0, 0x40000),
    (0x06, 0, 0, 0),
)


def open_witness(interface: str) -> socket.socket:
    """A non-blocking socket that hears both directions of `interface`.

    Raises:
        OSError: no such interface, or no rights.
    """
    code = b"".join(struct.pack("HBBI", *step) for step in _FILTER)
    held = ctypes.create_string_buffer(code, len(code))
    raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    try:
        header = struct.pack("HxxxxxxP", len(_FILTER), ctypes.addressof(held))
        raw.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)
        raw.setblocking(False)
        raw.bind((interface, _ETH_P_ALL))
    except OSError:
        raw.close()
        raise
    return raw


def read(raw: socket.socket) -> list[dict[str, Any]]:
    """What has been heard, at most a burst, in order."""
    heard: list[dict[str, Any]] = []
    for _ in range(_BURST):
        try:
            frame = raw.recv(_READ_BYTES)
        except BlockingIOError:
            break
        found = understand(frame)
        if found is not None:
            heard.append(found)
    return heard


def understand(frame: bytes) -> dict[str, Any] | None:
    """One frame in words: `{"packet": "dhcp" | "rrq" | "oack", ...}`; None for anything else."""
    ip = frame[14:]
    if len(ip) < 20:
        return None
    length = (ip[0] & 0x0F) * 4
    udp = ip[length:]
    if len(udp) < 10:
        return None
    source, target = str(IPv4Address(ip[12:16])), str(IPv4Address(ip[16:20]))
    port = int.from_bytes(udp[2:4], "big")
    payload = udp[8 : int.from_bytes(udp[4:6], "big")]
    between = {"from": source, "to": target}
    if port in {_DHCP_SERVER, _DHCP_CLIENT}:
        return _dhcp(payload, between)
    if port == _TFTP and payload[:2] == b"\0\1":
        path, _mode, *options = _texts(payload[2:])
        return {"packet": "rrq", **between, "path": path, "options": _pairs(options)}
    if payload[:2] == _OACK.to_bytes(2, "big"):
        return {"packet": "oack", **between, "options": _pairs(_texts(payload[2:]))}
    return None


def _texts(data: bytes) -> list[str]:
    return [text.decode("utf-8", "replace") for text in data.split(b"\0")[:-1]]


def _pairs(texts: list[str]) -> dict[str, str]:
    return dict(zip(texts[::2], texts[1::2], strict=False))


def _dhcp(payload: bytes, between: dict[str, str]) -> dict[str, Any] | None:
    if payload[_OPTIONS_AT - len(_COOKIE) : _OPTIONS_AT] != _COOKIE:
        return None
    options = _dhcp_options(payload[_OPTIONS_AT:])
    kind = options.get(_MESSAGE_TYPE, b"\0")[0]
    return {
        "packet": "dhcp",
        **between,
        "type": _TYPES[kind] if kind < len(_TYPES) else str(kind),
        "arch": int.from_bytes(options[_ARCH], "big") if _ARCH in options else None,
        "vendor_class": options.get(_VENDOR_CLASS, b"").decode("latin-1"),
        "user_class": options.get(_USER_CLASS, b"").decode("latin-1"),
        "uuid": options.get(_UUID, b"").hex(),
        "broadcast": bool(payload[10] & 0x80),
        "file": payload[108:236].partition(b"\0")[0].decode("latin-1"),
        "boot_file": options.get(_BOOT_FILE, b"").rstrip(b"\0").decode("latin-1"),
    }


def _dhcp_options(data: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 1 < len(data) and data[at] != 0xFF:
        if data[at] == 0:
            at += 1
            continue
        end = at + 2 + data[at + 1]
        found.setdefault(data[at], data[at + 2 : end])
        at = end
    return found
