"""Watts of outlets, and what they say about a board."""

import asyncio
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from enum import Enum

from agent.power.controller_queue import ControllerQueue
from agent.power.errors import PowerError
from agent.power.feed import FeedKind, OutletRef

READ_TIMEOUT_S = 8.0
"""A controller that hangs must not hold up the meters of the others; its queue goes on with it alone."""

_log = logging.getLogger(__name__)


class Unmeasured(Enum):
    """Why an outlet has no watts."""

    NO_METER = "the controller does not measure this outlet"
    NO_ANSWER = "it could not be asked"


Watts = float | Unmeasured


def feed_watts(outlets: Sequence[Watts], kind: FeedKind) -> float | None:
    """What a board draws by the meters of its feed, in watts; None where that cannot be said.

    In a chain the first meter sees all that hangs behind it. Supplies side by side count together, and only when all
    are measured. Where nobody said how the outlets hang together, one meter alone is believed.
    """
    if kind is FeedKind.CHAIN:
        first = next((watts for watts in outlets if watts is not Unmeasured.NO_METER), Unmeasured.NO_METER)
        return None if isinstance(first, Unmeasured) else first
    measured = [watts for watts in outlets if not isinstance(watts, Unmeasured)]
    if kind is FeedKind.PARALLEL:
        return math.fsum(measured) if len(measured) == len(outlets) else None
    return measured[0] if len(measured) == 1 and Unmeasured.NO_ANSWER not in outlets else None


async def read_watts(queues: Mapping[str, ControllerQueue], refs: Collection[OutletRef]) -> dict[OutletRef, Watts]:
    """Ask all controllers at once; every outlet of `refs` has its entry."""
    by_controller: dict[str, list[str]] = {}
    for ref in refs:
        by_controller.setdefault(ref.controller, []).append(ref.outlet)
    found: dict[OutletRef, Watts] = dict.fromkeys(refs, Unmeasured.NO_ANSWER)

    async def ask(name: str, outlets: list[str]) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                values = await queues[name].read_many(sorted(outlets))
        except PowerError as problem:
            _log.info("%s: no power measurement: %s", name, problem)
        except TimeoutError:
            _log.info("%s: no power measurement within %g s", name, READ_TIMEOUT_S)
        else:
            for outlet in outlets:
                watts = values.get(outlet)
                found[OutletRef(name, outlet)] = Unmeasured.NO_METER if watts is None else watts

    await asyncio.gather(*(ask(name, outlets) for name, outlets in by_controller.items()))
    return found
