"""How a farm's boards are cabled, where it is not one outlet and one socket for each: a file of a person's own.

It names the controllers, the outlets that each board hangs on, the serial port that its console is wired to, and what
light boards are like. The agent's settings then have these controllers and no board: whoever looks has to find out.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from virtual_lab.namespace import LabError


class Kind(StrEnum):
    """What a controller speaks."""

    SNMP = "snmp"
    NETIO = "netio"
    """JSON over HTTP."""


class Habit(StrEnum):
    """How a light board lives."""

    WHOLE = "whole"
    """Netboot, then the client registers."""
    NO_CLIENT = "no-client"
    """Netboot and console; what it runs says nothing to anybody."""
    CONSOLE_ONLY = "console-only"
    """No network; its console ends at a login prompt."""
    SILENT = "silent"
    """Draws power, and that is all."""


@dataclass(frozen=True, slots=True)
class ControllerPlan:
    """One virtual PDU or strip in the farm's network. Its outlets are called 1, 2 and so on.

    Attributes:
        model: of an SNMP PDU, as `virtual_lab.pdu_models` has it and the agent's family of that name reads it.
        metered: whether it reads watts for each outlet.
        kept: outlets that the agent is told to leave alone.
    """

    name: str
    kind: Kind
    outlets: int
    port: int
    model: str = ""
    metered: bool = True
    kept: list[str] = field(default_factory=list)

    def names(self) -> Iterator[str]:
        """Its outlets, as the agent calls them."""
        return (f"{self.name}:{number}" for number in range(1, self.outlets + 1))


@dataclass(frozen=True, slots=True)
class Cabling:
    """The whole of it.

    Attributes:
        feeds: board -> outlets, each of which alone keeps it running.
        consoles: serial port -> board.
        lights: light board -> what of its plan is not as usual.
    """

    controllers: list[ControllerPlan]
    feeds: dict[str, list[str]]
    consoles: dict[str, str] = field(default_factory=dict)
    lights: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> "Cabling":
        """What `to_json` wrote, read.

        Raises:
            LabError: it is none; says why.
        """
        try:
            controllers = [ControllerPlan(**{**plan, "kind": Kind(plan["kind"])}) for plan in table["controllers"]]
            made = cls(controllers, **{key: value for key, value in table.items() if key != "controllers"})
            made.check()
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise LabError(f"the cabling: {type(error).__name__}: {error}") from None
        return made

    @classmethod
    def read(cls, path: Path | None) -> "Cabling | None":
        """The file at `path`, if one is given.

        Raises:
            LabError: it cannot be read, or is no cabling.
        """
        if path is None:
            return None
        try:
            return cls.from_table(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError) as error:
            raise LabError(f"--cabling {path}: {error}") from None

    def check(self) -> None:
        """Raises `ValueError` where a board hangs on an outlet that is not there, or two hang on one."""
        there = {name for controller in self.controllers for name in controller.names()}
        plugged = [outlet for outlets in self.feeds.values() for outlet in outlets]
        for outlet in plugged:
            if outlet not in there:
                raise ValueError(f"there is no outlet {outlet}")
            if plugged.count(outlet) > 1:
                raise ValueError(f"outlet {outlet} has two plugs in it")
        if len(set(self.consoles.values())) < len(self.consoles):
            raise ValueError("a board has one console")
        for board, table in self.lights.items():
            Habit(table.get("habit", Habit.WHOLE))
            if board not in self.feeds:
                raise ValueError(f"{board} hangs on no outlet")
