"""Shelly devices, generation 2 and later, by their RPC over HTTP: `POST /rpc/METHOD`, parameters as a JSON object.

Sources: shelly-api-docs.shelly.cloud (gen2: Switch, RPCProtocol, CommonErrors, Authentication); names of fields as in
aioshelly and labgrid's `shelly_gen2`. An answer without `error` is the method's result. An error is an object with
`code` and `message`, bare or below `error`; its HTTP status differs between firmwares, so the code alone is believed.
Accounts: HTTP digest with SHA-256; the user is always `admin`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.drivers.http_session import CALL_MARGIN_S, HttpDevice, account
from agent.power.errors import ConfigurationError, PowerError, RefusedError, UnreachableError
from agent.power.kinds.shelly import ShellySettings
from wire.phases import Power

INVALID_ARGUMENT = -103
DEADLINE_EXCEEDED = -104
NOT_FOUND = -105
NO_METHOD = (-114, 404)
"""Error codes of CommonErrors; 404 for a method without handler is seen by aioshelly."""

TIMING = Timing(
    verify_deadline_s=3.0,  # the relay follows at once; the rest is a busy Wi-Fi
    poll_interval_s=0.05,
    settle_s=0.5,
    min_off_s=2.0,
    attempts=3,
)
DESCRIBE_REQUESTS = 2
"""`describe` asks for states and for names."""


class ShellyDriver:
    """One device with one or more switches."""

    def __init__(self, name: str, settings: ShellySettings, context: DriverContext) -> None:
        self._name = name
        self._settings = settings
        self._device = HttpDevice(name, settings, context)
        self._timing = replace(TIMING, call_timeout_s=settings.timeout_s * DESCRIBE_REQUESTS + CALL_MARGIN_S)

    @property
    def timing(self) -> Timing:
        return self._timing

    @property
    def reads_back(self) -> bool:
        return True

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        await self._call("Switch.Set", outlet, id=self._device.outlet_number(outlet, first=0), on=on)

    async def get(self, outlet: str) -> Power:
        return self._power(await self._status(outlet), outlet)

    async def read(self, outlet: str) -> float | None:
        return _watts(await self._status(outlet))

    async def get_many(self, outlets: Sequence[str]) -> Mapping[str, Power | PowerError]:
        found: dict[str, Power | PowerError] = {}
        statuses = await self._all(outlets)
        for outlet in outlets:
            try:
                found[outlet] = self._power(self._one_of(statuses, outlet), outlet)
            except PowerError as problem:
                found[outlet] = problem
        return found

    async def read_many(self, outlets: Sequence[str]) -> Mapping[str, float | None]:
        statuses = await self._all(outlets)
        # One that it has not is named by `get_many`; here it must not cost the others their watts.
        return {outlet: _watts(statuses.get(f"switch:{outlet}")) for outlet in outlets}

    async def describe(self) -> list[OutletDescription]:
        statuses = await self._call("Shelly.GetStatus", None)
        names = await self._call("Shelly.GetConfig", None)
        found = []
        for key in statuses:
            kind, _, outlet = key.partition(":")
            if kind == "switch":
                config = names.get(key)
                label = config.get("name") if isinstance(config, dict) else None
                found.append(
                    OutletDescription(outlet, str(label or ""), self._power(self._one_of(statuses, outlet), outlet))
                )
        return sorted(found, key=lambda item: item.outlet.zfill(4))

    async def identify(self) -> str:
        info = await self._call("Shelly.GetDeviceInfo", None)
        return (
            f"shelly gen {info.get('gen', '?')}: {info.get('id', '?')}, model {info.get('model', '?')}, firmware "
            f"{info.get('ver', '?')}, by Shelly.GetDeviceInfo"
        )

    async def close(self) -> None:
        """Nothing is held between calls."""

    async def _status(self, outlet: str) -> dict[str, Any]:
        return await self._call("Switch.GetStatus", outlet, id=self._device.outlet_number(outlet, first=0))

    async def _all(self, outlets: Sequence[str]) -> dict[str, Any]:
        if len(outlets) == 1:  # the status of everything is a hundred times longer
            try:
                return {f"switch:{outlets[0]}": await self._status(outlets[0])}
            except ConfigurationError as problem:
                return {f"switch:{outlets[0]}": problem}
        return await self._call("Shelly.GetStatus", None)

    def _one_of(self, statuses: dict[str, Any], outlet: str) -> dict[str, Any]:
        self._device.outlet_number(outlet, first=0)
        status = statuses.get(f"switch:{outlet}")
        if isinstance(status, PowerError):
            raise status
        if status is None:
            has = sorted(key.removeprefix("switch:") for key in statuses if key.startswith("switch:"))
            raise ConfigurationError(
                f"has no such switch; it has {', '.join(has) or 'none'}",
                controller=self._name,
                outlet=outlet,
                do="correct the feed",
            )
        if not isinstance(status, dict):
            raise self._device.wrong_shape(f"has no object for switch {outlet}", outlet)
        return status

    def _power(self, status: dict[str, Any], outlet: str) -> Power:
        output = status.get("output")
        if output is None:
            return Power.UNKNOWN  # so does a switch whose state the device does not know
        if not isinstance(output, bool):
            raise self._device.wrong_shape(f"says output {output!r}, which is neither true nor false", outlet)
        return Power.ON if output else Power.OFF

    async def _call(self, method: str, outlet: str | None, **params: object) -> dict[str, Any]:
        reply = await self._device.request(
            "POST",
            f"{self._settings.url}/rpc/{method}",
            outlet=outlet,
            login=account(self._name, self._settings, "digest"),
            headers={"Content-Type": "application/json"},
            body=json.dumps(params).encode(),
        )
        if not reply.good and not reply.body.lstrip().startswith(b"{"):
            self._device.refuse(
                reply, method, outlet, do="check url; a Shelly of the first generation has no RPC: use driver rest"
            )
        answer = self._device.json(reply, outlet)
        if not isinstance(answer, dict):
            raise self._device.wrong_shape("is no JSON object", outlet)
        error = answer.get("error", answer if not reply.good else None)
        if error is not None:
            raise self._refused(method, outlet, error if isinstance(error, dict) else {"message": error})
        return answer

    def _refused(self, method: str, outlet: str | None, error: dict[str, Any]) -> PowerError:
        code, text = error.get("code"), f"{method}: {str(error.get('message', 'no reason given'))[:200]}"
        if code in {NOT_FOUND, INVALID_ARGUMENT}:
            return ConfigurationError(text, controller=self._name, outlet=outlet, do="correct the feed")
        if code in NO_METHOD:
            return ConfigurationError(
                text, controller=self._name, outlet=outlet, do="it may have no switches, or run as a cover"
            )
        if code == DEADLINE_EXCEEDED:
            return UnreachableError(text, controller=self._name, outlet=outlet, do="look at the device")
        return RefusedError(f"{text} (code {code})", controller=self._name, outlet=outlet, do="look at the device")


def _watts(status: object) -> float | None:
    """`apower`, which devices that do not measure leave out."""
    watts = status.get("apower") if isinstance(status, dict) else None
    return float(watts) if isinstance(watts, int | float) and not isinstance(watts, bool) else None


def make(name: str, settings: ShellySettings, context: DriverContext) -> ShellyDriver:
    """The driver of one device."""
    return ShellyDriver(name, settings, context)
