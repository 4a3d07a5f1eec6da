"""What can be wrong with a virtual device, and the control lines that make it so at run time."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True, slots=True)
class DeviceReboot:
    """How a device reboots.

    Attributes:
        silent_s: it answers nothing for this long.
        answered: whether the SET that was under way is still answered.
        carried_out: whether that SET still took effect, before `outlets` did.
        outlets: what they are afterwards; "last" leaves the relays as they are.
    """

    silent_s: float = 1.0
    answered: bool = True
    carried_out: bool = True
    outlets: Literal["last", "on", "off"] = "last"

    def __post_init__(self) -> None:
        if self.outlets not in {"last", "on", "off"}:
            raise ValueError(f"outlets after a reboot are last, on or off, not {self.outlets!r}")


@dataclass(kw_only=True)
class LineFaults:
    """What happens to the packets of one device.

    Attributes:
        deaf: what comes in is dropped unread.
        late_s: answers leave this much later; what was asked is done at once.
        drop_every: every so-manyth request is dropped unread; 0 drops none.
        drop_answer_every: every so-manyth answer is lost, after what was asked was done; 0 loses none.
        requests: how many came in, dropped ones included.
    """

    deaf: bool = False
    late_s: float = 0.0
    drop_every: int = 0
    drop_answer_every: int = 0
    requests: int = field(default=0, init=False)
    answers: int = field(default=0, init=False)
    silent_in: bool = field(default=False, init=False)
    silent_out: bool = field(default=False, init=False)

    def lets_in(self) -> bool:
        """Whether the packet that just came is read."""
        self.requests += 1
        dropped = self.drop_every > 0 and self.requests % self.drop_every == 0
        return not (self.deaf or self.silent_in or dropped)

    def lets_out(self) -> bool:
        """Whether the answer that is ready goes out."""
        self.answers += 1
        lost = self.drop_answer_every > 0 and self.answers % self.drop_answer_every == 0
        return not (self.silent_out or lost)


class Controlled(Protocol):
    """A PDU that control lines may change."""

    on: dict[str, bool]
    deaf: bool
    delay_s: float
    late_s: float
    drop_every: int
    drop_answer_every: int
    wrong_index: bool
    wrong_type: bool
    lying: set[str]
    refusing: set[str]
    missing: set[str]
    idle: set[str]
    reboot_on_set: DeviceReboot | None
    boots: int
    sets: list[tuple[str, int]]
    edges: list[tuple[str, bool]]

    def press(self, outlet: str, on: bool) -> None: ...  # noqa: FBT001
    def restart(self, engine_id: str | None = None) -> None: ...
    def reboot_device(self, fault: DeviceReboot) -> None: ...


def _known(pdu: Controlled, request: dict[str, Any]) -> set[str]:
    wanted = {str(outlet) for outlet in request["outlets"]}
    if not wanted <= pdu.on.keys():
        raise ValueError(f"no such outlets: {sorted(wanted - pdu.on.keys())}")
    return wanted


def _reboot(request: dict[str, Any]) -> DeviceReboot:
    return DeviceReboot(**{key: value for key, value in request.items() if key != "do"})


_VALUES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "deaf": ("deaf", bool),
    "delay": ("delay_s", float),
    "late": ("late_s", float),
    "drop_every": ("drop_every", int),
    "drop_answer_every": ("drop_answer_every", int),
    "wrong_index": ("wrong_index", bool),
    "wrong_type": ("wrong_type", bool),
}
_SETS = {"lie": "lying", "refuse": "refusing", "missing": "missing", "idle": "idle"}
_CALLS: dict[str, Callable[[Controlled, dict[str, Any]], None]] = {
    "press": lambda pdu, request: pdu.press(str(request["outlet"]), bool(request["on"])),
    "restart": lambda pdu, request: pdu.restart(request.get("engine_id")),
    "reboot": lambda pdu, request: pdu.reboot_device(_reboot(request)),
    "state": lambda _pdu, _request: None,
}


def carry_out_line(pdu: Controlled, line: str) -> dict[str, Any]:
    """Carry out one control line; returns the answer. A bad line is answered with `error`, never raised.

    `{"do": WORD, "value": …}` with deaf, delay (s), late (s), drop_every, drop_answer_every, wrong_index, wrong_type;
    `{"do": WORD, "outlets": […]}` with lie, refuse, missing, idle; `{"do": "press", "outlet": …, "on": …}`;
    `{"do": "restart", "engine_id": HEX}`; `{"do": "reboot", "silent_s": …, "answered": …, "outlets": …}` now, and
    `reboot_on_set` the same at the next SET; `{"do": "state"}`.
    """
    try:
        request = json.loads(line)
        what = request["do"]
        if what in _VALUES:
            attribute, convert = _VALUES[what]
            setattr(pdu, attribute, convert(request["value"]))
        elif what in _SETS:
            setattr(pdu, _SETS[what], _known(pdu, request))
        elif what == "reboot_on_set":
            pdu.reboot_on_set = _reboot(request)
        elif what in _CALLS:
            _CALLS[what](pdu, request)
        else:
            return {"ok": False, "error": f"unknown word {what!r}"}
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        return {"ok": False, "error": f"{type(problem).__name__}: {problem}"}
    return {
        "ok": True,
        "on": dict(pdu.on),
        "deaf": pdu.deaf,
        "sets": len(pdu.sets),
        "edges": len(pdu.edges),
        "boots": pdu.boots,
    }
