"""Thousands of light boards on one MQTT connection: packets by hand (MQTT 3.1.1), so that they cost less than the
broker that they load."""

import asyncio
import json
import struct
from collections.abc import Callable
from typing import Self

PUBLISH, PUBACK, SUBACK, CONNACK = 3, 4, 9, 2


def _length(n: int) -> bytes:
    out = bytearray()
    while True:
        n, digit = divmod(n, 128)
        out.append(digit | (0x80 if n else 0))
        if not n:
            return bytes(out)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("!H", len(raw)) + raw


class LightMqtt(asyncio.Protocol):
    """One connection. `on_message` gets topic and payload; acknowledgements of ours are counted in `unacked`."""

    def __init__(self, on_message: Callable[[str, bytes], None]) -> None:
        self._on_message = on_message
        self._buffer = bytearray()
        self._mid = 0
        self.unacked = 0
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @classmethod
    async def connect(cls, port: int, name: str, on_message: Callable[[str, bytes], None], *filters: str) -> Self:
        loop = asyncio.get_running_loop()
        transport, link = await loop.create_connection(lambda: cls(on_message), "127.0.0.1", port)
        body = _text("MQTT") + bytes([4, 2]) + struct.pack("!H", 0) + _text(name)
        transport.write(bytes([0x10]) + _length(len(body)) + body)
        await link.ready
        link.ready = loop.create_future()
        body = struct.pack("!H", 1) + b"".join(_text(one) + b"\x00" for one in filters)
        transport.write(bytes([0x82]) + _length(len(body)) + body)
        await link.ready
        return link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.WriteTransport = transport  # type: ignore[assignment]  # TCP

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        buffer, at = self._buffer, 0
        while len(buffer) - at >= 2:
            length, shift, head = 0, 0, at + 1
            while head < len(buffer):
                digit = buffer[head]
                head += 1
                length |= (digit & 0x7F) << shift
                shift += 7
                if digit < 0x80:
                    break
            else:
                break
            if len(buffer) - head < length:
                break
            self._packet(buffer[at], bytes(buffer[head : head + length]))
            at = head + length
        del buffer[:at]

    def _packet(self, first: int, body: bytes) -> None:
        kind = first >> 4
        if kind == PUBLISH:
            size = struct.unpack_from("!H", body)[0]
            self._on_message(body[2 : 2 + size].decode(), body[2 + size :])
        elif kind == PUBACK:
            self.unacked -= 1
        elif kind in {SUBACK, CONNACK} and not self.ready.done():
            self.ready.set_result(None)

    def publish(self, topic: str, payload: dict[str, object] | bytes, *, retain: bool = False) -> None:
        """At QoS 1, as boards and agents do."""
        raw = payload if isinstance(payload, bytes) else json.dumps(payload, separators=(",", ":")).encode()
        self._mid = self._mid % 65535 + 1
        self.unacked += 1
        body = _text(topic) + struct.pack("!H", self._mid) + raw
        self.transport.write(bytes([0x32 | retain]) + _length(len(body)) + body)


SINCE = "2026-01-01T00:00:00+00:00"


class LightFarm:
    """Boards b1 to bN of agents a1 to aM. They are `busy`, and take no work, until they are made ready."""

    def __init__(self, boards: int, agents: int) -> None:
        self.names = [f"b{n}" for n in range(1, boards + 1)]
        self.agents = agents
        self.seq = 0
        self.on_offer: Callable[[str, dict[str, object]], None] = lambda _board, _offer: None
        self.on_response: Callable[[dict[str, object]], None] = lambda _answer: None
        self.on_broker: Callable[[], None] = lambda: None
        self.broker = ""

    async def connect(self, port: int, *more: str) -> None:
        p = "boardhand"
        topics = (f"{p}/board/+/work", f"{p}/broker/response/submit", f"{p}/broker/state")
        self.link = await LightMqtt.connect(port, "light-farm", self._heard, *topics, *more)

    def _heard(self, topic: str, payload: bytes) -> None:
        parts = topic.split("/")
        if parts[1] == "board":
            said = json.loads(payload)
            if said["kind"] == "offer":
                self.on_offer(parts[2], said)
        elif parts[2] == "response":
            self.on_response(json.loads(payload))
        else:
            self.broker = json.loads(payload)["state"]
            self.on_broker()

    def announce(self) -> None:
        """All agents and boards, retained."""
        for n in range(1, self.agents + 1):
            said: dict[str, object] = {"state": "online", "session": 1, "since": SINCE}
            self.link.publish(f"boardhand/agent/a{n}/state", said, retain=True)
        for n, name in enumerate(self.names):
            labels = {"shelf": f"s{n // 16}", "rack": n // 200}
            info: dict[str, object] = {"arch": self.arch(name), "memory_mb": 1024 << n % 3, "labels": labels}
            self.link.publish(f"boardhand/board/{name}/info", info, retain=True)
            self.say(name, "busy")

    def arch(self, name: str) -> str:
        return "arm64" if int(name[1:]) % 4 else "armhf"

    def say(self, name: str, phase: str, work: str | None = None) -> None:
        """The board's own word and its agent's, as they come after each other."""
        own: dict[str, object] = {"state": "online", "boot_id": f"{name}-1"}
        if work is not None:
            own["work"] = work
        self.link.publish(f"boardhand/board/{name}/self", own, retain=True)
        self.seq += 1
        state: dict[str, object] = {
            "power": "on",
            "phase": phase,
            "since": SINCE,
            "agent": f"a{int(name[1:]) % self.agents + 1}",
            "session": 1,
            "seq": self.seq,
        }
        self.link.publish(f"boardhand/board/{name}/state", state, retain=True)

    def run(self, name: str, offer: dict[str, object]) -> None:
        """Take the job and end it at once; the board is busy with something of its own afterwards."""
        topic = f"boardhand/board/{name}/work/result"
        lease = {"job": offer["job"], "token": offer["token"]}
        self.link.publish(topic, {"kind": "accept", **lease, "boot_id": f"{name}-1"})
        self.say(name, "busy", str(offer["job"]))
        steps = [{"name": "step 1", "exit_code": 0, "took_s": 0.1}]
        self.link.publish(topic, {"kind": "outcome", **lease, "outcome": "passed", "steps": steps})
        self.say(name, "busy")

    def submit(self, number: int, yaml: str) -> None:
        request: dict[str, object] = {"transaction": f"t{number}", "data": {"yaml": yaml}}
        self.link.publish("boardhand/broker/request/submit", request)
