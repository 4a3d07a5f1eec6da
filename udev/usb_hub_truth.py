"""What is known of a port's power before anybody relies on it, as one word, and how that is known.

Four sources, the stronger first: how the port is built in (a chained chip, a Raspberry Pi); a trial by
`boardhand hubs prove`; a list of hubs that people have measured; the hub's own class descriptor, which many hubs fill
in without having the parts for it. The descriptor is not in sysfs: somebody has to ask the hub for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from udev.usb_hub_models import GANG_PORTS, MEASURED, MEASURED_SOURCE
from udev.usb_hubs import HubPort, UsbHub

HUB_DESCRIPTOR, SUPER_SPEED_HUB_DESCRIPTOR = 0x29, 0x2A  # bDescriptorType, USB 3.2 specification 10.15.2.1
_MIN_DESCRIPTOR_BYTES = 7  # up to bHubContrCurrent; a port bitmap follows


class Truth(StrEnum):
    """What is known of one port. Closed: whoever shows or obeys it knows all words."""

    PER_PORT = "per-port"
    CLAIMED = "claimed"
    UNKNOWN = "unknown"
    GANGED = "ganged"
    NONE = "none"
    LIES = "lies"
    CHAINED = "chained"
    ROOT_HUB = "root-hub"
    PI4 = "pi4-together"
    PI5 = "pi5-both-hubs"

    @property
    def meaning(self) -> str:
        """The word explained, as a clause."""
        return _MEANING[self]

    @property
    def whole_hub(self) -> bool:
        """Power goes only from all sockets at once."""
        return self in {Truth.GANGED, Truth.PI4, Truth.PI5}

    @property
    def hopeless(self) -> bool:
        """Switching is known to do nothing."""
        return self in {Truth.NONE, Truth.LIES}


_MEANING: Mapping[Truth, str] = MappingProxyType(
    {
        Truth.PER_PORT: "switched by itself, as was measured",
        Truth.CLAIMED: "said by the hub to be switched by itself; nobody has proved it",
        Truth.UNKNOWN: "nobody could ask the hub whether it switches power",
        Truth.GANGED: "switched only together with the hub's other ports",
        Truth.NONE: "never switched: the hub says that it cannot",
        Truth.LIES: "never switched, although commands are accepted",
        Truth.CHAINED: "never switch it: it feeds the second hub chip of the same housing",
        Truth.ROOT_HUB: "a port of the host controller itself; most do not switch, and some lose what is behind them",
        Truth.PI4: "one switch for all four sockets of a Raspberry Pi 4",
        Truth.PI5: "one switch for all four sockets of a Raspberry Pi 5; it opens when all its root hubs are off",
    }
)


class Source(StrEnum):
    """Who says so."""

    TOPOLOGY = "topology"
    """How it is built and plugged, as the kernel shows it."""
    PROOF = "proof"
    """`boardhand hubs prove`, on this very hub."""
    MODEL = "model"
    """A list of measured hubs."""
    DESCRIPTOR = "descriptor"
    """The hub's class descriptor."""
    NOBODY = "nobody"


@dataclass(frozen=True, slots=True)
class PortTruth:
    """One port's word, why it is believed (a clause), and who says so."""

    word: Truth
    why: str
    source: Source


class Switching(StrEnum):
    """Logical Power Switching Mode, bits 1..0 of wHubCharacteristics (USB 2.0 specification, table 11-13)."""

    GANGED = "ganged"
    PER_PORT = "per-port"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class HubDescriptor:
    """A hub's class descriptor."""

    ports: int
    switching: Switching
    compound: bool
    """Some device is built in."""
    power_good_s: float
    """Longest time from switching on to good power."""


def decode_hub_descriptor(data: bytes) -> HubDescriptor:
    """USB 2.0 specification 11.23.2.1 and USB 3.2 specification 10.15.2.1; the fields read here stand alike in both.

    Raises:
        ValueError: it is too short or is another descriptor.
    """
    if len(data) < _MIN_DESCRIPTOR_BYTES:
        raise ValueError(f"a hub descriptor of {len(data)} bytes is too short")
    if data[1] not in {HUB_DESCRIPTOR, SUPER_SPEED_HUB_DESCRIPTOR}:
        raise ValueError(f"descriptor type 0x{data[1]:02x} is no hub's")
    characteristics = data[3] | data[4] << 8
    modes = {0: Switching.GANGED, 1: Switching.PER_PORT}
    return HubDescriptor(
        ports=data[2],
        switching=modes.get(characteristics & 3, Switching.NONE),
        compound=bool(characteristics & 4),
        power_good_s=data[5] * 0.002,  # bPwrOn2PwrGood, in units of 2 ms
    )


def weakest(words: Sequence[Switching]) -> Switching | None:
    """What both halves of a hub can do: power stays as long as one half keeps it on. None if neither was asked."""
    order = (Switching.NONE, Switching.GANGED, Switching.PER_PORT)
    return next((word for word in order if word in words), None)


def proof_key(hub: UsbHub, number: int) -> str:
    """Under what a proof is kept: the place and what is plugged in there, so that another hub inherits nothing."""
    return f"{hub.id}:{number} {hub.vendor}:{hub.product} {hub.own_serial or ''}".rstrip()


def gang_ports(hub: UsbHub, machine: str) -> tuple[HubPort, ...]:
    """The ports that switch the whole hub: all but those that feed a chained chip, or the one that is wired to the
    switch. On a Raspberry Pi 3 others would take Ethernet away."""
    leaders = _gang(hub, machine)
    if leaders is not None:
        return tuple(port for port in hub.ports if port.number in leaders)
    return tuple(port for port in hub.ports if not is_chained(hub, port))


def is_chained(hub: UsbHub, port: HubPort) -> bool:
    """Whether `port` feeds the second chip of one housing, as in hubs of 7 (4+4-1) or 10 ports.

    A hub that the kernel calls fixed is one; so is one of the same make behind a hub, unless both have serial numbers
    or container ids and those differ. Two loose hubs of one make without either are taken for one housing: to refuse
    such a port costs a setting, to switch it costs the boards on half a housing.
    """
    child = port.child
    if child is None or not child.is_hub:
        return False
    if child.fixed:
        return True
    if hub.is_root or (child.vendor, child.product) != (hub.vendor, hub.product):
        return False
    if child.serial and hub.serial and child.serial != hub.serial:
        return False
    return not (child.container and hub.container and child.container != hub.container)


def port_truth(
    hub: UsbHub,
    port: HubPort,
    *,
    switching: Switching | None,
    machine: str = "",
    proofs: Mapping[str, Truth] = MappingProxyType({}),
) -> PortTruth:
    """What is known of `port`.

    Args:
        hub: the hub that has it.
        port: one of the hub's ports.
        switching: what the class descriptors say, `weakest` of both halves; None when they could not be read.
        machine: what the device tree calls this machine.
        proofs: what `boardhand hubs prove` found on this host, by `proof_key`.
    """
    built = _by_topology(hub, port, machine)
    if built is not None:
        return built
    said = _by_descriptor(hub, switching)
    proved = proofs.get(proof_key(hub, port.number))
    # A hub that says it cannot switch, and does not, is no liar.
    if proved is not None and not (proved.hopeless and said.word.hopeless):
        return PortTruth(proved, "tried by 'boardhand hubs prove'", Source.PROOF)
    if hub.is_root:
        return PortTruth(Truth.ROOT_HUB, f"it is inside the host controller, and {said.why}", Source.TOPOLOGY)
    product = MEASURED.get((hub.vendor, hub.product))
    if said.word is Truth.CLAIMED and product is not None:
        return PortTruth(Truth.PER_PORT, f"it says so, and {product} was measured ({MEASURED_SOURCE})", Source.MODEL)
    return said


def _by_topology(hub: UsbHub, port: HubPort, machine: str) -> PortTruth | None:
    if _is_pi4_hub(hub, machine):
        return PortTruth(Truth.PI4, "the board has one power switch (uhubctl README, Raspberry Pi 4B)", Source.TOPOLOGY)
    if is_pi5_hub(hub, machine):
        why = "the board has one power switch, whatever its hubs say (uhubctl README, Raspberry Pi 5)"
        return PortTruth(Truth.PI5, why, Source.TOPOLOGY)
    if is_chained(hub, port):
        child = port.child.name if port.child else ""
        return PortTruth(Truth.CHAINED, f"hub {child} behind it is of the same housing", Source.TOPOLOGY)
    leaders = _gang(hub, machine)
    if leaders is not None:
        why = f"all sockets follow port {', '.join(map(str, leaders))} (uhubctl README, {machine})"
        return PortTruth(Truth.GANGED, why, Source.MODEL)
    if hub.is_root and (hub.driver == "dummy_hcd" or "dummy_hcd" in hub.id.controller):
        why = "dummy_hcd says that a port is off, and its device has power all the same"
        return PortTruth(Truth.LIES, why, Source.TOPOLOGY)
    return None


def _by_descriptor(hub: UsbHub, switching: Switching | None) -> PortTruth:
    if switching is None:
        return PortTruth(Truth.UNKNOWN, "its class descriptor could not be read", Source.NOBODY)
    if switching is Switching.NONE:
        return PortTruth(Truth.NONE, "its class descriptor says: no power switching", Source.DESCRIPTOR)
    if switching is Switching.PER_PORT:
        return PortTruth(Truth.CLAIMED, "its class descriptor says: each port by itself", Source.DESCRIPTOR)
    if len(hub.ports) == 1:
        why = "its class descriptor says: all ports together, and it has one"
        return PortTruth(Truth.CLAIMED, why, Source.DESCRIPTOR)
    return PortTruth(Truth.GANGED, "its class descriptor says: all ports together", Source.DESCRIPTOR)


def _gang(hub: UsbHub, machine: str) -> tuple[int, ...] | None:
    for model, vendor, product, leaders in GANG_PORTS:
        if machine.startswith(model) and (hub.vendor, hub.product, hub.id.ports) == (vendor, product, "1"):
            return leaders
    return None


def _is_pi4_hub(hub: UsbHub, machine: str) -> bool:
    """The USB 2 hub and the USB 3 root hub that have the sockets; not the USB 2 root hub above, nor the OTG's."""
    if not machine.startswith("Raspberry Pi 4 Model B"):
        return False
    if hub.is_root:
        return hub.id.usb3 and len(hub.ports) == 4
    return (hub.vendor, hub.product, hub.id.ports) == ("2109", "3431", "1")


def is_pi5_hub(hub: UsbHub, machine: str) -> bool:
    """One of the four root hubs of the two controllers in a Raspberry Pi 5 that share one power switch."""
    return machine.startswith("Raspberry Pi 5") and hub.is_root and len(hub.ports) == (1 if hub.id.usb3 else 2)
