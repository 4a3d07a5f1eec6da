"""What `make fuzz` feeds with octets: each target takes any octets, and fails by an exception or a broken promise.

Octets become several inputs by `pieces`: a length of two octets before each.
"""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from netboot.boot_tree import BootTree, GeneratedFile, Refused, SharedFile, TreeClient
from netboot.dhcp_leases import LeaseTable
from netboot.dhcp_packet import DhcpPacket, DhcpPacketError, MessageType, encode, parse
from netboot.dhcp_policy import DhcpBoard, DhcpPolicy, DhcpSettings
from netboot.dhcp_settings import Subnet
from netboot.http_ranges import RangeNotSatisfiableError, Validators, multipart, precondition, wanted_ranges
from netboot.http_tokens import split_token
from netboot.profile import BootProfile
from netboot.proxy_dhcp import ProxyPolicy
from netboot.segment_frames import read
from netboot.segment_watch import SegmentWatch
from netboot.tftp_packet import PacketError, Request, encode_ack, encode_oack, encode_request, negotiate, parse_request
from netboot.tftp_transfer import Transfer

MACS = ("52:54:00:77:00:01", "dc:a6:32:77:00:02")
ADDRESSES = (IPv4Address("10.77.0.11"), IPv4Address("10.77.0.12"))
SERVER = IPv4Address("10.77.0.1")
SETTINGS = DhcpSettings(
    interface="br0",
    server_address=SERVER,
    network=IPv4Network("10.77.0.0/24"),
    lease_s=600,
    router=SERVER,
    dns=(SERVER,),
    pool=(IPv4Address("10.77.0.100"), IPv4Address("10.77.0.103")),
    relayed=(Subnet(IPv4Network("10.88.0.0/24"), IPv4Address("10.88.0.1")),),
)
BOARDS = (
    DhcpBoard("b1", MACS[:1], ADDRESSES[0], "x", "00112233-4455-6677-8899-aabbccddeeff"),
    DhcpBoard("b2", MACS[1:], ADDRESSES[1], "x", client_ids=(b"\xff\x00\x01b2",)),
)


class BrokenPromiseError(Exception):
    """A target's result is wrong; the message says what."""


def must(true: object, what: str) -> None:
    """Like `assert`, but for any state of the interpreter.

    Raises:
        BrokenPromiseError: it is not true.
    """
    if not true:
        raise BrokenPromiseError(what)


def pieces(data: bytes) -> Iterator[bytes]:
    """`data` cut into inputs; the last may be short."""
    position = 0
    while position + 2 <= len(data):
        size = int.from_bytes(data[position : position + 2], "big") & 0x7FF
        yield data[position + 2 : position + 2 + size]
        position += 2 + size


def joined(*parts: bytes) -> bytes:
    """The inverse of `pieces`."""
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def _boot_file(board: str | None, kind: object) -> str | None:
    return None if board == "b2" else f"http://10.77.0.1/{'x' * 200}/{kind}"


def dhcp(data: bytes) -> None:
    """Messages in a row to all policies, the watch and the pool."""
    policy = DhcpPolicy(SETTINGS, BOARDS, boot_file_for=_boot_file)
    policy.joining_open = True
    proxy = ProxyPolicy(SETTINGS, BOARDS, boot_file_for=_boot_file)
    watch = SegmentWatch("br0", SERVER)
    now = 0.0
    for piece in pieces(data):
        now += 1.5
        read(piece)
        try:
            packet = parse(piece)
        except DhcpPacketError:
            continue
        watch.client_message(packet, now)
        watch.server_message(packet, packet.siaddr, "52:54:00:00:00:01", now)
        for part in (policy, proxy, proxy.boot_server):
            decision = part.handle(packet, "br0", now)
            for reply in decision.replies:
                _judge(packet, reply.packet)
        policy.occupied(packet.ciaddr, packet.mac or "", now)
    stored = json.loads(json.dumps(policy.leases.state(now, 1000.0)))
    again = LeaseTable(SETTINGS.pool, (), stored, now=5.0, wall_s=1000.0, lease_s=SETTINGS.lease_s)
    must(len(again.state(5.0, 1000.0)["leases"]) == len(stored["leases"]), "a lease was lost in the store")  # type: ignore[arg-type]


def _judge(asked: DhcpPacket, answer: DhcpPacket) -> None:
    given = answer.yiaddr
    pool = SETTINGS.pool
    ours = given in {*ADDRESSES, IPv4Address(0)} or (pool is not None and pool[0] <= given <= pool[1])
    must(ours, f"{given} is nobody's address")
    must(answer.xid == asked.xid and answer.chaddr == asked.chaddr, "an answer to somebody else")
    try:
        data = encode(answer)
    except DhcpPacketError:
        return  # what the client said does not fit an answer; the server drops it
    must(parse(data).options == tuple(dict(answer.options).items()), "the answer reads otherwise than it was written")


def tftp(data: bytes) -> None:
    """A request, and what the client says then."""
    parts = list(pieces(data))
    if not parts:
        return
    try:
        request = parse_request(parts[0])
    except PacketError:
        return
    with contextlib.suppress(PacketError):  # octets that are no UTF-8 become longer
        must(parse_request(encode_request(request)) == request, "a request reads otherwise than it was written")
    size = sum(parts[0]) * 37
    agreed = negotiate(request, size=size, mtu_bytes=1500, max_window=16)
    must(8 <= agreed.block_bytes <= 1468 and 1 <= agreed.window <= 16, f"{agreed} is out of bounds")
    encode_oack(agreed.accepted)
    machine = Transfer(
        size=size, block_bytes=agreed.block_bytes, window=agreed.window, with_oack=bool(agreed.accepted), now=0.0
    )  # fmt: skip
    now, span = 0.0, machine.start(0.0)
    for part in parts[1:]:
        _judge_span(machine, span)
        now += 0.01
        span = machine.on_timer(machine.deadline) if part[:1] == b"\xff" else machine.on_packet(part, now)
        now = max(now, machine.deadline) if part[:1] == b"\xff" else now
        if machine.outcome is not None:
            return


def _judge_span(machine: Transfer, span: object) -> None:
    if span is None:
        return
    first, last = span  # type: ignore[misc]
    must(0 <= first <= last <= machine.total, f"{span} of {machine.total} blocks")
    must(last - first < machine.window, f"{span} is more than a window of {machine.window}")
    offset, count = machine.extent(max(last, 1))
    must(0 <= offset <= machine.size and 0 <= count <= machine.block_bytes, "a block outside of the file")


_HEADERS = ("Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")


def http(data: bytes) -> None:
    """Headers of a request for a file, and its path."""
    parts = [part.decode("utf-8", "surrogateescape") for part in pieces(data)]
    headers = dict(zip(_HEADERS, parts, strict=False))
    size = len(data) * 11
    validators = Validators('"abc"', 1_700_000_000)
    precondition(headers, validators)
    for part in parts:
        _, rest = split_token(part)
        must(rest in part, "the path is not of the path")
    try:
        ranges = wanted_ranges(headers, validators, size)
    except RangeNotSatisfiableError:
        return
    for found in ranges or []:
        must(found.count >= 1 and found.offset >= 0 and found.offset + found.count <= size, f"{found} of {size} octets")
    if ranges is not None and len(ranges) > 1:
        must(sum(found.count for found in ranges) <= size, "more than the whole")
        sent, length = multipart(ranges, size, "x/y", "B")
        whole = sum(len(part.text) + (part.span.count if part.span is not None else 0) for part in sent)
        must(whole == length, "the body is not as long as it says")


def _client(number: int, family: str, serial: str | None) -> TreeClient:
    folder = Path("/srv", f"b{number + 1}")
    profile = BootProfile(
        f"p{number}", "arm64", folder / "Image", folder / "initrd", folder / "x.dtb", "console=ttyS0", family=family,  # type: ignore[arg-type]
        folder=folder, files=(("a/b.img", folder / "b.img"),), overlays=(folder / "one.dtbo",),
    )  # fmt: skip
    return TreeClient(f"b{number + 1}", MACS[number : number + 1], ADDRESSES[number], profile, None, serial)


_TREE = BootTree({ADDRESSES[0]: _client(0, "auto", None), ADDRESSES[1]: _client(1, "raspberry-pi", "10000000abcdef01")})


def tree(data: bytes) -> None:
    """Paths that boards and strangers ask for."""
    for part in pieces(data):
        path = part.decode("utf-8", "backslashreplace")
        must(isinstance(_TREE.look_up(IPv4Address("10.77.0.99"), path), Refused), "a stranger was served")
        for address in ADDRESSES:
            found = _TREE.look_up(address, path)
            if isinstance(found, Refused):
                continue
            must(found.client.address == address, f"{address} gets a file of {found.client.board}")
            if isinstance(found, SharedFile):
                own = Path("/srv", str(found.client.board))
                must(found.path.is_relative_to(own), f"{found.path} is outside of {own}")
                must(".." not in found.path.parts, f"{found.path} leads upwards")
            else:
                must(isinstance(found, GeneratedFile), f"{found} without a staging folder")


TARGETS: dict[str, Callable[[bytes], None]] = {"dhcp": dhcp, "tftp": tftp, "http": http, "tree": tree}


def _message(kind: MessageType, number: int, *options: tuple[int, bytes]) -> bytes:
    mac = bytes.fromhex(MACS[number].replace(":", "")) if number < 2 else b"\x52\x54\0\x99\0\1"
    return encode(DhcpPacket(op=1, xid=7, chaddr=mac, options=((53, bytes((kind,))), *options)))


def seeds(name: str) -> list[bytes]:
    """Ordinary inputs of a target, from which the fuzzer begins."""
    pxe = ((60, b"PXEClient:Arch:00007:UNDI:003016"), (93, b"\0\7"), (97, b"\0" + bytes(range(16))), (77, b"iPXE"))
    parsed = parse(_message(MessageType.DISCOVER, 0, *pxe))
    relayed = replace(parsed, giaddr=IPv4Address("10.88.0.2"), options=(*parsed.options, (82, b"\1\4port")))
    item = (43, b"\x47\4\0\0\0\0\xff")
    taken = ((50, IPv4Address("10.77.0.100").packed), (54, SERVER.packed))
    read_request = encode_request(
        Request(1, "boot.scr.uimg", "octet", (("blksize", "1468"), ("windowsize", "4"), ("tsize", "0")))
    )
    return {
        "dhcp": [
            joined(_message(MessageType.DISCOVER, 0, *pxe), _message(MessageType.REQUEST, 1, item)),
            joined(_message(MessageType.DISCOVER, 2), *(_message(kind, 2, *taken) for kind in MessageType)),
            joined(encode(relayed), _message(MessageType.INFORM, 0, (61, b"\xff\x00\x01b2"), (175, b"\xb1\1\1"))),
        ],
        "tftp": [
            joined(read_request, *(encode_ack(number) for number in (0, 4, 4, 8, 9, 3)), b"\xff", encode_ack(12)),
            joined(encode_request(Request(1, "kernel", "octet")), encode_ack(1), b"\0\5\0\0no\0"),
        ],
        "http": [
            joined(b"bytes=0-99,200-299,-5", b'"abc"', b"*", b'W/"x", "abc"', b"Tue, 15 Nov 1994 08:12:31 GMT"),
            joined(b"bytes=5-", b"Tue, 14 Nov 2023 22:13:20 GMT", b"/~0123456789abcdef0123456789abcdef/kernel"),
        ],
        "tree": [
            joined(
                b"boot.scr.uimg", b"pxelinux.cfg/01-52-54-00-77-00-01", b"abcdef01/config.txt", b"b2/../b1/kernel",
                b"a/b.img", b"overlays/one.dtbo", b"grub.cfg-01-52-54-00-77-00-01", b"boot.ipxe",
                b"pxelinux.cfg/0A4D000B",
            )
        ],
    }[name]  # fmt: skip
