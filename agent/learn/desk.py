"""`learn` of one agent: runs an experiment on the real outlets, and puts them back whatever happens.

What an outlet was found as is on disk before it is switched; an agent that was killed puts it back at its next start.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Protocol

from agent.learn.experiment import Experiment
from agent.learn.findings import findings
from agent.learn.outlets import Choice
from agent.learn.outlook import left_s, outlook
from agent.learn.places import Rules
from agent.learn.signs import Action, Drawn, Ended, Event, Switch, Switched, Tell
from agent.requests import Answer, RequestError, text
from wire.phases import ErrorKind

log = logging.getLogger(__name__)

FOUND_FACT = "learn_found"
"""Under this name stands what outlets were found as."""
WATTS_EVERY_S = 2.0
LOOK_EVERY_S = 1.0
"""How often serial ports are looked for that have come."""
LINES_KEPT = 500
SWITCH_TRIES = 3
"""For putting an outlet back: a hub that was busy once is not left in the wrong state."""
STOP_GRACE_S = 60.0
"""For putting everything back when the agent stops."""
_LIMITS: dict[str, tuple[float, float]] = {
    "at_once": (1, 64),
    "spacing_s": (0, 60),
    "inrush_s": (0, 60),
    "rest_s": (0, 120),
    "listen_s": (2, 1800),
    "quiet_s": (1, 600),
    "settle_s": (0, 120),
    "drain_s": (0, 60),
    "baseline_s": (0, 300),
    "odds": (10, 1e9),
    "tries": (2, 50),
}
"""Of what a request may say: least and most."""


class Hands(Protocol):
    """What the desk needs of its agent."""

    async def choose(self, only: list[str], *, also_on: bool) -> Choice:
        """The outlets that may be tried now."""

    async def switch(self, outlet: str, *, on: bool, operation_id: str) -> str | None:
        """Switch and verify; why not, if it failed."""

    async def watts(self, outlet: str) -> float | None:
        """What the outlet's meter reads; None without one, or when it does not answer."""

    async def recall(self) -> dict[str, bool]:
        """What is on disk of outlets that are not as they were found."""

    async def remember(self, found: Mapping[str, bool]) -> None:
        """Put it there; it is on disk when this returns."""

    def open_ears(self, on_event: Callable[[Event], None], consoles: list[str]) -> Awaitable[None]:
        """Hear everything, `consoles` as well as the serial ports that are there, until `close_ears`."""

    async def look(self) -> None:
        """Look for serial ports that have come."""

    async def close_ears(self) -> None:
        """Hear nothing more."""

    def tables(self, boards: Sequence[Sequence[str]]) -> list[dict[str, object]]:
        """For boards by their MAC addresses: what else stands in their tables, so that they boot as they did."""


class LearnDesk:
    """At most one experiment at a time."""

    def __init__(self, hands: Hands, clock: Callable[[], float] = time.monotonic) -> None:
        self._hands = hands
        self._clock = clock
        self._experiment: Experiment | None = None
        self._choice = Choice()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._found: dict[str, bool] = {}
        self._lines: deque[tuple[int, dict[str, object]]] = deque(maxlen=LINES_KEPT)
        self._told = 0
        self._switches: set[asyncio.Task[None]] = set()
        self._count = 0
        self._unrestored: tuple[str, ...] = ()
        self._begun = 0.0
        self._problem: str | None = None
        self._took_s = 0.0

    async def start(self) -> None:
        """Put back what a killed agent left."""
        left = await self._hands.recall()
        for outlet, on in left.items():
            log.warning("outlet %s: learning was cut short; it goes back to %s", outlet, "on" if on else "off")
            problem = await self._put_back(outlet, on=on)
            if problem is not None:
                log.error("outlet %s: %s; put it back by hand", outlet, problem)
        if left:
            await self._hands.remember({})

    async def stop(self) -> None:
        """End the experiment under way, and wait until everything is put back."""
        task = self._task
        if task is None or task.done():
            return
        self._end("the agent is being stopped")
        await asyncio.wait({task}, timeout=STOP_GRACE_S)

    def hear(self, event: Event) -> None:
        """Something was heard; without an experiment it says nothing."""
        if self._experiment is not None and not self._experiment.ended:
            self._do(self._experiment.take(event, self._clock()))

    @property
    def running(self) -> bool:
        return self._task is not None and not self._task.done()

    @property
    def outlets(self) -> frozenset[str]:
        """Those of the experiment under way; its hands are on them until it has put them back."""
        return frozenset(self._choice.free) if self.running else frozenset()

    # --- requests --------------------------------------------------------------------------------------------

    async def answer(self, data: dict[str, object]) -> Answer:
        """`agent/<agent>/request/learn`: `do` is `start`, `stop`, `plan` or `state`.

        Raises:
            RequestError: something is wrong with it, or an experiment is under way already.
        """
        do = text(data, "do") if "do" in data else "state"
        if do == "start":
            return await self._start(data)
        if do == "plan":
            choice = await self._choose(data)
            return {"free": choice.free, "left": choice.left}
        if do == "stop":
            if not self.running:
                raise RequestError(ErrorKind.NOT_FOUND, "nothing is being learnt")
            self._end("somebody stopped it")
        elif do != "state":
            raise RequestError(ErrorKind.BAD_REQUEST, f"do: {do!r} is none of start, stop, plan, state", "do")
        seen = data.get("seen", 0)
        return self._state(seen if isinstance(seen, int) else 0)

    async def _choose(self, data: dict[str, object]) -> Choice:
        also_on = data.get("also_on", False)
        if not isinstance(also_on, bool):
            raise RequestError(ErrorKind.BAD_REQUEST, "also_on: true or false is needed", "also_on")
        return await self._hands.choose(_texts(data, "only"), also_on=also_on)

    async def _start(self, data: dict[str, object]) -> Answer:
        if self.running:
            raise RequestError(ErrorKind.BUSY, "learning is under way; stop it first, or wait")
        rules = _rules(data)
        consoles = _texts(data, "consoles")
        choice = await self._choose(data)
        if not choice.free:
            reasons = "; ".join(f"{outlet} {why}" for outlet, why in list(choice.left.items())[:8])
            raise RequestError(ErrorKind.NOT_FOUND, f"there is no free outlet to try: {reasons or 'no controller'}")
        if self.running:
            raise RequestError(ErrorKind.BUSY, "learning is under way; stop it first, or wait")
        self._choice, self._unrestored, self._problem = choice, (), None
        self._lines.clear()
        self._begun = self._clock()
        self._found = {}
        self._experiment = Experiment(choice.free.items(), rules, self._begun)
        self._task = asyncio.create_task(self._run(self._experiment, consoles), name="learn")
        return {"free": choice.free, "left": choice.left, "rules": asdict(rules)}

    def _end(self, why: str) -> None:
        if self._experiment is not None:
            self._do(self._experiment.stop(why, self._clock()))

    def _state(self, seen: int) -> Answer:
        experiment = self._experiment
        state = "running" if self.running else "ended" if experiment is not None else "idle"
        told: Answer = {"state": state, "left": self._choice.left, "told": self._told}
        told["lines"] = [line for number, line in self._lines if number > seen]
        if experiment is None:
            return told
        now = self._clock()
        found = findings(experiment, now)
        told["took_s"] = round(self._clock() - self._begun if self.running else self._took_s, 1)
        told["on"] = [name for name, place in experiment.places.items() if not place.is_off]
        tables = self._hands.tables([row.macs for row in found.rows])
        told["rows"] = [{**asdict(row), "table": table} for row, table in zip(found.rows, tables, strict=True)]
        told["unknown"] = [asdict(item) for item in found.unknown]
        told["strangers"] = [
            {"kind": item.subject.kind.value, "name": item.subject.name, "because": item.because}
            for item in found.strangers
        ]
        told["stopped"] = experiment.stopped or None
        told["unrestored"] = list(self._unrestored)
        told["outlets"] = outlook(experiment, now)
        settled = {outlet for row in found.rows for outlet in row.feed}
        told["left_s"] = left_s(experiment, settled, now) if self.running else None
        if not self.running:
            told["restored"] = {name: on for name, on in self._found.items() if name not in self._unrestored}
        if self._problem is not None:
            told["problem"] = self._problem
        return told

    # --- the experiment --------------------------------------------------------------------------------------

    async def _run(self, experiment: Experiment, consoles: list[str]) -> None:
        try:
            await self._hands.open_ears(self.hear, consoles)
            self._do(experiment.begin(self._clock()))
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(self._meter()), group.create_task(self._look())]
                while not experiment.ended:
                    await self._until(experiment.next_deadline)
                    self._do(experiment.tick(self._clock()))
                for helper in helpers:
                    helper.cancel()
            await self._hands.remember({outlet: self._found[outlet] for outlet in self._unrestored})
        except Exception as fault:  # the state must say that it ended, and how
            self._problem = f"a fault of the agent's; its log has it ({type(fault).__name__})"
            log.exception("learning failed")
        finally:
            self._took_s = self._clock() - self._begun
            await self._hands.close_ears()

    async def _until(self, deadline: float | None) -> None:
        self._wake.clear()
        timeout_s = None if deadline is None else max(0.0, deadline - self._clock())
        try:
            async with asyncio.timeout(timeout_s):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _do(self, actions: list[Action]) -> None:
        """In the event loop, without waiting."""
        for action in actions:
            if isinstance(action, Switch):
                task = asyncio.create_task(self._switch(action), name=f"learn-{action.outlet}")
                self._switches.add(task)
                task.add_done_callback(self._switches.discard)
            elif isinstance(action, Tell):
                self._tell(action)
            elif isinstance(action, Ended):
                self._unrestored = action.unrestored
        self._wake.set()

    def _tell(self, told: Tell) -> None:
        self._told += 1
        line: dict[str, object] = {
            "at_s": round(self._clock() - self._begun, 1),
            "stage": told.stage,
            "percent": round(told.percent, 1),
            "message": told.message,
        }
        self._lines.append((self._told, line))
        log.info("learn: %s: %s", told.stage, told.message)

    async def _switch(self, order: Switch) -> None:
        experiment = self._experiment
        if experiment is None:
            return
        outlet = order.outlet
        try:
            if outlet not in self._found:
                self._found[outlet] = self._choice.free[outlet]
                await self._hands.remember(self._found)
            if order.on == self._choice.free[outlet]:
                problem = await self._put_back(outlet, on=order.on)
            else:
                problem = await self._hands.switch(outlet, on=order.on, operation_id=self._operation())
        except Exception as fault:  # the experiment waits for an answer, whatever happens
            log.exception("learn: outlet %s", outlet)
            problem = f"a fault of the agent's ({type(fault).__name__})"
        self._do(experiment.take(Switched(outlet, order.on, problem), self._clock()))

    async def _put_back(self, outlet: str, *, on: bool) -> str | None:
        problem: str | None = None
        for _ in range(SWITCH_TRIES):
            problem = await self._hands.switch(outlet, on=on, operation_id=self._operation())
            if problem is None:
                return None
        return problem

    def _operation(self) -> str:
        self._count += 1
        return f"learn-{int(time.time())}-{self._count}"

    async def _meter(self) -> None:
        while True:
            await asyncio.sleep(WATTS_EVERY_S)
            experiment = self._experiment
            if experiment is None:
                continue
            for outlet in [name for name, place in experiment.places.items() if not place.is_off and place.surveying]:
                watts = await self._hands.watts(outlet)
                if watts is not None:
                    self.hear(Drawn(outlet, watts))

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self._hands.look()


def _texts(data: dict[str, object], key: str) -> list[str]:
    value = data.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RequestError(ErrorKind.BAD_REQUEST, f"{key}: a list of texts is needed", key)
    return [str(item) for item in value]


def _rules(data: dict[str, object]) -> Rules:
    given: dict[str, float] = {}
    for item in fields(Rules):
        value = data.get(item.name)
        if value is None:
            continue
        least, most = _LIMITS[item.name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise RequestError(ErrorKind.BAD_REQUEST, f"{item.name}: a number from {least:g} to {most:g}", item.name)
        given[item.name] = int(value) if item.name in {"at_once", "tries"} else float(value)
    return replace(Rules(), **given)  # type: ignore[arg-type]
