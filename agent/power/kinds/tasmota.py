"""Tasmota devices over MQTT: settings and kind."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from agent.power.driver_kind import DeviceSupport, DriverKind
from agent.power.settings import ControllerBase, TimeoutS
from daemon.mqtt_settings import MqttSettings


def _plain(topic: str) -> str:
    if not topic.isprintable() or any(mark in topic for mark in "+# "):
        raise ValueError(f"{topic!r}: no wildcards, white space or control characters")
    return topic


def _full_topic(full_topic: str) -> str:
    for part in ("%prefix%", "%topic%"):
        if full_topic.count(part) != 1:
            raise ValueError(f"{full_topic!r} needs {part} once; it is what the device shows for FullTopic")
    return _plain(full_topic)


TopicText = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(_plain)]
FullTopic = Annotated[str, Field(max_length=256), AfterValidator(_full_topic)]


class TasmotaSettings(ControllerBase):
    """A device with Tasmota's firmware. An outlet is the number of a relay, from 1."""

    driver: Literal["tasmota"]
    topic: TopicText
    """The device's own `Topic`; not its group's."""
    full_topic: FullTopic = "%prefix%/%topic%/"
    """The device's `FullTopic`."""
    mqtt: MqttSettings | None = None
    """The MQTT server that the device uses, where it is another one than the agent's."""
    timeout_s: TimeoutS = 3.0
    """For one answer: a device in Wi-Fi power saving takes up to one second."""


KIND = DriverKind(
    name="tasmota",
    settings=TasmotaSettings,
    make="agent.power.drivers.tasmota:make",
    support=lambda: (
        DeviceSupport(
            "Tasmota devices over MQTT",
            read_back="`POWERn` asked and answered",
            verified_by="virtual device on a Mosquitto server, which mosquitto_pub switches too",
            metering="watts, where `Status 10` has ENERGY",
            discovery="`describe`",
            source="tasmota.github.io/docs/MQTT and /Commands; support_command.ino of arendst/Tasmota",
        ),
    ),
)
