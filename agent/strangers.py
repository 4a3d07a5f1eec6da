"""Who was heard and is no board of ours: what each said of itself, and a name that would fit it. No I/O and no clock.

Nothing that they say is proven. A MAC address names them; what was heard by IP address alone is joined to it where one
says both.
"""

import re
from collections import OrderedDict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from netboot.boot_history import Stranger as Heard
from wire.ids import ID_PATTERN, normal_mac
from wire.payloads import Registration

MOST_REGISTRATIONS = 64
"""Those heard last: whoever invents MAC addresses does not fill the memory."""
MOST_SHOWN = 64
NAME_CHARACTERS = 40
"""Of a proposed name; an id may have 63, a person types it."""

_ARCHITECTURES = {0: "x86", 6: "x86", 7: "x86_64", 9: "x86_64", 10: "arm", 11: "arm64", 27: "riscv64"}
"""Of PXE's vendor class; numbers of IANA's list "Processor Architecture Types"."""
_WORDS = (("armv8", "arm64"), ("aarch64", "arm64"), ("armv7", "arm"), ("riscv64", "riscv64"))
"""In the vendor class of U-Boot (CONFIG_BOOTP_VCI_STRING) and barebox."""
_REVISION = re.compile(r"\b(rev(ision)?\.? ?[0-9a-z.]+|v[0-9.]+[a-z]?)$")


@dataclass(frozen=True, slots=True)
class Stranger:
    """One of them. `mac` is empty for one that was seen by files alone."""

    mac: str
    first_at: datetime
    last_at: datetime
    times: int
    address: str = ""
    vendor_class: str = ""
    answered: bool = False
    names: tuple[str, ...] = ()
    said: Registration | None = None
    why: str = ""
    """Why its registration was refused."""

    @property
    def arch(self) -> str:
        """As it said, else as its boot loader's vendor class says; empty where neither does."""
        if self.said is not None and self.said.arch:
            return self.said.arch
        return architecture(self.vendor_class)

    @property
    def model(self) -> str:
        """As it said, else its device tree's first word of it; empty where it said nothing."""
        if self.said is None:
            return ""
        model = self.said.inventory.get("model")
        return model if isinstance(model, str) and model else next(iter(self.said.compatible), "")

    def document(self) -> dict[str, object]:
        """As JSON, without what is not known."""
        found: dict[str, object] = {
            "mac": self.mac,
            "first_at": self.first_at.isoformat(timespec="seconds"),
            "last_at": self.last_at.isoformat(timespec="seconds"),
            "times": self.times,
            "answered": self.answered,
            "address": self.address,
            "vendor_class": self.vendor_class,
            "arch": self.arch,
            "model": self.model,
            "names": list(self.names),
            "why": self.why,
        }
        if self.said is not None:
            kept = {"macs", "serial", "uuid", "compatible", "memory_mb", "kernel", "client", "inventory"}
            found["said"] = self.said.model_dump(mode="json", include=kept, exclude_none=True)
        return {key: value for key, value in found.items() if value not in ("", [], None)}


@dataclass(slots=True)
class _Registered:
    said: Registration
    why: str
    first_at: datetime
    last_at: datetime
    times: int = 1


class StrangerBook:
    """Registrations that were refused; netboot's own list of strangers is joined to them when somebody asks."""

    def __init__(self) -> None:
        self._registered: OrderedDict[str, _Registered] = OrderedDict()

    def refused(self, said: Registration, why: str, at: datetime) -> None:
        """Somebody who names none of our boards was refused."""
        before = self._registered.pop(said.mac, None)
        first, times = (at, 0) if before is None else (before.first_at, before.times)
        self._registered[said.mac] = _Registered(said, why, first, at, times + 1)
        while len(self._registered) > MOST_REGISTRATIONS:
            self._registered.popitem(last=False)

    def said(self, macs: Collection[str]) -> Registration | None:
        """What somebody with one of these addresses said last."""
        return next((one.said for mac, one in reversed(self._registered.items()) if mac in macs), None)

    def forget(self, mac: str) -> None:
        """It is a board now, or nobody wants to see it."""
        self._registered.pop(mac, None)

    def all(self, heard: Iterable[Heard], ours: Collection[str]) -> list[Stranger]:
        """Everybody, the one that was heard last first. `heard` by netboot; `ours` are the MACs of boards."""
        found: dict[str, Stranger] = {}
        known = {one.said.address: mac for mac, one in self._registered.items() if one.said.address}
        for other in heard:
            mac = other.mac or known.get(other.address, "")
            if mac not in ours:
                key = mac or other.address
                found[key] = _joined(found.get(key), _from_netboot(other, mac))
        for mac, one in self._registered.items():
            if not {mac, *one.said.macs} & set(ours):
                found[mac] = _joined(found.get(mac), _from_registration(mac, one))
        return sorted(found.values(), key=lambda one: one.last_at, reverse=True)[:MOST_SHOWN]


def _from_netboot(heard: Heard, mac: str) -> Stranger:
    return Stranger(
        mac, heard.first_at, heard.last_at, heard.times, heard.address, heard.vendor_class, heard.answered,
        tuple(heard.names),
    )  # fmt: skip


def _from_registration(mac: str, one: _Registered) -> Stranger:
    address = one.said.address or ""
    return Stranger(mac, one.first_at, one.last_at, one.times, address, said=one.said, why=one.why)


def _joined(one: Stranger | None, other: Stranger) -> Stranger:
    if one is None:
        return other
    return Stranger(
        one.mac or other.mac,
        min(one.first_at, other.first_at),
        max(one.last_at, other.last_at),
        one.times + other.times,
        other.address or one.address,
        other.vendor_class or one.vendor_class,
        one.answered or other.answered,
        tuple(dict.fromkeys((*one.names, *other.names))),
        other.said or one.said,
        other.why or one.why,
    )


def architecture(vendor_class: str) -> str:
    """What a boot loader's vendor class (DHCP option 60) says of the processor; empty where it says nothing."""
    if (found := re.match(r"(?:PXE|HTTP)Client:Arch:([0-9]{1,5})\b", vendor_class)) is not None:
        return _ARCHITECTURES.get(int(found[1]), "")
    return next((arch for word, arch in _WORDS if word in vendor_class.lower()), "")


def proposed_name(stranger: Stranger, taken: Collection[str]) -> str:
    """A name that nobody has: the model and a number, else the serial number, else the end of the MAC address."""
    model = _REVISION.sub("", stranger.model.lower().rpartition(",")[2]).strip()
    stem = _slug(model)
    if stem:
        number = 1
        while f"{stem}-{number}" in taken:
            number += 1
        return f"{stem}-{number}"
    serial = _slug((stranger.said.serial or "").lower()[-8:]) if stranger.said is not None else ""
    ends = [serial] if serial else []
    if stranger.mac:
        digits = normal_mac(stranger.mac).replace(":", "")
        ends += [digits[-6:], digits]
    for end in ends:
        if f"board-{end}" not in taken:
            return f"board-{end}"
    number = 1
    while f"board-{number}" in taken:
        number += 1
    return f"board-{number}"


def _slug(text: str) -> str:
    """`text` as part of an id; empty where nothing of it can be one."""
    slug = re.sub(r"[^a-z0-9]+", "-", text).strip("-")[:NAME_CHARACTERS].strip("-")
    return slug if re.fullmatch(ID_PATTERN, slug) else ""
