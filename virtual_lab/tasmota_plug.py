"""A virtual Tasmota device: a real MQTT client with Tasmota's topics, answers and will.

    python -m virtual_lab.tasmota_plug --url mqtt://127.0.0.1:1883 --topic plug1 --relays 2

It prints one line of JSON when it is connected (`{"ready": true, "topic": …}`) and takes one JSON object per line on
its standard input, as `virtual_lab.snmp_pdu` does: `lie` (answers and does not switch), `silent` (never answers),
`press` (`{"do": "press", "relay": 1, "on": true}`), `state`. Killed, its will is said by the server.

Written from tasmota.github.io/docs (MQTT, Commands) and support_command.ino, not from the driver.
"""

import argparse
import asyncio
import json
import sys
from dataclasses import dataclass, field
from typing import Any, Self

from daemon.mqtt_link import LinkError, Message, MqttLink, Will
from daemon.mqtt_settings import MqttSettings
from virtual_lab.snmp_pdu_control import serve_until_told

CONNECT_TIMEOUT_S = 10.0
SWITCH_WORDS = {"ON": True, "1": True, "TRUE": True, "OFF": False, "0": False, "FALSE": False}


@dataclass
class TasmotaPlug:
    """The device.

    Attributes:
        numbered: SetOption26: a device with one relay says POWER1, not POWER.
        retain: PowerRetain: states are retained on the server.
        metered: `none`, `sum` (one number for the device) or `each` (a list).
        lying: answers the command and does not switch.
        silent: hears and never answers.
        delay_s: answers come so much later.
        commands: every command that came, as (word, payload).
        edges: every real change, as (relay, on).
    """

    server: MqttSettings
    topic: str
    full_topic: str = "%prefix%/%topic%/"
    relays: int = 1
    numbered: bool = False
    retain: bool = False
    metered: str = "none"
    watts_on: float = 12.0
    lying: bool = False
    silent: bool = False
    delay_s: float = 0.0
    commands: list[tuple[str, str]] = field(default_factory=list, init=False)
    edges: list[tuple[int, bool]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.on = dict.fromkeys(range(1, self.relays + 1), False)
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._worker: asyncio.Task[None] | None = None
        self._greeted = asyncio.Event()
        self._link = MqttLink(
            self.server,
            f"DVES_{self.topic}",
            will=Will(self._base("tele") + "LWT", b"Offline"),
            subscriptions=[self._base("cmnd") + "+"],
            on_message=self._inbox.put_nowait,
            on_connect=self._hello,
        )

    async def __aenter__(self) -> Self:
        await self._link.start()
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await self._greeted.wait()
        self._worker = asyncio.create_task(self._work(), name=f"tasmota {self.topic}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        await self._link.stop([Message(self._base("tele") + "LWT", b"Offline", retain=True)])

    async def press(self, relay: int, *, on: bool) -> None:
        """A finger on its button: it switches, and says so."""
        self._become(relay, on=on)
        await self._say_power(relay)

    async def say(self, topic: str, payload: str, *, retain: bool = False) -> None:
        await self._link.publish(topic, payload.encode(), retain=retain, qos=0)

    def _base(self, prefix: str) -> str:
        return self.full_topic.replace("%prefix%", prefix).replace("%topic%", self.topic)

    async def _hello(self) -> None:
        await self.say(self._base("tele") + "LWT", "Online", retain=True)
        self._greeted.set()

    async def _work(self) -> None:
        while True:
            message = await self._inbox.get()
            word = message.topic.removeprefix(self._base("cmnd")).upper()
            payload = message.payload.decode(errors="replace").strip()
            self.commands.append((word, payload))
            if self.silent:
                continue
            await asyncio.sleep(self.delay_s)
            try:
                await self._carry_out(word, payload)
            except LinkError:
                continue  # nobody hears it; so it is with the real one

    async def _carry_out(self, word: str, payload: str) -> None:
        if word == "STATUS":
            await self._say_status(payload)
        elif word.startswith("POWER"):
            number = word.removeprefix("POWER") or "1"
            if not number.isdigit() or int(number) not in self.on:
                return  # CmndPower passes over an index beyond the last relay
            relay, wish = int(number), payload.upper()
            if wish == "TOGGLE":
                self._become(relay, on=not self.on[relay])
            elif wish in SWITCH_WORDS and not self.lying:
                self._become(relay, on=SWITCH_WORDS[wish])
            await self._say_power(relay)
        else:
            await self.say(self._base("stat") + "RESULT", json.dumps({"Command": "Unknown"}))

    def _become(self, relay: int, *, on: bool) -> None:
        if self.on[relay] != on:
            self.on[relay] = on
            self.edges.append((relay, on))

    def _word(self, relay: int) -> str:
        return f"POWER{relay}" if self.relays > 1 or self.numbered else "POWER"

    async def _say_power(self, relay: int) -> None:
        word, state = self._word(relay), "ON" if self.on[relay] else "OFF"
        await self.say(self._base("stat") + "RESULT", json.dumps({word: state}))
        await self.say(self._base("stat") + word, state, retain=self.retain)

    async def _say_status(self, which: str) -> None:
        states = {self._word(relay): "ON" if on else "OFF" for relay, on in self.on.items()}
        answers: dict[str, dict[str, Any]] = {
            "2": {"StatusFWR": {"Version": "14.2.0(release-tasmota)", "Hardware": "ESP8285N08"}},
            "11": {"StatusSTS": {"Time": "2024-01-01T00:00:00", "UptimeSec": 11, **states, "Wifi": {"RSSI": 70}}},
        }
        answers["10"] = answers["8"] = {"StatusSNS": {"Time": "2024-01-01T00:00:00", **self._energy()}}
        if which in answers:
            await self.say(f"{self._base('stat')}STATUS{which}", json.dumps(answers[which]))

    def _energy(self) -> dict[str, Any]:
        each = [self.watts_on if on else 0 for on in self.on.values()]
        if self.metered == "none":
            return {}
        return {"ENERGY": {"Total": 1.5, "Today": 0.1, "Power": each if self.metered == "each" else sum(each)}}

    def control(self, line: str) -> dict[str, Any]:
        """Carry out one control line; returns the answer. A bad line is answered with `error`, never raised."""
        try:
            request = json.loads(line)
            what = request["do"]
            if what == "lie":
                self.lying = bool(request["value"])
            elif what == "silent":
                self.silent = bool(request["value"])
            elif what == "press":
                self._become(int(request["relay"]), on=bool(request["on"]))
            elif what != "state":
                return {"ok": False, "error": f"unknown word {what!r}"}
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            return {"ok": False, "error": f"{type(problem).__name__}: {problem}"}
        return {"ok": True, "on": {str(relay): on for relay, on in self.on.items()}}


async def _serve(args: argparse.Namespace) -> None:
    server = MqttSettings(url=args.url)
    async with TasmotaPlug(server, args.topic, relays=args.relays, metered=args.metered) as plug:
        await serve_until_told(plug.control, {"topic": plug.topic}, stop_at_eof=args.stop_at_eof)


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m virtual_lab.tasmota_plug", description="A virtual Tasmota device.")
    parser.add_argument("--url", default="mqtt://127.0.0.1:1883", help="its MQTT server")
    parser.add_argument("--topic", default="tasmota_000001")
    parser.add_argument("--relays", type=int, default=1)
    parser.add_argument("--metered", choices=("none", "sum", "each"), default="none")
    parser.add_argument("--stop-at-eof", action="store_true", help="end when standard input ends")
    asyncio.run(_serve(parser.parse_args(argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
