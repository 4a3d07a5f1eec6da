"""The farm that `bench/learn.py` is to find out: who hangs where, shuffled by a seed. This is the truth that findings
are judged by; learn never sees it."""

import random
from dataclasses import dataclass
from typing import Any

from virtual_lab import farm_plan
from virtual_lab.cabling import Cabling, ControllerPlan, Habit, Kind

NET_HABITS = frozenset({Habit.WHOLE, Habit.NO_CLIENT})


@dataclass(frozen=True)
class Size:
    """What to try.

    Attributes:
        silent, double, no_client, console_only: how many of the light boards are so; the others are whole.
        consoles: how many whole light boards have a console.
        empty: outlets without anything, one of them on and marked to be left alone.
        found_on: outlets of whole light boards that are on before.
    """

    qemu: int = 3
    lights: int = 13
    silent: int = 1
    double: int = 1
    no_client: int = 1
    console_only: int = 1
    consoles: int = 4
    empty: int = 2
    found_on: int = 2
    at_once: int = 6
    light_boot_s: float = 8.0
    listen_s: float = 20.0
    quiet_s: float = 14.0
    seed: int = 1


PLAIN = Size(
    silent=0, double=0, no_client=0, console_only=0, found_on=0, at_once=4, light_boot_s=24.0, listen_s=30.0,
    quiet_s=32.0,
)  # fmt: skip
"""For the figure of time: boards alone that say when they are up, as slow as real ones are."""
SMALL = Size(
    qemu=1, lights=6, console_only=0, consoles=2, empty=2, found_on=1, at_once=3, light_boot_s=3.0, listen_s=15.0,
    quiet_s=8.0, seed=4,
)  # fmt: skip
"""For a test: a QEMU board and six light ones, of which one is silent, one fed twice, and one has no client."""


@dataclass(frozen=True)
class Board:
    """What is true of one board.

    Attributes:
        feed: its outlets.
        macs, consoles, links: by what it can be heard.
        registers: its client says that it is up, or its console shows a prompt.
        boot_s: the least time that its boot can take.
        watts: what a meter may read of it while it is on.
    """

    name: str
    feed: tuple[str, ...]
    macs: frozenset[str]
    consoles: frozenset[str]
    links: frozenset[str]
    registers: bool
    boot_s: float
    watts: frozenset[int]

    @property
    def heard(self) -> bool:
        """Whether it can be known at all."""
        return bool(self.macs or self.consoles or self.links)


@dataclass(frozen=True)
class Truth:
    """All of it: for the farm (`cabling`), and for the judge (`boards`, by name; consoles are ports' names)."""

    cabling: Cabling
    boards: dict[str, Board]
    found_on: tuple[str, ...]
    kept: str
    empty: tuple[str, ...]

    @property
    def metered(self) -> set[str]:
        """Outlets that have a meter."""
        return {name for plan in self.cabling.controllers if plan.metered for name in plan.names()}

    @property
    def ports(self) -> list[str]:
        return list(self.cabling.consoles)


def _controllers(outlets: int) -> list[ControllerPlan]:
    """A metered PDU and one without meters by SNMP, and a strip by HTTP; two fifths, two fifths, and the rest."""
    large = -(-outlets * 2 // 5)
    return [
        ControllerPlan("rack", Kind.SNMP, large, 1161, model=farm_plan.PDU_MODEL),
        ControllerPlan("shelf", Kind.SNMP, large, 1162, model="apc-rpdu", metered=False),
        ControllerPlan("strip", Kind.NETIO, max(1, outlets - 2 * large), 8080),
    ]


def shuffled(size: Size) -> Truth:
    """The farm of `size.seed`."""
    chance = random.Random(size.seed)
    controllers = _controllers(size.qemu + size.lights + size.double + size.empty)
    free = [name for controller in controllers for name in controller.names()]
    chance.shuffle(free)
    habits = [
        *[Habit.SILENT] * size.silent,
        *[Habit.NO_CLIENT] * size.no_client,
        *[Habit.CONSOLE_ONLY] * size.console_only,
    ]
    habits += [Habit.WHOLE] * (size.lights - len(habits))
    chance.shuffle(habits)
    names = [f"light-{number}" for number in range(1, size.lights + 1)]
    habit_of = dict(zip(names, habits, strict=True))
    whole = [name for name in names if habit_of[name] is Habit.WHOLE]
    double = chance.sample(whole, size.double)
    feeds = {board.board: [free.pop()] for board in farm_plan.qemu_boards(size.qemu)}
    feeds |= {name: [free.pop(), free.pop()] if name in double else [free.pop()] for name in names}
    wired = (
        [*feeds][: size.qemu]
        + [name for name in names if habit_of[name] in {Habit.NO_CLIENT, Habit.CONSOLE_ONLY}]
        + chance.sample(whole, size.consoles)
    )
    ports = [f"port-{number}" for number in range(1, len(wired) + 1)]
    chance.shuffle(ports)
    kept = free.pop()
    for controller in controllers:
        controller.kept.extend(name.partition(":")[2] for name in [kept] if name in controller.names())
    lights: dict[str, dict[str, Any]] = {
        name: {
            "habit": habit_of[name].value,
            "boot_s": round(size.light_boot_s * chance.uniform(0.8, 1.2), 1),
            "first_word_s": round(chance.uniform(0.2, 3.0), 1),
            "says_mac": chance.random() < 0.5,
            "own_kernel": True,
        }
        for name in names
    }
    cabling = Cabling(controllers, feeds, dict(zip(ports, wired, strict=True)), lights)
    cabling.check()
    single = [name for name in whole if name not in double]
    return Truth(
        cabling=cabling,
        boards=_boards(cabling, size),
        found_on=tuple(feeds[name][0] for name in chance.sample(single, size.found_on)),
        kept=kept,
        empty=tuple(free),
    )


def _boards(cabling: Cabling, size: Size) -> dict[str, Board]:
    port_of = {board: port for port, board in cabling.consoles.items()}
    boards = {}
    for qemu in farm_plan.qemu_boards(size.qemu):
        name = qemu.board
        consoles = frozenset({port_of[name]})
        feed = tuple(cabling.feeds[name])
        boards[name] = Board(name, feed, frozenset({qemu.mac}), consoles, frozenset(), True, 1.0, frozenset({7}))
    for index, light in enumerate(farm_plan.light_boards(size.lights)):
        table = cabling.lights[light.board]
        habit = Habit(table["habit"])
        on_net = habit in NET_HABITS
        boards[light.board] = Board(
            light.board,
            tuple(cabling.feeds[light.board]),
            macs=frozenset({light.mac} if on_net else ()),
            consoles=frozenset({port_of[light.board]} if light.board in port_of else ()),
            # Each has a cable of its own to a port of the lab's host, whose carrier goes with its power.
            links=frozenset({f"light{index}"} if on_net else ()),
            registers=habit in {Habit.WHOLE, Habit.CONSOLE_ONLY},
            boot_s=table["boot_s"] + table["first_word_s"],
            watts=frozenset({light.boot_w, light.idle_w, light.busy_w}),
        )
    return boards
