"""Which outlets an experiment may touch: those that nobody has said anything about."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from agent.power.feed import OutletRef
from agent.settings import AgentSettings
from wire.payloads import ControllerInfo
from wire.phases import Power


@dataclass(frozen=True, slots=True)
class Choice:
    """`free` are to be tried, each with whether it is on now; `left` are not, with the reason."""

    free: dict[str, bool] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)


def choose(
    settings: AgentSettings, controllers: Iterable[ControllerInfo], *, only: Iterable[str] = (), also_on: bool
) -> Choice:
    """The outlets to try, one of each controller in turn, so that no fuse takes all at once.

    Left alone are those of a feed or of a mode's actuators, of `shared_outlets` and `keep_outlets`, those whose state
    is not known, and, unless `also_on`, those that are on. `only`, if given, are the only ones asked for.
    """
    wanted = set(only)
    named = set(_named(settings))
    queues: list[list[tuple[str, bool]]] = []
    choice = Choice()
    for info in controllers:
        table = settings.controllers[info.name].model_dump() if info.name in settings.controllers else {}
        kept = {*map(str, table.get("keep_outlets", ())), *map(str, table.get("shared_outlets", ()))}
        free: list[tuple[str, bool]] = []
        for item in info.outlets:
            name = str(OutletRef(info.name, item.outlet))
            if wanted and name not in wanted:
                continue
            if item.board is not None or name in named:
                choice.left[name] = f"feeds board {item.board}" if item.board else "stands in the settings"
            elif item.outlet in kept:
                choice.left[name] = "is to be left alone (keep_outlets or shared_outlets)"
            elif item.power is Power.UNKNOWN:
                choice.left[name] = info.problem or "it is not known whether it is on"
            elif item.power is Power.ON and not also_on:
                choice.left[name] = "is on, and who runs from it is not known (--also-on switches it)"
            else:
                free.append((name, item.power is Power.ON))
        queues.append(free)
    while any(queues):
        for queue in queues:
            if queue:
                name, on = queue.pop(0)
                choice.free[name] = on
    for name in wanted - choice.free.keys() - choice.left.keys():
        choice.left[name] = "there is no such outlet"
    return choice


def _named(settings: AgentSettings) -> Iterator[str]:
    """Every text of the boards' tables that names an outlet: feeds, and what modes and flash methods switch."""
    waiting: list[object] = [settings.model_dump().get("boards", {})]
    while waiting:
        item = waiting.pop()
        if isinstance(item, Mapping):
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
        elif isinstance(item, str) and item.partition(":")[0] in settings.controllers:
            yield item
