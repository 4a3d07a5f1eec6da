"""Spacing of switch-ons, so that the inrush of many supplies does not trip a fuse."""

from collections.abc import Mapping

from agent.power.settings import ControllerBase


class InrushSpacing:
    """Slots for switching on: per controller, and per circuit that several controllers hang on."""

    def __init__(self, controllers: Mapping[str, ControllerBase], circuits: Mapping[str, float]) -> None:
        """`circuits` is circuit -> least seconds between two switch-ons."""
        self._rules: dict[str, list[tuple[str, float]]] = {}
        self._next: dict[str, float] = {}
        self.follow(controllers, circuits)

    def follow(self, controllers: Mapping[str, ControllerBase], circuits: Mapping[str, float]) -> None:
        """Other rules from now on; slots that are taken stay taken."""
        self._rules = {}
        for name, settings in controllers.items():
            rules = [(f"controller {name}", settings.inrush_spacing_s)]
            if settings.circuit is not None:
                rules.append((f"circuit {settings.circuit}", circuits[settings.circuit]))
            self._rules[name] = [(key, spacing_s) for key, spacing_s in rules if spacing_s > 0]

    def take(self, controller: str, now: float) -> float:
        """Seconds from `now` until an outlet of `controller` may be switched on; that moment is taken."""
        rules = self._rules[controller]
        slot = max([now, *(self._next.get(key, now) for key, _ in rules)])
        for key, spacing_s in rules:
            self._next[key] = slot + spacing_s
        return slot - now
