"""Any REST interface, described by settings: one request switches on, one off, and one reads.

Values are read by JSON pointer (RFC 6901), or are the whole body. A value that the settings do not know is an error,
not a guess. Where the request for the state does not name the outlet, one answer tells of all outlets.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.drivers.http_session import CALL_MARGIN_S, HttpDevice, Login, Reply
from agent.power.drivers.secret_source import read_secret
from agent.power.errors import ConfigurationError, PowerError
from agent.power.kinds.rest import OUTLET_NAME, OUTLET_PLACEHOLDER, RestRequest, RestSettings, RestState, same
from wire.phases import Power

ONLY_OUTLET = "1"
"""The name of the outlet where no request names one."""
TIMING = Timing(
    poll_interval_s=0.1,
    min_off_s=2.0,
    attempts=2,  # an unknown service: what it does with the same request twice is not known either
)


class RestDriver:
    """One device or service."""

    def __init__(self, name: str, settings: RestSettings, context: DriverContext) -> None:
        self._name = name
        self._settings = settings
        self._device = HttpDevice(name, settings, context)
        self._timing = replace(
            TIMING,
            verify_deadline_s=settings.verify_deadline_s,
            settle_s=settings.settle_s,
            call_timeout_s=settings.timeout_s + CALL_MARGIN_S,
        )

    @property
    def timing(self) -> Timing:
        return self._timing

    @property
    def reads_back(self) -> bool:
        return self._settings.state is not None

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        await self._ask(self._settings.on if on else self._settings.off, outlet)

    async def get(self, outlet: str) -> Power:
        state = self._settings.state
        self._check(outlet)
        if state is None:
            return Power.UNKNOWN
        return self._power(state, await self._ask(state, outlet), outlet)

    async def read(self, outlet: str) -> float | None:
        self._check(outlet)
        request = self._watts_request()
        return None if request is None else self._watts(await self._ask(request, outlet), outlet)

    async def describe(self) -> list[OutletDescription]:
        """The outlets of the settings; their states are asked for one by one, by `get`."""
        return [OutletDescription(name) for name in self._named()]

    async def close(self) -> None:
        """Nothing is held between calls."""

    # --- asking --------------------------------------------------------------------------------------------------

    def _watts_request(self) -> RestRequest | None:
        watts = self._settings.watts
        if watts is None:
            return None
        return self._settings.state if watts.url is None else RestRequest(url=watts.url)

    async def _ask(self, request: RestRequest, outlet: str | None) -> Reply:
        if outlet is not None:
            self._check(outlet)
        s = self._settings
        headers = {"Accept": "application/json, */*;q=0.5", **s.headers, **request.headers}
        for header, source in s.secret_headers.items():
            headers[header] = read_secret(self._name, f"secret_headers.{header}", source.file, source.env)
        if request.body is not None and not any(header.lower() == "content-type" for header in headers):
            headers["Content-Type"] = "application/json"
        reply = await self._device.request(
            request.method,
            request.url.replace(OUTLET_PLACEHOLDER, outlet or ""),
            outlet=outlet,
            login=self._login(),
            headers=headers,
            body=None if request.body is None else request.body.replace(OUTLET_PLACEHOLDER, outlet or "").encode(),
        )
        if not reply.good:
            self._device.refuse(reply, f"{request.method} request", outlet)
        return reply

    def _login(self) -> Login:
        s = self._settings
        if s.auth == "none":
            return Login()
        if s.auth == "bearer":
            return Login("bearer", secret=read_secret(self._name, "token", s.token_file, s.token_env))
        secret = read_secret(self._name, "password", s.password_file, s.password_env)
        return Login(s.auth, s.username or "", secret)

    def _named(self) -> tuple[str, ...]:
        return self._settings.outlets or (() if self._settings.on.names_outlet else (ONLY_OUTLET,))

    def _check(self, outlet: str) -> None:
        known = self._named()
        if known and outlet not in known:
            problem = f"has no such outlet; it has {', '.join(known)}"
        elif not OUTLET_NAME.fullmatch(outlet):
            problem = "an outlet is called by letters, digits and _ . : - only"
        else:
            return
        raise ConfigurationError(problem, controller=self._name, outlet=outlet, do="correct the feed or outlets")

    # --- answers -------------------------------------------------------------------------------------------------

    def _power(self, state: RestState, reply: Reply, outlet: str) -> Power:
        if state.pointer is None:
            value: object = reply.text()
        else:
            value = self._at(state.pointer, reply, outlet)
        if value is None or any(same(value, known) for known in state.unknown_values):
            return Power.UNKNOWN
        if any(same(value, known) for known in state.on_values):
            return Power.ON
        if any(same(value, known) for known in state.off_values):
            return Power.OFF
        raise ConfigurationError(
            f"says {str(value)[:80]!r} for its state, which is none of on_values, off_values and unknown_values",
            controller=self._name,
            outlet=outlet,
            do="correct state.pointer, or add the value where it belongs",
        )

    def _watts(self, reply: Reply, outlet: str) -> float | None:
        watts = self._settings.watts
        if watts is None:
            return None
        value = self._at(watts.pointer, reply, outlet)
        if value is None:
            return None
        try:
            number = float(value) if isinstance(value, int | float | str) and not isinstance(value, bool) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise ConfigurationError(
                f"says {str(value)[:80]!r} where watts are expected",
                controller=self._name,
                outlet=outlet,
                do="correct watts.pointer",
            )
        return number * watts.scale

    def _at(self, pointer: str, reply: Reply, outlet: str) -> Any:
        document = self._device.json(reply, outlet)
        try:
            return at_pointer(document, pointer.replace(OUTLET_PLACEHOLDER, outlet))
        except LookupError as problem:
            raise ConfigurationError(
                f"there is nothing at {pointer} of its answer: {problem.args[0]}",
                controller=self._name,
                outlet=outlet,
                do="check outlet and pointer against the answer",
            ) from None


class RestListDriver(RestDriver):
    """A device whose one answer tells of all outlets."""

    async def get_many(self, outlets: Sequence[str]) -> Mapping[str, Power | PowerError]:
        state = self._settings.state
        if state is None:
            return dict.fromkeys(outlets, Power.UNKNOWN)
        reply = await self._ask(state, None)
        found: dict[str, Power | PowerError] = {}
        for outlet in outlets:
            try:
                self._check(outlet)
                found[outlet] = self._power(state, reply, outlet)
            except PowerError as problem:
                found[outlet] = problem
        return found

    async def read_many(self, outlets: Sequence[str]) -> Mapping[str, float | None]:
        request = self._watts_request()
        if request is None:
            return dict.fromkeys(outlets)
        reply = await self._ask(request, None)
        return {outlet: self._watts(reply, outlet) for outlet in outlets}

    async def describe(self) -> list[OutletDescription]:
        states = await self.get_many(self._named())
        return [
            OutletDescription(name, power=Power.UNKNOWN if isinstance(power, PowerError) else power)
            for name, power in states.items()
        ]


def at_pointer(document: Any, pointer: str) -> Any:
    """The value that a JSON pointer names (RFC 6901, section 4).

    Raises:
        LookupError: there is none; the text says at which step.
    """
    value = document
    for step in pointer.split("/")[1:]:
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and key in value:
            value = value[key]
        elif isinstance(value, list) and _is_index(key) and int(key) < len(value):
            value = value[int(key)]
        else:
            place = "an object" if isinstance(value, dict) else "an array" if isinstance(value, list) else repr(value)
            raise LookupError(f"no {key[:80]!r} in {place[:40]}")
    return value


def _is_index(key: str) -> bool:
    """Digits without leading zeros, section 4."""
    return key.isascii() and key.isdigit() and len(key) < 10 and (key == "0" or key[0] != "0")


def make(name: str, settings: RestSettings, context: DriverContext) -> RestDriver:
    """The driver of one device or service."""
    watts_apart = settings.watts is not None and OUTLET_PLACEHOLDER in (settings.watts.url or "")
    tells_all = settings.state is not None and not settings.state.names_outlet and not watts_apart
    return (RestListDriver if tells_all else RestDriver)(name, settings, context)
