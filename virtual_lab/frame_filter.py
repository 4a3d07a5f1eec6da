"""Which frames reach a QEMU board: those for its own MAC address, DHCP answers to it, and ARP for its own address.

Without this, the broadcasts of a large farm stop U-Boot for ever: its virtio driver (2023.01) gives QEMU 32 receive
buffers once, and tells QEMU of freed ones only when it sends. When 33 frames come while it is not looking (it waits
for a prompt, unpacks a kernel), QEMU waits for a notice that never comes, and no frame arrives any more.

It is a classic BPF program (linux/filter.h), which the kernel runs for a tap as for a packet socket.
"""

import ctypes
import fcntl
import socket
import struct
from dataclasses import dataclass

# linux/bpf_common.h: class | size | mode
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30
_LOAD_WORD_AT_X, _LOAD_HALF_AT_X = 0x40, 0x48
_LOAD_X_IP_HEADER = 0xB1
_JUMP_IF_EQUAL = 0x15
_RETURN = 0x06
_WHOLE_FRAME = 0x40000

# linux/if_tun.h; asm-generic/socket.h
_TUNATTACHFILTER = 0x401054D5
_SO_ATTACH_FILTER = 26

_ETH_TYPE, _ETH_PAYLOAD = 12, 14
_IPV4, _ARP, _UDP, _DHCP_CLIENT_PORT = 0x0800, 0x0806, 17, 68
_IP_PROTOCOL = _ETH_PAYLOAD + 9
_ARP_TARGET = _ETH_PAYLOAD + 24
_UDP_TARGET_PORT = _ETH_PAYLOAD + 2
# RFC 2131 section 2: chaddr follows 28 octets into the message, after UDP's 8.
_DHCP_HARDWARE = _ETH_PAYLOAD + 8 + 28

ACCEPT, DROP = "accept", "drop"


@dataclass(frozen=True, slots=True)
class _Step:
    """One instruction. A comparison goes on with the next one where it holds, and to `otherwise` where not."""

    code: int
    value: int = 0
    otherwise: str = ""
    label: str = ""
    then: str = ""


def _is(value: int, otherwise: str = DROP, then: str = "") -> _Step:
    return _Step(_JUMP_IF_EQUAL, value, otherwise, then=then)


def program(mac: str, address: str | None) -> list[tuple[int, int, int, int]]:
    """The filter for a board, as (code, jump if true, jump if false, value). Without `address`, all ARP passes."""
    octets = bytes.fromhex(mac.replace(":", ""))
    high, low = struct.unpack(">IH", octets)
    arp = [_Step(_RETURN, _WHOLE_FRAME, label="arp")]
    if address is not None:
        target = int.from_bytes(socket.inet_aton(address), "big")
        arp = [_Step(_LOAD_WORD, _ARP_TARGET, label="arp"), _is(target, then=ACCEPT)]
    steps = [
        _Step(_LOAD_WORD, 0),
        _is(high, otherwise="not ours"),
        _Step(_LOAD_HALF, 4),
        _is(low, then=ACCEPT),
        _Step(_JUMP_IF_EQUAL, 0xFFFFFFFF, DROP, label="not ours"),
        _Step(_LOAD_HALF, 4),
        _is(0xFFFF),
        _Step(_LOAD_HALF, _ETH_TYPE),
        _is(_ARP, otherwise="ip", then="arp"),
        *arp,
        _Step(_JUMP_IF_EQUAL, _IPV4, DROP, label="ip"),
        _Step(_LOAD_BYTE, _IP_PROTOCOL),
        _is(_UDP),
        _Step(_LOAD_X_IP_HEADER, _ETH_PAYLOAD),
        _Step(_LOAD_HALF_AT_X, _UDP_TARGET_PORT),
        _is(_DHCP_CLIENT_PORT),
        _Step(_LOAD_WORD_AT_X, _DHCP_HARDWARE),
        _is(high),
        _Step(_LOAD_HALF_AT_X, _DHCP_HARDWARE + 4),
        _is(low, then=ACCEPT),
        _Step(_RETURN, 0, label=DROP),
        _Step(_RETURN, _WHOLE_FRAME, label=ACCEPT),
    ]
    places = {step.label: at for at, step in enumerate(steps) if step.label}

    def distance(at: int, label: str) -> int:
        return places[label] - at - 1 if label else 0

    return [
        (step.code, distance(at, step.then), distance(at, step.otherwise), step.value) for at, step in enumerate(steps)
    ]


def _packed(instructions: list[tuple[int, int, int, int]]) -> tuple[ctypes.Array[ctypes.c_char], bytes]:
    """The program in memory, and the `struct sock_fprog` that points to it while it is held."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in instructions)
    held = ctypes.create_string_buffer(code, len(code))
    return held, struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(held))


def attach_to_tap(descriptor: int, mac: str, address: str | None) -> None:
    """Let only the board's frames out of the tap.

    Raises:
        OSError: the kernel refuses.
    """
    held, header = _packed(program(mac, address))
    fcntl.ioctl(descriptor, _TUNATTACHFILTER, header)
    del held  # it had to live until here


def attach_to_socket(receiver: socket.socket, mac: str, address: str | None) -> None:
    """Let only the board's frames into `receiver`.

    Raises:
        OSError: the kernel refuses.
    """
    held, header = _packed(program(mac, address))
    receiver.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, header)
    del held
