"""Plugs that announce themselves at an MQTT server: Tasmota by its discovery message, which is retained, or by its last
will; Shelly (Gen 2 and later) by its own retained `online`. Nothing is published, so nobody is disturbed.

Sources: tasmota.github.io/docs/Home-Assistant (discovery message), /MQTT (LWT); shelly-api-docs.shelly.cloud,
gen2/ComponentsAndServices/Mqtt.
"""

import asyncio
import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from agent.discovery.findings import Candidate, Problem, TomlValue, stem_of
from agent.power.kinds.tasmota import FullTopic, TopicText
from daemon.mqtt_link import Message, MqttLink
from daemon.mqtt_settings import MqttSettings

FILTERS = ("tasmota/discovery/+/config", "tele/+/LWT", "+/tele/LWT", "+/online")
LISTEN_S = 2.0
"""After the subscriptions were acknowledged. What is retained comes at once; this is for slow lines."""
CONNECT_S = 5.0
TRIES = 2
"""The second connection speaks MQTT 3.1.1, where the server knew no newer."""
MAX_PLUGS = 2000
"""Of more, somebody publishes nonsense, and the rest is not read."""
DEFAULT_FULL_TOPIC = "%prefix%/%topic%/"
MAX_RELAYS = 32
_LWT = re.compile(r"tele/([^/]+)/LWT|([^/]+)/tele/LWT")
_CONFIG = re.compile(r"tasmota/discovery/([0-9A-F]{12})/config")
_SHELLY = re.compile(r"(shelly[a-z0-9]+-[0-9a-f]{6,12})/online")
_TOPIC: TypeAdapter[str] = TypeAdapter(TopicText)
_FULL_TOPIC: TypeAdapter[str] = TypeAdapter(FullTopic)


class Announcements:
    """What was heard, without I/O: `hear` takes messages, `candidates` tells the plugs."""

    def __init__(self) -> None:
        self._tasmota: dict[str, Candidate] = {}
        self._alive: dict[str, tuple[str, bool]] = {}
        self._shelly: dict[str, bool] = {}
        self.strange: list[Problem] = []

    def hear(self, topic: str, payload: bytes) -> None:
        """One message; what is no announcement is passed over, and a broken one is remembered in `strange`."""
        if len(self._tasmota) + len(self._alive) + len(self._shelly) >= MAX_PLUGS or not payload:
            return
        if (found := _CONFIG.fullmatch(topic)) is not None:
            self._hear_config(topic, found[1], payload)
        elif (found := _LWT.fullmatch(topic)) is not None and payload in {b"Online", b"Offline"}:
            name, full_topic = (found[1], DEFAULT_FULL_TOPIC) if found[1] else (found[2], "%topic%/%prefix%/")
            self._alive[name] = full_topic, payload == b"Online"
        elif (found := _SHELLY.fullmatch(topic)) is not None and payload in {b"true", b"false"}:
            self._shelly[found[1]] = payload == b"true"

    def candidates(self) -> list[Candidate]:
        """Tasmota's as they describe themselves, then those of which only the will is known, then Shelly's."""
        described = [self._with_life(topic, plug) for topic, plug in sorted(self._tasmota.items())]
        bare = [
            _tasmota(name, full_topic, f"Tasmota device {name}", (), _life(alive))
            for name, (full_topic, alive) in sorted(self._alive.items())
            if name not in self._tasmota
        ]
        return [*described, *(plug for plug in bare if plug is not None), *map(_shelly, sorted(self._shelly.items()))]

    def _with_life(self, topic: str, plug: Candidate) -> Candidate:
        _, alive = self._alive.get(topic, ("", True))
        return replace(plug, hints=(*plug.hints, *_life(alive)))

    def _hear_config(self, topic: str, mac: str, payload: bytes) -> None:
        try:
            said = json.loads(payload)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, Mapping) or not isinstance(said.get("t"), str):
            self.strange.append(Problem(topic, "is no discovery message of Tasmota", "clear it: it is retained"))
            return
        relays = said.get("rl")
        count = sum(1 for kind in relays[:MAX_RELAYS] if kind) if isinstance(relays, list) else 0
        if isinstance(relays, list) and count == 0:
            return  # a sensor: there is nothing to switch
        facts = [_text(said, key) for key in ("dn", "md", "sw", "ip")]
        about = f"Tasmota device {', '.join(filter(None, facts)) or mac}"
        outlets = tuple(map(str, range(1, count + 1)))
        plug = _tasmota(said["t"], _text(said, "ft") or DEFAULT_FULL_TOPIC, about, outlets, ())
        if plug is None:
            self.strange.append(Problem(topic, "names topics that nobody can use", "mend Topic and FullTopic on it"))
        else:
            self._tasmota[said["t"]] = plug


async def listen(settings: MqttSettings, announced: Announcements, *, listen_s: float = LISTEN_S) -> Problem | None:
    """Hear what is retained at the server, and what is said in `listen_s`; the problem where it cannot be reached."""
    reasons: list[str] = []
    settled = asyncio.Event()

    def heard(message: Message) -> None:
        announced.hear(message.topic, message.payload)

    async def connected() -> None:
        reasons.clear()
        settled.set()

    def disconnected(reason: str) -> None:
        reasons.append(reason)
        if len(reasons) >= TRIES:
            settled.set()

    link = MqttLink(
        settings,
        f"boardhand-discover-{secrets.token_hex(6)}",
        will=None,
        subscriptions=FILTERS,
        on_message=heard,
        on_connect=connected,
        on_disconnect=disconnected,
    )
    await link.start()
    try:
        async with asyncio.timeout(CONNECT_S):
            await settled.wait()
        if not reasons:
            await asyncio.sleep(listen_s)
            return None
    except TimeoutError:
        reasons.append(f"no answer within {CONNECT_S:g} s")
    finally:
        await link.stop()
    return Problem(f"MQTT server {settings.url}", reasons[-1], "name another with --mqtt, or leave it out: --no-mqtt")


def _tasmota(
    topic: str, full_topic: str, about: str, outlets: tuple[str, ...], hints: tuple[str, ...]
) -> Candidate | None:
    try:
        _TOPIC.validate_python(topic)
        _FULL_TOPIC.validate_python(full_topic)
    except ValidationError:
        return None
    keys: dict[str, TomlValue] = {"driver": "tasmota", "topic": topic}
    if full_topic != DEFAULT_FULL_TOPIC:
        keys["full_topic"] = full_topic
    return Candidate(
        stem=stem_of(topic, "plug"),
        keys=keys,
        about=about,
        outlets=outlets,
        hints=hints,
        identities=frozenset({f"tasmota:{topic}"}),
    )


def _shelly(plug: tuple[str, bool]) -> Candidate:
    name, alive = plug
    return Candidate(
        stem=name,
        keys={},
        about=f"Shelly {name}, on MQTT",
        hints=_life(alive),
        identities=frozenset({shelly_identity(name)}),
        unwritten="it is switched over HTTP, and its address is not said on MQTT: give its network with --network",
    )


def shelly_identity(name: str) -> str:
    """What a Shelly is known by, wherever it was seen."""
    return f"shelly:{name.lower()}"


def _life(alive: bool) -> tuple[str, ...]:  # noqa: FBT001
    return () if alive else ("It is offline now.",)


def _text(said: Mapping[str, Any], key: str) -> str:
    value = said.get(key)
    return value if isinstance(value, str) else ""
