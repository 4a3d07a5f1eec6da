#!/usr/bin/env python3
"""What runs on a board: it registers, says that it is there, asks for work, runs it and reports.

One file, standard library only, Python 3.9 or newer, so that it can be dropped into any initramfs or root file
system. `client.sh` beside it is the same for boards that have only busybox.

Its parts, from the bottom up, and none knows the ones below it in this file:

1. the MQTT 3.1.1 codec (OASIS standard of 29 October 2014): bytes in, packets out; no socket;
2. `MqttConnection`: one connection on a blocking socket with timeouts. The `boardhand` command uses it too, on a
   path that has to be fast, so the imports at the top are few, and costly ones stand where they are needed;
3. what the board knows of itself, read from sysfs and procfs below a given root;
4. `Session`: every decision, without I/O. Two tables, `LINK` and `WORK`, hold the transitions;
5. `StepRunner`: one shell command in its own process group;
6. `ArtifactReader`: the files that a job leaves;
7. `CallDesk`: what programs of a running step ask of the broker;
8. `run_board`: the loop that wires them.
"""

from __future__ import annotations

import codecs
import os
import select
import socket
import struct
import sys
import time
from collections import deque

TYPE_CHECKING = False  # typing costs 3 ms at each start; type checkers read this name as true
if TYPE_CHECKING:
    import queue
    import ssl
    import subprocess
    import threading
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType
    from typing import Protocol

    class System(Protocol):
        """What a board can do to itself. Both return only when it did not happen."""

        def reboot(self) -> None: ...
        def poweroff(self) -> None: ...

    class Digest(Protocol):
        """What hashlib gives."""

        def update(self, data: bytes, /) -> None: ...
        def hexdigest(self) -> str: ...


CLIENT_NAME = "client.py 1.2"

# --- 1. MQTT 3.1.1: the codec ------------------------------------------------------------------------------------

CONNECT, CONNACK, PUBLISH, PUBACK = 1, 2, 3, 4
SUBSCRIBE, SUBACK, PINGREQ, PINGRESP, DISCONNECT = 8, 9, 12, 13, 14

MAX_PACKET_BYTES = 1024 * 1024
"""Four times the largest payload of the contract; anything longer is no packet of ours but garbage."""
MAX_REMAINING_LENGTH_BYTES = 4  # section 2.2.3
MAX_STRING_BYTES = 65535  # section 1.5.3: the length prefix has two bytes

CONNECT_REFUSALS = {  # section 3.2.2.3
    1: "it does not speak MQTT 3.1.1",
    2: "it rejects the client id",
    3: "it is unavailable",
    4: "the user name or password is wrong",
    5: "this client is not authorised",
}


class MqttError(Exception):
    """The server refused, broke the protocol, fell silent or went away. The connection is of no more use."""


class Received:
    """One message. `retain` is true when the server had stored it before we subscribed."""

    __slots__ = ("payload", "retain", "topic")

    def __init__(self, topic: str, payload: bytes, retain: bool) -> None:  # noqa: FBT001  # a record, not a switch
        self.topic = topic
        self.payload = payload
        self.retain = retain

    def __repr__(self) -> str:
        return f"Received(topic={self.topic!r}, payload={self.payload!r}, retain={self.retain!r})"


class Packet:
    """A packet that came from a server. Which fields mean something depends on `kind`."""

    __slots__ = ("codes", "kind", "packet_id", "payload", "qos", "retain", "topic")

    def __init__(self, kind: int, packet_id: int = 0, codes: bytes = b"") -> None:
        self.kind = kind
        self.packet_id = packet_id
        self.codes = codes
        """CONNACK: flags and return code; SUBACK: one return code per topic."""
        self.topic = ""
        self.payload = b""
        self.qos = 0
        self.retain = False


def _text(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > MAX_STRING_BYTES or "\0" in text:
        raise MqttError(f"{text[:40]!r}...: an MQTT string has at most {MAX_STRING_BYTES} bytes and no NUL in it")
    return struct.pack(">H", len(raw)) + raw


def _packet(first: int, body: bytes) -> bytes:
    """A packet from its first byte and what follows the remaining length (section 2.2.3: 7 bits a byte, low first)."""
    if len(body) > MAX_PACKET_BYTES:
        raise MqttError(f"a packet of {len(body)} bytes is more than the {MAX_PACKET_BYTES} that may be sent")
    length, coded = len(body), bytearray()
    while True:
        length, low = divmod(length, 128)
        coded.append(low | (0x80 if length else 0))
        if not length:
            return bytes([first]) + bytes(coded) + body


def encode_connect(
    client_id: str,
    *,
    keepalive_s: int,
    clean: bool = True,
    will: tuple[str, bytes] | None = None,
    username: str | None = None,
    password: bytes | None = None,
) -> bytes:
    """CONNECT (section 3.1). The will is QoS 1 and retained.

    Raises:
        MqttError: a password without a user name, which 3.1.1 forbids, or a string that is too long.
    """
    if password is not None and username is None:
        raise MqttError("a password needs a user name")
    flags, body = (0x02 if clean else 0), _text(client_id)
    if will is not None:
        if len(will[1]) > MAX_STRING_BYTES:
            raise MqttError(f"a will of {len(will[1])} bytes is more than the {MAX_STRING_BYTES} that fit")
        flags |= 0x04 | 0x08 | 0x20
        body += _text(will[0]) + struct.pack(">H", len(will[1])) + will[1]
    if username is not None:
        flags |= 0x80
        body += _text(username)
    if password is not None:
        flags |= 0x40
        body += struct.pack(">H", len(password)) + password
    return _packet(CONNECT << 4, _text("MQTT") + struct.pack(">BBH", 4, flags, keepalive_s) + body)


def encode_publish(topic: str, payload: bytes, *, qos: int, retain: bool, packet_id: int = 0) -> bytes:
    """PUBLISH (section 3.3) with QoS 0 or 1.

    Raises:
        MqttError: the topic is empty or holds a wildcard, or the packet would be too long.
    """
    if not topic or "+" in topic or "#" in topic:
        raise MqttError(f"{topic!r} is no topic to publish to: it is empty or holds a wildcard")
    middle = struct.pack(">H", packet_id) if qos else b""
    return _packet(PUBLISH << 4 | qos << 1 | retain, _text(topic) + middle + payload)


def encode_subscribe(topics: Sequence[str], packet_id: int) -> bytes:
    """SUBSCRIBE (section 3.8) with QoS 1 for each topic."""
    return _packet(SUBSCRIBE << 4 | 2, struct.pack(">H", packet_id) + b"".join(_text(t) + b"\x01" for t in topics))


def encode_puback(packet_id: int) -> bytes:
    """PUBACK (section 3.4)."""
    return _packet(PUBACK << 4, struct.pack(">H", packet_id))


PINGREQ_BYTES = b"\xc0\x00"
DISCONNECT_BYTES = b"\xe0\x00"


class PacketReader:
    """Server packets from a byte stream that arrives in pieces of any size."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> Packet | None:
        """The next whole packet, or None when more bytes are needed.

        Raises:
            MqttError: the bytes are no MQTT 3.1.1 packet that a server may send to us.
        """
        length, head = 0, 0
        for shift in range(MAX_REMAINING_LENGTH_BYTES):
            head = shift + 2
            if len(self._buffer) < head:
                return None
            byte = self._buffer[shift + 1]
            length |= (byte & 0x7F) << (7 * shift)
            if not byte & 0x80:
                break
        else:
            raise MqttError("the server sent a remaining length of more than 4 bytes")
        if length > MAX_PACKET_BYTES:
            raise MqttError(f"the server sent a packet of {length} bytes; at most {MAX_PACKET_BYTES} are taken")
        if len(self._buffer) < head + length:
            return None
        first, body = self._buffer[0], bytes(self._buffer[head : head + length])
        del self._buffer[: head + length]
        return _decode(first, body)


def _decode(first: int, body: bytes) -> Packet:
    kind, flags = first >> 4, first & 15
    if kind == PUBLISH:
        return _decode_publish(flags, body)
    if flags:
        raise MqttError(f"the server sent packet type {kind} with reserved flags {flags:#x}")
    if kind == CONNACK and len(body) == 2 and body[0] <= 1:
        return Packet(CONNACK, codes=body)
    if kind == PUBACK and len(body) == 2:
        return Packet(PUBACK, int.from_bytes(body, "big"))
    if kind == SUBACK and len(body) > 2:
        return Packet(SUBACK, int.from_bytes(body[:2], "big"), body[2:])
    if kind == PINGRESP and not body:
        return Packet(PINGRESP)
    raise MqttError(f"the server sent packet type {kind} with {len(body)} bytes, which is no answer to a client")


def _decode_publish(flags: int, body: bytes) -> Packet:
    packet = Packet(PUBLISH)
    packet.qos, packet.retain = flags >> 1 & 3, bool(flags & 1)
    if packet.qos > 1:
        raise MqttError(f"the server sent QoS {packet.qos}; QoS 1 was asked for")
    topic_end = 2 + int.from_bytes(body[:2], "big")
    start = topic_end + 2 * packet.qos
    if len(body) < start or topic_end == 2:
        raise MqttError("the server sent a PUBLISH that ends before its payload, or has no topic")
    try:
        packet.topic = body[2:topic_end].decode()
    except UnicodeDecodeError:
        raise MqttError("the server sent a topic that is not UTF-8") from None
    if any(c in packet.topic for c in "\0+#"):
        raise MqttError(f"the server sent the topic {packet.topic!r}, which no message can have")
    packet.payload = body[start:]
    if packet.qos:
        packet.packet_id = int.from_bytes(body[topic_end:start], "big")
        if not packet.packet_id:
            raise MqttError("the server sent packet id 0")
    return packet


# --- 2. MQTT 3.1.1: one connection -------------------------------------------------------------------------------

RECEIVE_BYTES = 65536
MAX_QUEUED_MESSAGES = 10_000
"""Messages that may arrive while we wait for an acknowledgement. QoS 1 ones are bounded by the server's window,
because we acknowledge a message when it is taken; this bounds QoS 0."""

DRAIN_S = 1.0
"""How long a clean end waits for the server to hang up. Closing with unread input would be a reset, which can
overtake our DISCONNECT, and the server would send the will."""


class MqttConnection:
    """One MQTT 3.1.1 connection, for one thread. It does not reconnect: make another one.

    Every wait has an end: `timeout_s` for a connect and for an acknowledgement, and for a PINGRESP once the
    connection was quiet for half of `keepalive_s`. As a context manager it connects on entry, disconnects cleanly
    on a normal exit, and drops the connection, so that the will is sent, when an exception leaves it.
    """

    def __init__(  # noqa: PLR0913  # a connection has that many properties
        self,
        host: str,
        port: int,
        client_id: str,
        *,
        will: tuple[str, bytes] | None = None,
        username: str | None = None,
        password: str | bytes | None = None,
        tls: ssl.SSLContext | None = None,
        keepalive_s: int = 30,
        timeout_s: float = 10.0,
        clean: bool = True,
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._keepalive_s, self._timeout_s = keepalive_s, timeout_s
        secret = password.encode() if isinstance(password, str) else password
        self._hello = encode_connect(
            client_id, keepalive_s=keepalive_s, clean=clean, will=will, username=username, password=secret
        )
        self._socket: socket.socket | None = None
        self._reader = PacketReader()
        self._messages: deque[Packet] = deque()
        self._answers: dict[tuple[int, int], Packet] = {}
        self._awaited: set[tuple[int, int]] = set()
        self._last_id = 0
        self._sent_at = 0.0
        self._ping_at: float | None = None

    def __enter__(self) -> MqttConnection:  # noqa: PYI034  # typing.Self is new in 3.11
        self.connect()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def connect(self) -> None:
        """Connects and waits for the server's answer.

        Raises:
            MqttError: the server refused; the message says why.
            OSError: it cannot be reached, or did not answer within `timeout_s`.
        """
        plain = socket.create_connection((self._host, self._port), timeout=self._timeout_s)
        self._socket = plain
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                self._socket = self._tls.wrap_socket(plain, server_hostname=self._host)
            self._send(self._hello)
            answer = self._wait_for(CONNACK, 0)
        except (OSError, MqttError):
            self.abort()
            raise
        code = answer.codes[1]
        if code:
            self.abort()
            reason = CONNECT_REFUSALS.get(code, f"return code {code}")
            raise MqttError(f"MQTT server {self._host}:{self._port} refused the connection: {reason}")

    def subscribe(self, *topics: str) -> None:
        """Subscribes with QoS 1 and waits for the server's answer.

        Raises:
            MqttError: the server refused one of them, or is gone. OSError: it did not answer in time.
        """
        number = self._new_id(SUBACK)
        self._send(encode_subscribe(topics, number))
        codes = self._wait_for(SUBACK, number).codes
        if len(codes) != len(topics):
            raise self._broken(f"answered {len(codes)} of {len(topics)} subscriptions")
        refused = [topic for topic, code in zip(topics, codes) if code > 1]  # noqa: B905  # strict= is new in 3.10
        if refused:
            raise MqttError(f"MQTT server {self._host}:{self._port} refused to subscribe us to {', '.join(refused)}")

    def publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, wait: bool = True) -> None:
        """Sends a message; with QoS 1 and `wait`, returns when the server has taken it.

        Raises:
            MqttError: the topic or payload cannot be sent, or the server is gone. OSError: no answer in time.
        """
        number = self._new_id(PUBACK) if qos else 0
        self._send(encode_publish(topic, payload, qos=qos, retain=retain, packet_id=number))
        if qos and wait:
            self._wait_for(PUBACK, number)
        elif qos:
            self._awaited.discard((PUBACK, number))

    def receive(self, timeout_s: float | None) -> Received | None:
        """The next message, or None when `timeout_s` has passed; None as a timeout waits for ever.

        Answers QoS 1 messages, and keeps the connection alive while it waits.

        Raises:
            MqttError: the server is gone, silent or talks nonsense. OSError: the socket failed.
        """
        until = None if timeout_s is None else time.monotonic() + timeout_s
        self._open()
        while not self._messages:
            now = time.monotonic()
            self._keep_alive(now)
            wait = self.due_s()
            if until is not None:
                wait = min(wait, max(0.0, until - now))
            if not self._read(wait) and until is not None and time.monotonic() >= until:
                return None
        packet = self._messages.popleft()
        if packet.qos:
            self._send(encode_puback(packet.packet_id))
        return Received(packet.topic, packet.payload, packet.retain)

    def due_s(self) -> float:
        """Seconds until `receive` has to be called again to keep the connection alive; 0 when messages wait."""
        if self._messages:
            return 0.0
        if self._ping_at is not None:
            due = self._ping_at + self._timeout_s
        else:
            due = self._sent_at + (self._keepalive_s / 2 if self._keepalive_s else 3600)
        return max(0.0, due - time.monotonic())

    def fileno(self) -> int:
        """For `select`. Messages may already wait inside: call `receive(0)` until it gives None, then select."""
        return self._open().fileno()

    def local_address(self) -> str:
        """Our end's address, as the server sees it."""
        return str(self._open().getsockname()[0])

    def close(self) -> None:
        """A clean end: the server does not send the will. Closing twice, or after the server went, is no error."""
        if self._socket is not None:
            try:
                self._send(DISCONNECT_BYTES)
                until = time.monotonic() + DRAIN_S
                self._socket.settimeout(DRAIN_S)
                while self._socket.recv(RECEIVE_BYTES) and time.monotonic() < until:
                    pass
            except (OSError, MqttError):
                pass  # it is gone already, and nothing of ours was under way
            self.abort()

    def abort(self) -> None:
        """Drops the connection without a word: the server sends the will."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        if self._socket is None:
            raise MqttError(f"there is no connection to {self._host}:{self._port}")
        return self._socket

    def _broken(self, what: str) -> MqttError:
        self.abort()
        return MqttError(f"MQTT server {self._host}:{self._port} {what}")

    def _new_id(self, answer: int) -> int:
        self._last_id = self._last_id % 65535 + 1
        self._awaited.add((answer, self._last_id))
        return self._last_id

    def _send(self, data: bytes) -> None:
        sock = self._open()
        try:
            sock.settimeout(self._timeout_s)
            sock.sendall(data)
        except OSError:
            self.abort()  # a part may be out: what follows would be read as garbage
            raise
        self._sent_at = time.monotonic()

    def _keep_alive(self, now: float) -> None:
        if self._ping_at is not None:
            if now - self._ping_at >= self._timeout_s:
                raise self._broken(f"did not answer a ping for {self._timeout_s:g} s")
        elif self._keepalive_s and now - self._sent_at >= self._keepalive_s / 2:
            self._send(PINGREQ_BYTES)
            self._ping_at = now

    def _wait_for(self, kind: int, number: int) -> Packet:
        self._awaited.add((kind, number))
        until = time.monotonic() + self._timeout_s
        while (kind, number) not in self._answers:
            wait = until - time.monotonic()
            if wait <= 0 or not self._read(wait):
                self.abort()
                raise TimeoutError(f"MQTT server {self._host}:{self._port} did not answer within {self._timeout_s:g} s")
        self._awaited.discard((kind, number))
        return self._answers.pop((kind, number))

    def _read(self, wait_s: float) -> bool:
        """Takes in what arrives within `wait_s`; False when nothing did."""
        sock = self._open()
        if not (self._tls is not None and sock.pending()):  # type: ignore[attr-defined]  # an SSLSocket then
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            if not poll.poll(int(wait_s * 1000) + (wait_s > 0)):
                return False
        try:
            sock.settimeout(self._timeout_s)
            data = sock.recv(RECEIVE_BYTES)
            # A server without TCP_NODELAY holds its next packet back until we acknowledge this one, which Linux
            # would put off for 40 ms. The kernel forgets the flag, so it is set each time.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except OSError:
            self.abort()
            raise
        if not data:
            raise self._broken("closed the connection")
        self._reader.feed(data)
        try:
            self._take_packets()
        except MqttError:
            self.abort()
            raise
        return True

    def _take_packets(self) -> None:
        while True:
            packet = self._reader.next()
            if packet is None:
                return
            self._ping_at = None  # whatever it said, it is alive
            key = (packet.kind, packet.packet_id)
            if packet.kind == PUBLISH:
                self._messages.append(packet)
                if len(self._messages) > MAX_QUEUED_MESSAGES:
                    raise MqttError(f"more than {MAX_QUEUED_MESSAGES} messages wait to be read")
            elif key in self._awaited:
                self._answers[key] = packet


# --- 3. who this board is ----------------------------------------------------------------------------------------

MAX_SHORT_TEXT = 256  # wire.payloads.ShortText
SECTORS_PER_GB = 1_953_125  # of 512 bytes, as sysfs counts whatever the disk's own are
DISK_KINDS = {"mmcblk": "mmc", "nvme": "nvme", "sd": "disk", "hd": "disk", "vd": "virtual", "xvd": "virtual"}
NO_MODELS = ("Default string", "System Product Name", "To Be Filled By O.E.M.", "To be filled by O.E.M.")
DEFAULT_PREFIX = "boardhand"
EXIT_SETTINGS = 2


class SettingsError(Exception):
    """The kernel command line does not say what is needed. The message names the key and what to write."""


class Settings:
    """What the kernel command line says.

    Attributes:
        board, agent: ids; None on a board that nobody has claimed yet.
        host, port: the MQTT server.
        prefix: of all topics.
        secret: this boot's secret, 64 hexadecimal digits; None where `board` is.
        boot_interface: MAC address of the interface that the boot loader used, from `BOOTIF`.
    """

    def __init__(self, cmdline: str) -> None:
        given = dict(word.partition("=")[::2] for word in cmdline.split() if "=" in word)
        server = given.get("boardhand.mqtt", "")
        host, _, port = server.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise SettingsError(f"boardhand.mqtt={server!r} on the kernel command line: write boardhand.mqtt=HOST:PORT")
        self.host, self.port = host.strip("[]"), int(port)
        self.board = given.get("boardhand.board") or None
        self.agent = given.get("boardhand.agent") or None
        self.prefix = given.get("boardhand.prefix") or DEFAULT_PREFIX
        self.secret = given.get("boardhand.secret") or None
        if self.secret is not None and (len(self.secret) != 64 or set(self.secret) - set("0123456789abcdef")):
            raise SettingsError("boardhand.secret on the kernel command line is not 64 hexadecimal digits")
        self.boot_interface = given.get("BOOTIF", "")[3:].replace("-", ":").lower()


class Identity:
    """What a board knows of itself, read below `root` (`/` on a real board)."""

    def __init__(self, root: str, settings: Settings) -> None:
        self._root = root
        self.boot_id = self._line("proc/sys/kernel/random/boot_id") or "unknown"
        cards = self._cards()
        self.macs = sorted(cards.values())
        self.mac = self._registering_mac(cards, settings)
        self.kernel = self._line("proc/sys/kernel/osrelease")
        self.arch = os.uname().machine
        tree = self._raw("proc/device-tree/serial-number") or self._raw("sys/class/dmi/id/product_serial")
        self.serial = _printable(tree)
        self.uuid = _printable(self._raw("sys/class/dmi/id/product_uuid")).lower()
        names = self._raw("proc/device-tree/compatible").split(b"\0")
        self.compatible = [text for text in map(_printable, names) if text]
        self.memory_mb = self._memory_mb()
        self.inventory = self._inventory()
        release = dict(line.partition("=")[::2] for line in self._text("etc/os-release").splitlines())
        self.os = release.get("PRETTY_NAME", "").strip('"') or "Linux"

    def uptime_s(self) -> float | None:
        text = self._line("proc/uptime").partition(" ")[0]
        try:
            return float(text)
        except ValueError:
            return None

    def _raw(self, path: str) -> bytes:
        try:
            with open(os.path.join(self._root, path), "rb") as file:  # noqa: PTH118, PTH123  # pathlib costs 4 ms
                return file.read()
        except OSError:
            return b""  # not every board has every file, and each one's absence is a key left out

    def _text(self, path: str) -> str:
        return self._raw(path).decode("utf-8", "replace")

    def _line(self, path: str) -> str:
        return self._text(path).strip()

    def _memory_mb(self) -> int | None:
        for line in self._text("proc/meminfo").splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) // 1024
        return None

    def _inventory(self) -> dict[str, str | int]:
        """What jobs may ask for beside the above. What is not known is left out."""
        cpuinfo = [line.partition(":") for line in self._text("proc/cpuinfo").splitlines()]
        cpus = sum(key.strip() == "processor" for key, _, _ in cpuinfo)
        names = [value.strip()[:MAX_SHORT_TEXT] for key, _, value in cpuinfo if key.strip() == "model name"]
        cores = [name for name in self._names("proc/device-tree/cpus") if name.startswith("cpu@")]
        trees = [self._raw(f"proc/device-tree/cpus/{core}/compatible").partition(b"\0")[0] for core in cores]
        model = _printable(self._raw("proc/device-tree/model") or self._raw("sys/class/dmi/id/product_name"))
        cards = self._names("sys/class/net")
        found: dict[str, str | int] = {
            "model": "" if model in NO_MODELS else model,
            "cpu": next((_printable(name) for name in trees if name), "") or next(iter(names), ""),
            "cpus": cpus,
            "nics": sum(os.path.exists(os.path.join(self._root, "sys/class/net", name, "device")) for name in cards),  # noqa: PTH110, PTH118
            **self._storage(),
        }
        return {key: value for key, value in found.items() if value}

    def _storage(self) -> dict[str, str | int]:
        """Disks of more than nothing: what they hold together, and of which kinds they are."""
        sectors = 0
        kinds: dict[str, None] = {}
        for name in self._names("sys/block"):
            kind = next((kind for start, kind in DISK_KINDS.items() if name.startswith(start)), "")
            size = self._line(f"sys/block/{name}/size")
            if kind and "boot" not in name and "rpmb" not in name and size.isdigit() and int(size):
                sectors += int(size)
                kinds[kind] = None
        return {"storage_gb": sectors // SECTORS_PER_GB, "storage": ",".join(kinds)}

    def _names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(os.path.join(self._root, folder)))  # noqa: PTH118, PTH208
        except OSError:
            return []

    def _cards(self) -> dict[str, str]:
        """MAC addresses by interface. `lo` and tunnels have none, or only zeros."""
        names = self._names("sys/class/net")
        cards = {name: self._line(f"sys/class/net/{name}/address").lower() for name in names if name != "lo"}
        return {name: mac for name, mac in cards.items() if len(mac) == 17 and mac != "00:00:00:00:00:00"}

    def _registering_mac(self, cards: dict[str, str], settings: Settings) -> str:
        """The interface that the boot loader used, else the one that leads to the MQTT server, else the first."""
        if settings.boot_interface in cards.values():
            return settings.boot_interface
        try:
            target = int.from_bytes(socket.inet_aton(settings.host), sys.byteorder)
        except OSError:
            target = 0  # a name or IPv6: the default route decides
        best = (-1, "")
        for line in self._text("proc/net/route").splitlines()[1:]:
            fields = line.split()
            net, mask = int(fields[1], 16), int(fields[7], 16)
            if fields[0] in cards and target & mask == net:
                best = max(best, (format(mask, "b").count("1"), cards[fields[0]]))
        return best[1] or next((cards[name] for name in sorted(cards)), "")


def _printable(raw: bytes) -> str:
    """Firmware strings end in NUL, some in blanks, and some are longer than the contract takes."""
    return raw.rstrip(b"\0\n ").decode("utf-8", "replace").strip()[:MAX_SHORT_TEXT]


def registration_proof(secret: str, board: str, boot_id: str, mac: str) -> str:
    """HMAC-SHA256 of the registration with the boot's secret (its hexadecimal text) as the key, in hexadecimal."""
    import hmac  # noqa: PLC0415  # costs 5 ms, and only a board needs it

    message = f"boardhand-register\n{board}\n{boot_id}\n{mac.lower()}".encode()
    return hmac.new(secret.encode(), message, "sha256").hexdigest()


# --- 4. the session: every decision, no I/O ----------------------------------------------------------------------

REGISTER_AGAIN_S = 5.0  # the agent may be starting
REFUSED_AGAIN_S = 60.0  # a person or a power cycle has to change something first
ASK_AGAIN_S = 30.0  # the broker may have been away when we asked
OUTCOME_AGAIN_S = 5.0  # a lost outcome holds the board's lease
LOG_CHUNK_CHARS = 8192  # escaped for JSON at most 48 KiB, below the 64 Ki that the contract takes
LOG_DELAY_S = 0.5  # someone may be reading along
MAX_PIECES_WAITING = 4
MAX_LOG_BACKLOG = 512  # chunks kept while the server is away: 4 MiB, which a small board can spare
REMEMBERED_OUTCOMES = 16
CALL_AGAIN_S = 5.0  # a call that is not answered: the broker may have been away, or it waits for other boards
MAX_CALLS = 32  # under way at a time
MAX_CALL_CHARS = 32 * 1024

DOWN, REGISTERING, REFUSED, ONLINE, LEAVING = "down", "registering", "refused", "online", "leaving"
IDLE, RUNNING, STOPPING, DROPPING, DONE = "idle", "running", "stopping", "dropping", "done"
COLLECTING = "collecting"  # the steps are over, and the files that the job leaves are on their way

# Two tables hold every transition: (state, event) -> (what to do, next state). A pair that is not there is looked
# up under "*"; a pair that is in neither is a defect and raises. "" does nothing.
LINK: dict[tuple[str, str], tuple[str, str]] = {
    (DOWN, "connected"): ("register", REGISTERING),
    (DOWN, "connected-again"): ("resume", ONLINE),  # this boot has proved itself; the work must not wait for an agent
    # The will and the client id carry the board's name, so they take a new connection: a board that only says to be
    # another one must neither throw it off the server nor speak for it when it goes.
    (REGISTERING, "accepted"): ("take_name", DOWN),
    (REGISTERING, "refused"): ("be_refused", REFUSED),
    (REGISTERING, "due"): ("register", REGISTERING),
    (REFUSED, "due"): ("register", REGISTERING),
    (ONLINE, "due"): ("repeat", ONLINE),
    (REGISTERING, "order"): ("leave", LEAVING),
    (REFUSED, "order"): ("leave", LEAVING),
    (ONLINE, "order"): ("leave", LEAVING),
    (LEAVING, "order"): ("", LEAVING),
    (LEAVING, "lost"): ("", LEAVING),
    (DOWN, "order"): ("leave", LEAVING),  # SIGTERM while the server is away
    # Late answers, and work for a board that has not registered, change nothing.
    ("*", "connected"): ("", ""),
    ("*", "connected-again"): ("", ""),
    ("*", "accepted"): ("", ""),
    ("*", "refused"): ("", ""),
    ("*", "due"): ("", ""),
    ("*", "work"): ("", ""),
    ("*", "lost"): ("lose", DOWN),
}

WORK: dict[tuple[str, str], tuple[str, str]] = {
    (IDLE, "offer"): ("start", RUNNING),
    (IDLE, "offer-old"): ("report_again", IDLE),
    (RUNNING, "offer-same"): ("accept", RUNNING),
    (RUNNING, "step-passed"): ("next_step", RUNNING),
    (RUNNING, "ended"): ("finish", DONE),
    (RUNNING, "ended-collect"): ("collect", COLLECTING),
    (COLLECTING, "collected"): ("finish", DONE),
    (COLLECTING, "stop"): ("finish", DONE),
    (COLLECTING, "ack-no"): ("drop", IDLE),
    (COLLECTING, "offer-same"): ("accept", COLLECTING),
    (COLLECTING, "offer"): ("accept", COLLECTING),
    (RUNNING, "stop"): ("kill", STOPPING),
    (RUNNING, "ack-no"): ("kill", DROPPING),
    (STOPPING, "step-passed"): ("finish", DONE),
    (STOPPING, "ended"): ("finish", DONE),
    (STOPPING, "ack-no"): ("", DROPPING),
    (DROPPING, "step-passed"): ("drop", IDLE),
    (DROPPING, "ended"): ("drop", IDLE),
    (DONE, "offer-same"): ("report", DONE),
    (DONE, "stop"): ("report", DONE),
    (DONE, "ack-yes"): ("forget", IDLE),
    (DONE, "ack-no"): ("forget", IDLE),
    # Busy with something else: the accept or outcome tells the broker with what.
    (RUNNING, "offer"): ("accept", RUNNING),
    (DONE, "offer"): ("report", DONE),
    ("*", "offer"): ("", ""),
    ("*", "offer-same"): ("", ""),
    ("*", "offer-old"): ("report_again", ""),
    ("*", "stop"): ("", ""),
    ("*", "ack-yes"): ("", ""),
    ("*", "ack-no"): ("", ""),
    ("*", "step-passed"): ("", ""),
    ("*", "ended"): ("", ""),
    ("*", "ended-collect"): ("", ""),
    ("*", "collected"): ("", ""),
}


def transition(table: dict[tuple[str, str], tuple[str, str]], state: str, event: str) -> tuple[str, str]:
    """What to do and the next state. `LookupError` names a pair that the table forgot."""
    found = table.get((state, event)) or table.get(("*", event))
    if found is None:
        raise LookupError(f"no transition from {state} on {event}")
    return found[0], found[1] or state


class Action:
    """Something for the adapter to do. `kind` is one of: `start` (a step; `detail` is `first` for a job's first),
    `kill`, `collect` (what `step` wishes for, see `ArtifactReader`), `answer` (to the call `detail`), `reconnect`,
    `order` (`detail` says which), `say`.
    """

    __slots__ = ("detail", "kind", "step")

    def __init__(self, kind: str, detail: str = "", step: dict[str, object] | None = None) -> None:
        self.kind = kind
        self.detail = detail
        self.step = step or {}

    def __repr__(self) -> str:
        return f"Action({self.kind!r}, {self.detail!r})"


class Outgoing:
    """A message that waits to be published. `log` ones survive a lost connection; the others are made anew."""

    __slots__ = ("log", "payload", "retain", "topic")

    def __init__(self, topic: str, payload: Mapping[str, object], *, retain: bool = False, log: bool = False) -> None:
        self.topic = topic
        self.payload = payload
        self.retain = retain
        self.log = log


class Job:
    """An offer that was taken, and how far it has come."""

    def __init__(self, offer: dict[str, object], steps: list[dict[str, object]], env: dict[str, str]) -> None:
        self.key = (str(offer["job"]), int(str(offer["token"])))
        self.artifacts = offer.get("artifacts")
        self.failed: dict[str, object] | None = None
        """The result of the first step that did not pass."""
        self.error = False
        """A step could not be run, or was killed."""
        self.steps = steps
        self.env = env
        self.results: list[dict[str, object]] = []
        self.stopped = ""
        self.log_seq = 0
        self.lost_characters = 0
        self.outcome: dict[str, object] = {}

    @property
    def step(self) -> dict[str, object]:
        return self.steps[min(len(self.results), len(self.steps) - 1)]


def read_offer(offer: dict[str, object]) -> Job:
    """A `WorkOffer` as a job. `expires` is not looked at: a board without a clock battery lives in 1970.

    Raises:
        ValueError: a key is missing or of a wrong type; the message names it.
    """
    steps, env = offer.get("steps"), offer.get("env", {})
    token = offer.get("token")
    if not isinstance(offer.get("job"), str) or not isinstance(token, int) or isinstance(token, bool):
        raise ValueError("job or token: missing or of a wrong type")  # noqa: TRY004  # one error for all keys
    if not isinstance(steps, list) or not steps or not isinstance(env, dict):
        raise ValueError("steps or env: missing or of a wrong type")
    for step in steps:
        if not isinstance(step, dict) or not isinstance(step.get("run"), str) or not isinstance(step.get("name"), str):
            raise ValueError("steps: each one needs the texts name and run")  # noqa: TRY004  # one error for all keys
        codes = step.get("exit_codes", [0])
        if not isinstance(codes, list) or not all(isinstance(code, int) for code in codes):
            raise ValueError("steps: exit_codes is no list of numbers")
        if not isinstance(step.get("timeout_s", 600), (int, float)) or "\0" in step["run"]:
            raise ValueError("steps: timeout_s is not a number, or run holds a NUL")
    if not all(isinstance(text, str) and "\0" not in str(text) + str(key) for key, text in env.items()):
        raise ValueError("env: holds something that is no text")
    wish = offer.get("artifacts")
    if wish is not None and not (isinstance(wish, dict) and isinstance(wish.get("paths"), list)):
        raise ValueError("artifacts: paths is no list")
    return Job(offer, steps, env)


class Session:
    """Registers, asks for work and reports, over whatever carries its messages.

    The adapter tells it what happened, with `now` as monotonic seconds, then publishes what `outgoing()` gives,
    one by one, calling `sent()` after each acknowledgement, and does what `take_actions()` gives.
    """

    def __init__(self, settings: Settings, identity: Identity) -> None:
        self.link, self.work = DOWN, IDLE
        self.board = settings.board
        self.leaving_for = ""
        self._settings, self._me = settings, identity
        if not identity.mac:
            raise SettingsError("no network interface with a MAC address: nothing to register with")
        self._address = ""
        self._registered = False
        self._due: float | None = None
        self._outbox: deque[Outgoing] = deque()
        self._actions: list[Action] = []
        self._job: Job | None = None
        self._finished: dict[tuple[str, int], dict[str, object]] = {}
        self._offered = ("", 0)
        self._calls: dict[str, str] = {}
        self._calls_due: float | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._text_since: float | None = None
        self._now = 0.0

    # what the adapter asks

    def client_id(self) -> str:
        """The same at every boot, so that the server ends what is left of the connection before the power cycle."""
        return f"bh-{self.board}" if self._registered else f"bh-mac-{self._me.mac.replace(':', '')}"

    def will(self) -> tuple[str, bytes] | None:
        if not self._registered:
            return None
        return self._topic("self"), _json({"state": "offline", "boot_id": self._me.boot_id})

    def subscriptions(self) -> list[str]:
        """Made before anything is published, so that no answer is missed."""
        answer = f"{self._settings.prefix}/register/{self._me.mac.replace(':', '-')}"
        return [answer, self._topic("work"), self._topic("work/answer")] if self._registered else [answer]

    def outgoing(self) -> Outgoing | None:
        return self._outbox[0] if self._outbox and self.link != DOWN else None

    def sent(self) -> None:
        self._outbox.popleft()

    def take_actions(self) -> list[Action]:
        actions, self._actions = self._actions, []
        return actions

    def deadline(self) -> float | None:
        """When `tick` has to be called, in the same seconds as `now`; None when nothing is due."""
        times = [self._due] if self._due is not None and self.link not in (DOWN, LEAVING) else []
        if self._text_since is not None:
            times.append(self._text_since + LOG_DELAY_S)
        if self._calls_due is not None and self.link == ONLINE:
            times.append(self._calls_due)
        return min(times) if times else None

    # what the adapter tells

    def connected(self, address: str, now: float) -> None:
        self._now, self._address = now, address
        self._link("connected-again" if self._registered else "connected")

    def disconnected(self, now: float) -> None:
        self._now = now
        self._link("lost")

    def tick(self, now: float) -> None:
        self._now = now
        if self._text_since is not None and now >= self._text_since + LOG_DELAY_S:
            self._flush_log()
        if self._due is not None and now >= self._due:
            self._due = None
            self._link("due")
        if self._calls_due is not None and now >= self._calls_due and self.link == ONLINE:
            self._say_calls()

    def call(self, name: str, text: str, now: float) -> None:
        """A program of the running step asks the broker something; an `answer` action follows in time."""
        self._now = now
        if self.work != RUNNING:
            return
        if len(text) > MAX_CALL_CHARS or len(self._calls) >= MAX_CALLS:
            why = f"more than {MAX_CALL_CHARS} characters, or than {MAX_CALLS} calls at a time"
            self._actions.append(Action("answer", name, {"ok": False, "text": why}))
            return
        self._calls[name] = text
        if self.link == ONLINE:
            self._say_call(name)

    def shut_down(self, now: float) -> None:
        """The client itself is to end: what is running is killed, and the board says offline."""
        self._now, self.leaving_for = now, "exit"
        self._link("order")

    def message(self, message: Received, now: float) -> None:
        """Anything received. A retained message is never acted on, and nonsense is said and dropped."""
        self._now = now
        import json  # noqa: PLC0415  # costs 2 ms

        try:
            payload = json.loads(message.payload)
            if message.retain or not isinstance(payload, dict):
                self._say(f"a message on {message.topic} was not taken: it is retained, or no JSON object")
            elif message.topic == self.subscriptions()[0]:
                self._take_answer(payload)
            else:
                self._take_work(payload)
        except (ValueError, RecursionError) as error:
            self._say(f"a message on {message.topic} was not taken: {error}")

    def output(self, data: bytes, now: float) -> None:
        """Output of the running step."""
        self._now = now
        if self.work in (RUNNING, STOPPING):
            self._text += self._decoder.decode(data)
            self._text_since = now if self._text_since is None else self._text_since
            while len(self._text) >= LOG_CHUNK_CHARS:
                self._cut(LOG_CHUNK_CHARS)
            if not self._text:
                self._text_since = None

    def step_ended(self, exit_code: int | None, problem: str, took_s: float, now: float) -> None:
        """The running step is over. `exit_code` is None when it never ran to its end; `problem` then says why."""
        self._now = now
        job = self._job
        if job is None:
            return
        self._text += self._decoder.decode(b"", final=True)
        self._decoder.reset()
        self._flush_log()
        self._calls, self._calls_due = {}, None  # who asked is gone
        result: dict[str, object] = {"name": job.step["name"], "took_s": round(took_s, 3)}
        problem = job.stopped or problem
        if exit_code is not None and not job.stopped:
            result["exit_code"] = exit_code
        if problem:
            result["problem"] = problem
        step = job.step
        job.results.append(result)
        codes = step.get("exit_codes", [0])
        passed = isinstance(codes, list) and exit_code in codes and not problem
        if not passed:
            job.failed = job.failed or result
            job.error |= bool(job.stopped) or (exit_code is None and not problem.startswith("timed out"))
        goes_on = passed or (step.get("continue_on_fail") is True and not job.error)
        if goes_on and len(job.results) < len(job.steps):
            self._work("step-passed")
        else:
            self._work("ended-collect" if job.artifacts and self.work == RUNNING else "ended")

    def artifact(self, piece: dict[str, object] | None, now: float) -> None:
        """The next piece of what the job leaves behind, as `ArtifactReader` gave it; None when that was all."""
        self._now = now
        if self.work != COLLECTING:
            return
        if piece is None:
            self._work("collected")
        else:
            message = {"kind": "artifact", **self._named(), **piece}
            self._outbox.append(Outgoing(self._topic("work/result"), message, log=True))

    def wants_artifact(self) -> bool:
        """Whether another piece may come: few wait at a time, so that no file has to fit into the memory."""
        return self.work == COLLECTING and self.link == ONLINE and len(self._outbox) < MAX_PIECES_WAITING

    # decisions on the connection

    def _link(self, event: str) -> None:
        what, self.link = transition(LINK, self.link, event)
        if what:
            getattr(self, f"_do_{what}")()

    def _do_register(self) -> None:
        me, settings = self._me, self._settings
        request = {
            "mac": me.mac, "macs": me.macs, "boot_id": me.boot_id, "board": self.board, "agent": settings.agent,
            "serial": me.serial, "uuid": me.uuid, "compatible": me.compatible, "arch": me.arch,
            "memory_mb": me.memory_mb, "kernel": me.kernel, "address": self._address, "client": CLIENT_NAME,
            "inventory": me.inventory,
        }  # fmt: skip
        if settings.secret and self.board:
            request["proof"] = registration_proof(settings.secret, self.board, me.boot_id, me.mac)
        self._publish(f"{settings.prefix}/register", {key: value for key, value in request.items() if value})
        self._due = self._now + REGISTER_AGAIN_S

    def _do_take_name(self) -> None:
        self._registered = True
        self._say(f"registered as {self.board}")
        self._actions.append(Action("reconnect"))

    def _do_be_refused(self) -> None:
        self._due = self._now + REFUSED_AGAIN_S

    def _do_resume(self) -> None:
        logs, self._outbox = self._outbox, deque()
        self._announce()
        if self.work in (RUNNING, STOPPING, COLLECTING):
            self._do_accept()
        self._outbox.extend(logs)
        self._do_repeat()
        if self._calls:
            self._say_calls()

    def _do_repeat(self) -> None:
        if self.work == IDLE:
            self._publish(self._topic("work/result"), {"kind": "ask", "boot_id": self._me.boot_id})
            self._due = self._now + ASK_AGAIN_S
        elif self.work == DONE:
            self._do_report()

    def _do_lose(self) -> None:
        self._due = None
        self._outbox = deque(message for message in self._outbox if message.log)

    def _do_leave(self) -> None:
        self._due = None
        self._outbox.clear()
        if self._job is not None:
            self._actions.append(Action("kill"))
        if self._registered:
            self._publish(self._topic("self"), {"state": "offline", "boot_id": self._me.boot_id}, retain=True)
        self._actions.append(Action("order", self.leaving_for))

    # decisions on work

    def _take_answer(self, answer: dict[str, object]) -> None:
        if answer.get("boot_id") != self._me.boot_id:
            return  # for an earlier boot
        name = answer.get("board")
        if answer.get("ok") is not True:
            error = answer.get("error")
            self._say(f"registration refused: {error.get('message') if isinstance(error, dict) else 'no reason given'}")
            self._link("refused")
        elif (isinstance(name, str) and name) or self.board:
            if self.link == REGISTERING and isinstance(name, str) and name:
                self.board = name
            self._link("accepted")

    def _take_work(self, message: dict[str, object]) -> None:
        kind = message.get("kind")
        if kind in ("reboot", "poweroff"):
            self._say(f"ordered to {kind}: {message.get('reason') or 'no reason given'}")
            self.leaving_for = str(kind)
            self._link("order")
        elif self.link != ONLINE:
            self._link("work")
        elif kind == "offer":
            self._take_offer(read_offer(message))
        elif kind in ("ack", "stop") and self._job and (message.get("job"), message.get("token")) == self._job.key:
            if kind == "stop":
                self._job.stopped = f"stopped: {message.get('reason') or 'no reason given'}"
            self._work("stop" if kind == "stop" else "ack-yes" if message.get("ok", True) else "ack-no")
        elif kind == "answer" and self._job and (message.get("job"), message.get("token")) == self._job.key:
            self._take_call_answer(message)

    def _take_call_answer(self, message: dict[str, object]) -> None:
        name = str(message.get("call"))
        if self._calls.pop(name, None) is not None:
            said = {"ok": message.get("ok") is True, "text": str(message.get("text") or "")}
            self._actions.append(Action("answer", name, said))

    def _say_calls(self) -> None:
        self._calls_due = None
        for name in self._calls:
            self._say_call(name)

    def _say_call(self, name: str) -> None:
        message = {"kind": "call", **self._named(), "call": name, "text": self._calls[name]}
        self._publish(self._topic("work/call"), message)
        self._calls_due = self._calls_due or self._now + CALL_AGAIN_S

    def _take_offer(self, offer: Job) -> None:
        if self._job is not None and offer.key == self._job.key:
            self._work("offer-same")
        elif offer.key in self._finished:
            self._offered = offer.key
            self._work("offer-old")
        else:
            if self.work == IDLE:
                self._job = offer
            self._work("offer")

    def _work(self, event: str) -> None:
        what, self.work = transition(WORK, self.work, event)
        if what:
            getattr(self, f"_do_{what}")()

    def _do_start(self) -> None:
        self._due = None
        self._do_accept()
        self._announce()
        self._do_next_step()

    def _do_accept(self) -> None:
        self._publish(self._topic("work/result"), {"kind": "accept", **self._named(), "boot_id": self._me.boot_id})

    def _do_next_step(self) -> None:
        job = self._running()
        step = {**job.step, "env": job.env, "job": job.key[0], "board": self.board}
        self._actions.append(Action("start", "" if job.results else "first", step))

    def _do_collect(self) -> None:
        job = self._running()
        if job.lost_characters:
            self._log(self._lost_note())
        wish = job.artifacts if isinstance(job.artifacts, dict) else {}
        self._actions.append(Action("collect", "", wish))

    def _do_kill(self) -> None:
        self._actions.append(Action("kill"))

    def _do_finish(self) -> None:
        job = self._running()
        if job.lost_characters:
            self._log(self._lost_note())
        last, failed = job.results[-1], job.failed
        for step in job.steps[len(job.results) :]:
            job.results.append({"name": step["name"], "problem": f"not run: step {last['name']} did not pass"})
        outcome = "error" if job.stopped or job.error else "failed" if failed else "passed"
        job.outcome = {"kind": "outcome", **self._named(), "outcome": outcome, "steps": job.results}
        if job.stopped and (failed is None or "problem" not in failed):
            job.outcome["problem"] = job.stopped
        elif failed is not None and "problem" in failed:
            job.outcome["problem"] = f"step {failed['name']}: {failed['problem']}"
        self._say(f"job {job.key[0]} {outcome}")
        self._remember(job)
        self._do_report()

    def _do_drop(self) -> None:
        job = self._running()
        job.outcome = {"kind": "outcome", **self._named(), "outcome": "error", "problem": "dropped: the token was old"}
        self._remember(job)
        self._do_forget()

    def _remember(self, job: Job) -> None:
        self._finished[job.key] = job.outcome
        if len(self._finished) > REMEMBERED_OUTCOMES:
            del self._finished[next(iter(self._finished))]

    def _do_report(self) -> None:
        job = self._running()
        job.outcome["log_chunks"] = job.log_seq
        self._publish(self._topic("work/result"), job.outcome)
        self._due = self._now + OUTCOME_AGAIN_S

    def _do_report_again(self) -> None:
        self._publish(self._topic("work/result"), self._finished[self._offered])

    def _do_forget(self) -> None:
        self._job = None
        self._text, self._text_since = "", None
        self._outbox = deque(message for message in self._outbox if not message.log)
        self._announce()
        self._do_repeat()

    def _running(self) -> Job:
        if self._job is None:
            raise LookupError(f"there is no job in state {self.work}")
        return self._job

    def _named(self) -> dict[str, object]:
        job, token = self._running().key
        return {"job": job, "token": token}

    # the log

    def _flush_log(self) -> None:
        if self._text:
            self._cut(len(self._text))
        self._text_since = None

    def _cut(self, length: int) -> None:
        piece, self._text = self._text[:length], self._text[length:]
        self._text_since = self._now if self._text else None
        job = self._running()
        if sum(message.log for message in self._outbox) >= MAX_LOG_BACKLOG:
            job.lost_characters += len(piece)
        else:
            self._log(self._lost_note() + piece)

    def _lost_note(self) -> str:
        lost, self._running().lost_characters = self._running().lost_characters, 0
        return f"\n[boardhand: {lost} characters of output lost, the server was away]\n" if lost else ""

    def _log(self, text: str) -> None:
        job = self._running()
        chunk = {"kind": "log", **self._named(), "seq": job.log_seq, "text": text, "step": job.step["name"]}
        job.log_seq += 1
        self._outbox.append(Outgoing(self._topic("work/result"), chunk, log=True))

    # small things

    def _announce(self) -> None:
        me = self._me
        said = {
            "state": "online", "boot_id": me.boot_id, "address": self._address, "os": me.os,
            "uptime_s": me.uptime_s(), "client": CLIENT_NAME,
            "work": self._job.key[0] if self._job and self.work != IDLE else None,
        }  # fmt: skip
        payload = {key: value for key, value in said.items() if value}
        self._publish(self._topic("self"), payload, retain=True)

    def _topic(self, tail: str) -> str:
        return f"{self._settings.prefix}/board/{self.board}/{tail}"

    def _publish(self, topic: str, payload: Mapping[str, object], *, retain: bool = False) -> None:
        if self.link != DOWN:
            self._outbox.append(Outgoing(topic, payload, retain=retain))

    def _say(self, text: str) -> None:
        self._actions.append(Action("say", text))


def _json(payload: Mapping[str, object]) -> bytes:
    import json  # noqa: PLC0415  # costs 2 ms

    return json.dumps(payload, separators=(",", ":")).encode()


# --- 5. one step -------------------------------------------------------------------------------------------------

KILL_GRACE_S = 2.0  # between SIGTERM and SIGKILL
CHILD_POLL_S = 0.2  # to notice the end of a shell whose children keep its output open
OUTPUT_PIECE_BYTES = 8192
OUTPUT_QUEUE = 64  # pieces between the step and us; then the step waits


class StepRunner:
    """Runs one shell command at a time, each in its own process group, and hands its output over a queue.

    A thread of its own reads the output and watches the deadline, so that neither waits while a connection is
    being made. `wake` is called, from that thread, after each thing put into `events`.
    """

    def __init__(self, shell: str, folder: str, wake: Callable[[], None]) -> None:
        import queue  # noqa: PLC0415  # only a board runs steps

        self._shell, self.folder, self._wake = shell, folder, wake
        self.programs = folder + "-bin"
        """Programs that a job brings: first in the PATH of its steps."""
        self.calls = folder + "-calls"
        self.events: queue.Queue[bytes | tuple[int | None, str, float]] = queue.Queue(OUTPUT_QUEUE)
        self._kill = False
        self._thread: threading.Thread | None = None

    def clean_up(self) -> None:
        """Makes the folder in which steps run anew and empty: one job's files are not the next one's."""
        import shutil  # noqa: PLC0415  # costs 10 ms

        for folder in (self.folder, self.programs):
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder, exist_ok=True)  # noqa: PTH103

    def start(self, step: Mapping[str, object]) -> None:
        import threading  # noqa: PLC0415

        self._kill = False
        self._thread = threading.Thread(target=self._run, args=(step,), name="step", daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """Ends the running step; its end is reported like any other."""
        self._kill = True

    def end(self) -> None:
        """Kills what runs and waits until it is gone."""
        self._kill = True
        until = time.monotonic() + 2 * KILL_GRACE_S
        while self._thread is not None and self._thread.is_alive() and time.monotonic() < until:
            while not self.events.empty():
                self.events.get()
            self._thread.join(0.05)

    def _put(self, event: bytes | tuple[int | None, str, float]) -> None:
        self.events.put(event)
        self._wake()

    def _run(self, step: Mapping[str, object]) -> None:
        import subprocess  # noqa: PLC0415

        began = time.monotonic()
        timeout_s = float(str(step.get("timeout_s", 600)))
        extra = step.get("env")
        env = {**os.environ, **(extra if isinstance(extra, dict) else {})}
        env.update(BOARDHAND_JOB=str(step["job"]), BOARDHAND_BOARD=str(step["board"]))
        env.update(BOARDHAND_BIN=self.programs, BOARDHAND_CALLS=self.calls)
        env["PATH"] = f"{self.programs}:{env.get('PATH', os.defpath)}"
        try:
            child = subprocess.Popen(
                [self._shell, "-c", str(step["run"])],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                cwd=self.folder, env=env, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._put((None, f"could not be started: {error}", 0.0))
            return
        why = self._watch(child, began + timeout_s, timeout_s)
        self._end_group(child.pid, 9)  # what it left behind would disturb the next job
        code = child.wait()
        took = time.monotonic() - began
        self._put((None, why, took) if why else (code if code >= 0 else 128 - code, "", took))

    def _watch(self, child: subprocess.Popen[bytes], deadline: float, timeout_s: float) -> str:
        """Reads until the end of the shell; returns why it was killed, or an empty text."""
        if child.stdout is None:
            return "its output could not be opened"
        why, kill_at = "", 0.0
        poll = select.poll()
        poll.register(child.stdout, select.POLLIN)
        with child.stdout as output:
            while True:
                now = time.monotonic()
                if not why and (self._kill or now >= deadline):
                    why = "killed" if self._kill else f"timed out after {timeout_s:g} s"
                    kill_at = now + KILL_GRACE_S
                    self._end_group(child.pid, 15)
                elif why and now >= kill_at:
                    self._end_group(child.pid, 9)
                wait = CHILD_POLL_S if why else min(CHILD_POLL_S, max(0.0, deadline - now))
                if poll.poll(int(wait * 1000) + 1):
                    data = os.read(output.fileno(), OUTPUT_PIECE_BYTES)
                    if not data:
                        return why or self._wait_end(child, deadline, timeout_s)
                    self._hand_over(data, deadline)
                elif child.poll() is not None:
                    return why

    def _wait_end(self, child: subprocess.Popen[bytes], deadline: float, timeout_s: float) -> str:
        """The output is closed; the shell may go on without it."""
        while child.poll() is None:
            if self._kill or time.monotonic() >= deadline:
                return "killed" if self._kill else f"timed out after {timeout_s:g} s"
            time.sleep(0.01)
        return ""

    def _hand_over(self, data: bytes, deadline: float) -> None:
        """Waits for room, but not past a kill or the deadline: what does not fit then is dropped with the step."""
        import queue  # noqa: PLC0415

        while True:
            try:
                self.events.put(data, timeout=CHILD_POLL_S)
            except queue.Full:
                if self._kill or time.monotonic() >= deadline:
                    return
            else:
                self._wake()
                return

    @staticmethod
    def _end_group(group: int, number: int) -> None:
        try:
            os.killpg(group, number)
        except ProcessLookupError:
            return  # all of it has ended


# --- 6. the files that a job leaves ------------------------------------------------------------------------------

ARTIFACT_PIECE_BYTES = 36_000  # 48 KB of base64: with its head in one payload that every server passes on
MAX_ARTIFACTS = 1000


class ArtifactReader:
    """The files that a job's patterns find, piece by piece.

    Patterns are the shell's, from the folder in which the steps run; regular files count, in the order of their names.
    A file is measured when its turn comes, and one that does not fit into what is left of `max_bytes` is only named.
    """

    def __init__(self, folder: str, wish: Mapping[str, object]) -> None:
        import glob  # noqa: PLC0415  # only a board with such a job needs it

        self._left = wish.get("max_bytes")
        self._folder, self._n, self._offset, self._size = folder, 0, 0, 0
        self._digest: Digest | None = None
        patterns = wish.get("paths")
        self._names: list[tuple[str, str]] = []
        seen: set[str] = set()
        for pattern in patterns if isinstance(patterns, list) else []:
            found = sorted(glob.glob(os.path.join(glob.escape(folder), str(pattern))))  # noqa: PTH118, PTH207
            inside = folder.rstrip("/") + "/"
            names = [path.removeprefix(inside) for path in found if os.path.isfile(path)]  # noqa: PTH113
            if not names:
                self._names.append((str(pattern), "nothing has that name"))
            self._names += [(name, "") for name in names if name not in seen]
            seen.update(names)
        if len(self._names) > MAX_ARTIFACTS:
            rest = len(self._names) - MAX_ARTIFACTS + 1
            self._names[MAX_ARTIFACTS - 1 :] = [("more", f"{rest} files more than the {MAX_ARTIFACTS} that are sent")]

    def next(self) -> dict[str, object] | None:
        """The next piece, without the keys that name the job; None after the last."""
        import base64  # noqa: PLC0415

        if self._n >= len(self._names):
            return None
        name, problem = self._names[self._n]
        piece: dict[str, object] = {"n": self._n, "name": _told_name(name), "offset": self._offset}
        data = b""
        if not problem:
            try:
                data = self._read(os.path.join(self._folder, name))  # noqa: PTH118
            except (OSError, ValueError) as error:
                problem = str(error)
        piece["data"] = base64.b64encode(data).decode()
        self._offset += len(data)
        if problem:
            piece["problem"] = problem
        elif self._digest is not None and (self._offset >= self._size or not data):
            piece["sha256"] = self._digest.hexdigest()
        else:
            return piece
        self._n, self._offset, self._digest = self._n + 1, 0, None
        return piece

    def _read(self, path: str) -> bytes:
        import hashlib  # noqa: PLC0415

        with open(path, "rb") as file:  # noqa: PTH123
            if self._digest is None:
                self._digest, self._size = hashlib.sha256(), os.fstat(file.fileno()).st_size
                left = self._left if isinstance(self._left, int) else 0
                if self._size > left:
                    raise ValueError(f"its {self._size} bytes are more than the {left} that may still be sent")
                self._left = left - self._size
            file.seek(self._offset)
            # What is appended while it is read does not count: it would never end.
            data = file.read(min(ARTIFACT_PIECE_BYTES, self._size - self._offset))
        self._digest.update(data)
        return data


def _told_name(name: str) -> str:
    return name.encode("utf-8", "replace").decode()[:1024]


# --- 7. what programs of a step ask of the broker ----------------------------------------------------------------


class CallDesk:
    """A folder by which programs of a step reach the broker: a call is a file in it, announced by the line
    `call NAME` in the fifo `new`; its answer is put beside it as `NAME.ok` or `NAME.no`."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._rest = b""
        os.makedirs(folder)  # noqa: PTH103
        os.mkfifo(self._path("new"))
        # Open at both ends: it never says end of file, and no writer waits for us.
        self._fifo = os.open(self._path("new"), os.O_RDWR | os.O_NONBLOCK)

    def fileno(self) -> int:
        return self._fifo

    def _path(self, name: str) -> str:
        return os.path.join(self._folder, name)  # noqa: PTH118

    def clean_up(self) -> None:
        """Forgets the calls of the job before."""
        self.take()
        self._rest = b""
        for name in os.listdir(self._folder):  # noqa: PTH208
            if name != "new":
                os.unlink(self._path(name))  # noqa: PTH108

    def take(self) -> list[tuple[str, str]]:
        """New calls: their names and what stands in them."""
        try:
            *lines, self._rest = (self._rest + os.read(self._fifo, 65536)).split(b"\n")
        except BlockingIOError:
            return []
        if len(self._rest) > 256:
            self._rest = b""  # nothing of ours
        found = []
        for line in lines:
            word, _, name = line.decode("ascii", "replace").partition(" ")
            if word != "call" or not name or not all(c.isalnum() or c in "-_." for c in name) or name[0] == ".":
                continue
            try:
                with open(self._path(name), "rb") as file:  # noqa: PTH123
                    found.append((name, file.read(4 * MAX_CALL_CHARS + 1).decode("utf-8", "replace")))
            except OSError as error:
                say(f"a call of the job cannot be read: {error}")
        return found

    def answer(self, name: str, said: Mapping[str, object]) -> None:
        """Puts the answer where the program waits for it."""
        target = self._path(name + (".ok" if said["ok"] else ".no"))
        try:
            with open(target + ".new", "w", encoding="utf-8") as file:  # noqa: PTH123
                file.write(str(said["text"]))
            os.replace(target + ".new", target)  # noqa: PTH105
        except OSError as error:
            say(f"the answer to a call of the job cannot be written: {error}")

    def close(self) -> None:
        os.close(self._fifo)


# --- 8. the loop -------------------------------------------------------------------------------------------------

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 30.0  # 200 boards then make 10 attempts a second, which any server takes
STABLE_S = 5.0  # a connection that ends sooner counts as a failed attempt: two boards with one name would fight
CONNECT_TIMEOUT_S = 10.0
KEEPALIVE_S = 30
ORDER_TIMEOUT_S = 120.0  # a system that has not gone down by then will not


class LiveSystem:
    """Really reboots and powers down."""

    def reboot(self) -> None:
        self._do("reboot")

    def poweroff(self) -> None:
        self._do("poweroff")

    @staticmethod
    def _do(what: str) -> None:
        import signal  # noqa: PLC0415
        import subprocess  # noqa: PLC0415

        # We are a service of what now ends: waiting for that end, we would hold it up until we are killed (90 s).
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        # Under systemd it is its business; in an initramfs nobody would hear the polite form.
        command = [what] if os.path.isdir("/run/systemd/system") else [what, "-f"]  # noqa: PTH112
        os.sync()
        subprocess.run(command, check=False, timeout=ORDER_TIMEOUT_S)
        time.sleep(ORDER_TIMEOUT_S)


class SayingSystem:
    """Says what would be done."""

    def reboot(self) -> None:
        say("would reboot")

    def poweroff(self) -> None:
        say("would power down")


def say(text: str) -> None:
    """One line for the board's console."""
    sys.stdout.write(f"boardhand: {text}\n")
    sys.stdout.flush()


class BoardOptions:
    """How `run_board` runs.

    Attributes:
        root: below which proc, sys and etc are read.
        cmdline_file: the kernel command line; below `root` when not given.
        shell: what runs the steps.
        system: what reboots and powers down.
    """

    def __init__(
        self,
        *,
        root: str = "/",
        cmdline_file: str | None = None,
        shell: str = "/bin/sh",
        system: System | None = None,
    ) -> None:
        self.root = root
        self.cmdline_file = cmdline_file or os.path.join(root, "proc/cmdline")  # noqa: PTH118
        self.shell = shell
        self.system = system or LiveSystem()


def back_off(attempt: int, dice: float) -> float:
    """Seconds before connection attempt `attempt` (from 0); `dice` in 0..1 keeps a farm's boards apart."""
    return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** min(attempt, 10)) * (0.5 + dice / 2)


class _Loop:
    def __init__(self, options: BoardOptions) -> None:
        with open(options.cmdline_file, encoding="utf-8", errors="replace") as file:  # noqa: PTH123
            self._settings = Settings(file.read())
        self._session = Session(self._settings, Identity(options.root, self._settings))
        self._options = options
        self._connection: MqttConnection | None = None
        self._attempt = 0
        self._up_since = float("inf")
        self._next_attempt = 0.0
        self._order = ""
        self._stop = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._folder = _make_folder()
        self._artifacts: ArtifactReader | None = None
        self._steps = StepRunner(options.shell, os.path.join(self._folder, "work"), self.wake)  # noqa: PTH118
        self._calls = CallDesk(self._steps.calls)

    def wake(self) -> None:
        try:
            os.write(self._wake_write, b"x")
        except BlockingIOError:
            return  # it is full of wake-ups already

    def stop(self, *_: int | FrameType | None) -> None:
        self._stop = True
        self.wake()

    def run(self) -> int:
        try:
            while not self._order:
                if self._stop:
                    self._session.shut_down(time.monotonic())
                self._turn()
        finally:
            self._remove_traces()
        if self._order == "reboot":
            self._options.system.reboot()
        elif self._order == "poweroff":
            self._options.system.poweroff()
        return 0

    def _remove_traces(self) -> None:
        import shutil  # noqa: PLC0415

        if self._connection is not None:
            self._connection.close()
        self._steps.end()
        self._calls.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _turn(self) -> None:
        try:
            if self._connection is None and time.monotonic() >= self._next_attempt:
                self._connect()
            self._take_in()
            self._send_out()
        except (OSError, MqttError) as error:
            say(f"connection lost: {error}")
            self._drop()
        self._do_actions()
        # While files are on their way, each turn has more to send.
        if not self._order and not (self._artifacts is not None and self._session.wants_artifact()):
            self._wait()

    def _connect(self) -> None:
        session, settings = self._session, self._settings
        connection = MqttConnection(
            settings.host, settings.port, session.client_id(),
            will=session.will(), keepalive_s=KEEPALIVE_S, timeout_s=CONNECT_TIMEOUT_S,
        )  # fmt: skip
        self._connection = connection
        connection.connect()
        connection.subscribe(*session.subscriptions())
        self._up_since = time.monotonic()
        session.connected(connection.local_address(), time.monotonic())

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        if time.monotonic() - self._up_since >= STABLE_S:
            self._attempt = 0
        self._up_since = float("inf")
        self._next_attempt = time.monotonic() + back_off(self._attempt, os.urandom(1)[0] / 255)
        self._attempt += 1
        self._session.disconnected(time.monotonic())

    def _take_in(self) -> None:
        while not self._steps.events.empty():
            event = self._steps.events.get()
            if isinstance(event, bytes):
                self._session.output(event, time.monotonic())
            else:
                self._session.step_ended(*event, now=time.monotonic())
        for name, text in self._calls.take():
            self._session.call(name, text, time.monotonic())
        if self._artifacts is not None and self._session.work != COLLECTING:
            self._artifacts = None
        while self._artifacts is not None and self._session.wants_artifact():
            piece = self._artifacts.next()
            self._session.artifact(piece, time.monotonic())
            if piece is None:
                self._artifacts = None
        self._session.tick(time.monotonic())
        while self._connection is not None:
            message = self._connection.receive(0)
            if message is None:
                return
            self._session.message(message, time.monotonic())
            self._do_actions()

    def _send_out(self) -> None:
        while self._connection is not None:
            message = self._session.outgoing()
            if message is None:
                return
            self._connection.publish(message.topic, _json(message.payload), retain=message.retain)
            self._session.sent()

    def _do_actions(self) -> None:
        for action in self._session.take_actions():
            if action.kind == "say":
                say(action.detail)
            elif action.kind == "start":
                say(f"job {action.step['job']}: step {action.step['name']}")
                if action.detail == "first":
                    self._steps.clean_up()
                    self._calls.clean_up()
                self._steps.start(action.step)
            elif action.kind == "kill":
                self._steps.kill()
            elif action.kind == "answer":
                self._calls.answer(action.detail, action.step)
            elif action.kind == "collect":
                self._artifacts = ArtifactReader(self._steps.folder, action.step)
                self.wake()
            elif action.kind == "reconnect" and self._connection is not None:
                self._connection.close()
                self._connection = None
            elif action.kind == "order":
                self._say_farewell()
                self._order = action.detail

    def _say_farewell(self) -> None:
        try:
            self._send_out()
        except (OSError, MqttError) as error:
            say(f"could not say offline: {error}")

    def _wait(self) -> None:
        due = [self._session.deadline()]
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        poll.register(self._calls, select.POLLIN)
        now = time.monotonic()
        if self._connection is not None:
            poll.register(self._connection, select.POLLIN)
            due.append(now + self._connection.due_s())
        else:
            due.append(self._next_attempt)
        wait = min(at for at in due if at is not None) - now
        poll.poll(max(0, int(wait * 1000) + 1))
        try:
            os.read(self._wake_read, 4096)
        except BlockingIOError:
            return  # it was the connection, or the time


def _make_folder() -> str:
    import tempfile  # noqa: PLC0415

    return tempfile.mkdtemp(prefix="boardhand-")


def run_board(options: BoardOptions) -> int:
    """Runs the board's session until it is told to reboot, to power down, or gets SIGTERM. Returns the exit code.

    Raises:
        SettingsError: the kernel command line is wrong. OSError: it cannot be read.
    """
    import signal  # noqa: PLC0415

    loop = _Loop(options)
    signal.signal(signal.SIGTERM, loop.stop)
    signal.signal(signal.SIGINT, loop.stop)
    return loop.run()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    import argparse  # noqa: PLC0415

    parser = argparse.ArgumentParser(description="boardhand's client on a board: registers, asks for work, reports.")
    parser.add_argument("--root", default="/", help="folder that holds proc, sys and etc (default: /)")
    parser.add_argument("--cmdline-file", help="the kernel command line (default: proc/cmdline below the root)")
    parser.add_argument("--shell", default="/bin/sh", help="what runs the steps (default: /bin/sh)")
    parser.add_argument("--dry-orders", action="store_true", help="only say what reboot and poweroff would do")
    given = parser.parse_args(arguments)
    system: System = SayingSystem() if given.dry_orders else LiveSystem()
    try:
        return run_board(
            BoardOptions(root=given.root, cmdline_file=given.cmdline_file, shell=given.shell, system=system)
        )
    except (SettingsError, OSError) as error:
        sys.stderr.write(f"boardhand: {error}\n")
        return EXIT_SETTINGS


if __name__ == "__main__":
    sys.exit(main())
