"""NETIO power sockets: one JSON document, `/netio.json`, got to read and posted to switch.

Sources: wiki.netio-products.com, JSON API (protocol version 2.4); NETIO application note AN21. `GET` answers
`{"Agent": {…}, "GlobalMeasure": {…}, "Outputs": [{"ID": 1, "Name": …, "State": 0, "Action": 6, "Load": 12, …}]}`;
`POST {"Outputs": [{"ID": 1, "Action": 1}]}` switches (0 off, 1 on; 2 to 5 are pulses and toggle, which nobody here
sends; 6 ignore) and answers the same document. `Load` is in watts, and missing where the device does not measure.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.drivers.http_session import CALL_MARGIN_S, HttpDevice, Login, account
from agent.power.drivers.secret_source import read_secret
from agent.power.errors import ConfigurationError, PowerError
from agent.power.kinds.netio import NetioSettings
from wire.phases import Power

PATH = "/netio.json"
ACTION_OFF, ACTION_ON = 0, 1
STATES = {0: Power.OFF, 1: Power.ON}

TIMING = Timing(
    verify_deadline_s=5.0,  # outlets that were switched together follow one another, to spare the fuse
    poll_interval_s=0.1,
    settle_s=1.0,
    min_off_s=2.0,
    attempts=3,
)

Outputs = dict[str, dict[str, Any]]


class NetioDriver:
    """One device. Every answer tells of all outlets."""

    def __init__(self, name: str, settings: NetioSettings, context: DriverContext) -> None:
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
        number = self._device.outlet_number(outlet, first=1)
        wish = {"Outputs": [{"ID": number, "Action": ACTION_ON if on else ACTION_OFF}]}
        document = await self._exchange(outlet, json.dumps(wish).encode())
        self._one_of(self._outputs(document, outlet), outlet)  # an ID that it has not is passed over without a word

    async def get(self, outlet: str) -> Power:
        self._device.outlet_number(outlet, first=1)
        return self._power(self._outputs(await self._exchange(outlet), outlet), outlet)

    async def read(self, outlet: str) -> float | None:
        self._device.outlet_number(outlet, first=1)
        return _watts(self._one_of(self._outputs(await self._exchange(outlet), outlet), outlet))

    async def get_many(self, outlets: Sequence[str]) -> Mapping[str, Power | PowerError]:
        outputs = self._outputs(await self._exchange(None), None)
        found: dict[str, Power | PowerError] = {}
        for outlet in outlets:
            try:
                found[outlet] = self._power(outputs, outlet)
            except PowerError as problem:
                found[outlet] = problem
        return found

    async def read_many(self, outlets: Sequence[str]) -> Mapping[str, float | None]:
        outputs = self._outputs(await self._exchange(None), None)
        # One that it has not is named by `get_many`; here it must not cost the others their watts.
        return {outlet: _watts(outputs.get(outlet, {})) for outlet in outlets}

    async def describe(self) -> list[OutletDescription]:
        outputs = self._outputs(await self._exchange(None), None)
        return [
            OutletDescription(outlet, str(output.get("Name", "")), self._power(outputs, outlet))
            for outlet, output in outputs.items()
        ]

    async def identify(self) -> str:
        agent = (await self._exchange(None)).get("Agent")
        if not isinstance(agent, dict):
            raise self._device.wrong_shape("has no Agent", None)
        return (
            f"netio: {agent.get('Model', '?')} {agent.get('SerialNumber', '?')}, firmware {agent.get('Version', '?')}, "
            f"JSON {agent.get('JSONVer', '?')}, by its netio.json"
        )

    async def close(self) -> None:
        """Nothing is held between calls."""

    async def _exchange(self, outlet: str | None, wish: bytes | None = None) -> dict[str, Any]:
        """Post a wish, or get; either way the answer is the whole document."""
        reply = await self._device.request(
            "GET" if wish is None else "POST",
            self._settings.url + PATH,
            outlet=outlet,
            login=self._login(writing=wish is not None),
            headers={} if wish is None else {"Content-Type": "application/json"},
            body=wish,
        )
        if not reply.good:
            self._device.refuse(reply, PATH, outlet, do="switch on its JSON API (M2M API protocols), with write access")
        document = self._device.json(reply, outlet)
        if not isinstance(document, dict):
            raise self._device.wrong_shape("is no JSON object", outlet)
        return document

    def _login(self, *, writing: bool) -> Login:
        s = self._settings
        if writing or s.read_username is None:
            return account(self._name, s, "basic")
        secret = read_secret(self._name, "read_password", s.read_password_file, s.read_password_env)
        return Login("basic", s.read_username, secret)

    def _outputs(self, document: dict[str, Any], outlet: str | None) -> Outputs:
        outputs = document.get("Outputs")
        if not isinstance(outputs, list) or not all(isinstance(o, dict) and "ID" in o for o in outputs):
            raise self._device.wrong_shape("has no list of Outputs with an ID each", outlet)
        return {str(output["ID"]): output for output in outputs}

    def _one_of(self, outputs: Outputs, outlet: str) -> dict[str, Any]:
        self._device.outlet_number(outlet, first=1)
        if outlet not in outputs:
            raise ConfigurationError(
                f"has no such outlet; it has {', '.join(outputs) or 'none'}",
                controller=self._name,
                outlet=outlet,
                do="correct the feed",
            )
        return outputs[outlet]

    def _power(self, outputs: Outputs, outlet: str) -> Power:
        state = self._one_of(outputs, outlet).get("State")
        if isinstance(state, bool) or not isinstance(state, int):
            raise self._device.wrong_shape(f"says State {state!r}, which is neither 0 nor 1", outlet)
        return STATES.get(state, Power.UNKNOWN)


def _watts(output: dict[str, Any]) -> float | None:
    load = output.get("Load")
    return float(load) if isinstance(load, int | float) and not isinstance(load, bool) else None


def make(name: str, settings: NetioSettings, context: DriverContext) -> NetioDriver:
    """The driver of one device."""
    return NetioDriver(name, settings, context)
