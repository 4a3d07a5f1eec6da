"""Digital Loggers power controllers by their REST API, `/restapi/relay/outlets/`.

Sources: digital-loggers.com/rest.html and its restapi.pdf; labgrid's `digitalloggers_restapi`; answers to matrix URIs
as MeshCentral reads them. Outlets count from 0 in the API, from 1 on the device and here. `PUT …/N/state/` with the
form `value=true` and the header `X-CSRF: x` switches, answered 204. `…/N/physical_state/` is what the relay does;
`state` is only what was last asked for, and would confirm itself. `all;/physical_state/` is answered 207 with a flat
list, `all;/=name,physical_state/` with name and state by turns. Accounts: HTTP digest with MD5.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.drivers.http_session import CALL_MARGIN_S, HttpDevice, Reply, account
from agent.power.errors import ConfigurationError, PowerError
from agent.power.kinds.dli import DliSettings
from wire.phases import Power

OUTLETS = "/restapi/relay/outlets"
CONFLICT = 409
"""A locked outlet, or one in the middle of a cycle."""
TIMING = Timing(
    verify_deadline_s=10.0,  # it spaces outlets that come on, a second each as delivered
    poll_interval_s=0.1,
    settle_s=2.0,
    min_off_s=2.0,
    attempts=3,
)


class DliDriver:
    """One power controller."""

    def __init__(self, name: str, settings: DliSettings, context: DriverContext) -> None:
        self._name = name
        self._settings = settings
        self._device = HttpDevice(name, settings, context)
        self._timing = replace(TIMING, call_timeout_s=settings.timeout_s + CALL_MARGIN_S)

    @property
    def timing(self) -> Timing:
        return self._timing

    @property
    def reads_back(self) -> bool:
        return True

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        index = self._device.outlet_number(outlet, first=1) - 1
        path = f"{OUTLETS}/{index}/state/"
        reply = await self._ask("PUT", path, outlet, body=b"value=true" if on else b"value=false")
        if not reply.good:
            do = "unlock the outlet on its web page" if reply.status == CONFLICT else ""
            self._device.refuse(reply, path, outlet, do=do)

    async def get(self, outlet: str) -> Power:
        index = self._device.outlet_number(outlet, first=1) - 1
        return self._power(await self._json(f"{OUTLETS}/{index}/physical_state/", outlet), outlet)

    async def read(self, outlet: str) -> float | None:
        """It meters buses, not outlets."""
        del outlet
        return None

    async def get_many(self, outlets: Sequence[str]) -> Mapping[str, Power | PowerError]:
        states = await self._list(f"{OUTLETS}/all;/physical_state/")
        found: dict[str, Power | PowerError] = {}
        for outlet in outlets:
            try:
                number = self._device.outlet_number(outlet, first=1)
                if number > len(states):
                    raise ConfigurationError(
                        f"has no such outlet; it has {len(states)}",
                        controller=self._name,
                        outlet=outlet,
                        do="correct the feed",
                    )
                found[outlet] = self._power(states[number - 1], outlet)
            except PowerError as problem:
                found[outlet] = problem
        return found

    async def read_many(self, outlets: Sequence[str]) -> Mapping[str, float | None]:
        """As `read`."""
        return dict.fromkeys(outlets)

    async def describe(self) -> list[OutletDescription]:
        both = await self._list(f"{OUTLETS}/all;/=name,physical_state/")
        if len(both) % 2:
            raise self._device.wrong_shape("does not give name and state by turns", None)
        return [
            OutletDescription(str(at // 2 + 1), str(both[at]), self._power(both[at + 1], str(at // 2 + 1)))
            for at in range(0, len(both), 2)
        ]

    async def identify(self) -> str:
        found = []
        for what in ("hostname", "version"):
            answer = await self._json(f"/restapi/config/{what}/", None)
            found.append(f"{what} {answer}")
        return f"dli: {', '.join(found)}, by its REST API"

    async def close(self) -> None:
        """Nothing is held between calls."""

    async def _list(self, path: str) -> list[Any]:
        answer = await self._json(path, None)
        if not isinstance(answer, list):
            raise self._device.wrong_shape("is no list", None)
        return answer

    async def _json(self, path: str, outlet: str | None) -> Any:
        reply = await self._ask("GET", path, outlet)
        if not reply.good:
            self._device.refuse(reply, path, outlet, do="check outlet; allow the REST-style API (Setup, External APIs)")
        return self._device.json(reply, outlet)

    async def _ask(self, method: str, path: str, outlet: str | None, body: bytes | None = None) -> Reply:
        headers = {"Accept": "application/json", "X-CSRF": "x"}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        return await self._device.request(
            method,
            self._settings.url + path,
            outlet=outlet,
            login=account(self._name, self._settings, "digest"),
            headers=headers,
            body=body,
        )

    def _power(self, state: object, outlet: str) -> Power:
        if not isinstance(state, bool):
            raise self._device.wrong_shape(f"says {str(state)[:80]!r} for an outlet's state", outlet)
        return Power.ON if state else Power.OFF


def make(name: str, settings: DliSettings, context: DriverContext) -> DliDriver:
    """The driver of one power controller."""
    return DliDriver(name, settings, context)
