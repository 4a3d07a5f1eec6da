"""BMCs by Redfish, through sushy on a thread of each controller.

Off is ForceOff and on is On (ForceOn where only that is offered): outlets are power, nobody shuts an operating system
down. `ComputerSystem.Reset` to what is already is refused by some services, so the state is read first. Accounts are
HTTP basic (DSP0266 section 13.3.4): a session each time would use up the few that a BMC has.

sushy repeats what broke off on the way, three times by default, and would fire a reset twice: it is held to one try.
Only what the service itself calls not ready yet (iDRAC's SYS518), and did not begin, is asked once more.
"""

import asyncio
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.drivers.secret_source import read_secret
from agent.power.errors import AuthenticationError, ConfigurationError, PowerError, RefusedError, UnreachableError
from agent.power.kinds.redfish import RedfishSettings
from daemon.tls import trusting
from wire.phases import Power

T = TypeVar("T")

ROOT = "/redfish/v1/"
STATES = {"On": Power.ON, "Off": Power.OFF}
"""PowerState of DSP2046; Paused, PoweringOn and PoweringOff are in between."""
ON_RESETS, OFF_RESETS = ("On", "ForceOn"), ("ForceOff",)
PASSING = frozenset({429, 502, 503, 504})
"""Statuses that say "not now": nothing was done."""
REQUESTS = 5
"""A call may ask for the root, the systems, one system, and post; reading watts asks for three more documents."""
CALL_MARGIN_S = 2.0
TIMING = Timing(
    verify_deadline_s=20.0,  # BMCs tell of a change after seconds
    poll_interval_s=0.5,
    settle_s=5.0,
    min_off_s=5.0,  # bulk capacitors of a server's supply
    attempts=2,
    answer_deadline_s=30.0,
)


class RedfishDriver:
    """One service with one or more systems."""

    def __init__(self, name: str, settings: RedfishSettings) -> None:
        self._name = name
        self._settings = settings
        self._connector: Any = None
        self._systems: dict[str, str] = {}
        """Outlet -> path, as last listed."""
        self._password: str | None = None
        self._closed = False
        # sushy blocks, so each service has its own thread: one that hangs delays no other.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"redfish-{name}")
        self._timing = replace(TIMING, call_timeout_s=settings.timeout_s * REQUESTS + CALL_MARGIN_S)

    @property
    def timing(self) -> Timing:
        return self._timing

    @property
    def reads_back(self) -> bool:
        return True

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        await self._call(outlet, lambda: self._reset(outlet, on=on))

    async def get(self, outlet: str) -> Power:
        return await self._call(outlet, lambda: _power(self._system(outlet)))

    async def read(self, outlet: str) -> float | None:
        return await self._call(outlet, lambda: self._watts(outlet))

    async def describe(self) -> list[OutletDescription]:
        def work() -> list[OutletDescription]:
            self._list()
            systems = ((outlet, self._system(outlet)) for outlet in self._systems)
            return [OutletDescription(outlet, str(s.name or ""), _power(s)) for outlet, s in systems]

        return await self._call(None, work)

    async def identify(self) -> str:
        def work() -> str:
            root = self._connect().get(ROOT).json()
            return (
                f"redfish {root.get('RedfishVersion', '?')}: {root.get('Product') or root.get('Name', '?')}, "
                f"by its service root"
            )

        return await self._call(None, work)

    async def close(self) -> None:
        """A request under way ends by its own timeout; its connection is closed after it."""
        if not self._closed:
            self._closed = True
            self._thread.submit(self._drop)
            self._thread.shutdown(wait=False)

    # --- on the service's thread ---------------------------------------------------------------------------------

    async def _call(self, outlet: str | None, work: Callable[[], T]) -> T:
        def at_service() -> T:
            try:
                return work()
            except PowerError:
                raise
            except Exception as problem:
                self._drop()
                raise self._translated(problem, outlet) from problem

        return await asyncio.get_running_loop().run_in_executor(self._thread, at_service)

    def _drop(self) -> None:
        connector, self._connector = self._connector, None
        if connector is not None:
            connector.close()

    def _connect(self) -> Any:
        """A connector of sushy's, made anew when the password on disk has changed."""
        s = self._settings
        _check_installed(self._name)
        from sushy.connector import Connector  # type: ignore[import-untyped]  # noqa: PLC0415 - an optional extra

        password = None
        if s.username is not None:
            password = read_secret(self._name, "password", s.password_file, s.password_env)
        if s.ca_file is not None and not s.ca_file.is_file():
            raise ConfigurationError(f"ca_file {s.ca_file} is not there", controller=self._name, do="name a PEM file")
        if password != self._password:
            self._drop()
        if self._connector is None:
            connector = Connector(
                s.url,
                verify=str(s.ca_file) if s.ca_file is not None else s.verify_tls,
                server_side_retries=1,  # 0 would mean 3
                default_request_timeout=s.timeout_s,
                connect_timeout=s.timeout_s,
            )
            # A proxy for the web is none for the lab, and ~/.netrc is no place for our passwords.
            connector._session.trust_env = False  # noqa: SLF001 - sushy has no other way
            if s.ca_file is not None:
                # Else requests makes a context of its own, by Python's own measure: see there.
                adapter = connector._session.get_adapter("https://")  # noqa: SLF001 - sushy has no other way
                adapter.init_poolmanager(1, 1, ssl_context=self._trusting(s.ca_file))
            if password is not None:
                connector.set_http_basic_auth(s.username, password)
            self._connector, self._password = connector, password
            self._systems = {}
        return self._connector

    def _trusting(self, ca_file: Path) -> ssl.SSLContext:
        try:
            return trusting(ca_file)
        except OSError as problem:
            reason = problem.strerror or problem
            raise ConfigurationError(
                f"ca_file {ca_file} cannot be used: {reason}",
                controller=self._name,
                do="name a PEM file with the certificate of the authority",
            ) from problem

    def _list(self) -> None:
        connector = self._connect()
        # Not through sushy's own root: it would try to open a session where there is no account.
        systems = connector.get(ROOT).json()["Systems"]["@odata.id"]
        from sushy.resources.system.system import (  # type: ignore[import-untyped]  # noqa: PLC0415 - an optional extra
            SystemCollection,
        )

        paths = SystemCollection(connector, systems).members_identities
        self._systems = {path.rstrip("/").rpartition("/")[2]: path for path in paths}

    def _system(self, outlet: str) -> Any:
        self._connect()
        if outlet not in self._systems:
            self._list()
        if outlet not in self._systems:
            raise ConfigurationError(
                f"has no such system; it has {', '.join(self._systems) or 'none'}",
                controller=self._name,
                outlet=outlet,
                do="correct the feed",
            )
        from sushy.resources.system.system import System  # noqa: PLC0415 - an optional extra

        return System(self._connector, self._systems[outlet])

    def _reset(self, outlet: str, *, on: bool) -> None:
        system = self._system(outlet)
        if _power(system) is (Power.ON if on else Power.OFF):
            return
        offered = {kind.value: kind for kind in system.get_allowed_reset_system_values()}
        for word in ON_RESETS if on else OFF_RESETS:
            if word in offered:
                system.reset_system(offered[word])
                return
        raise ConfigurationError(
            f"offers no {' or '.join(ON_RESETS if on else OFF_RESETS)}, only {', '.join(sorted(offered)) or 'nothing'}",
            controller=self._name,
            outlet=outlet,
            do="let the account reset systems; another driver is needed where the BMC cannot",
        )

    def _watts(self, outlet: str) -> float | None:
        """PowerConsumedWatts of the first chassis that the system names, by DSP2046's Power."""
        links = self._system(outlet).json.get("Links", {}).get("Chassis", [])
        if not links:
            return None
        power = self._connector.get(links[0]["@odata.id"]).json().get("Power")
        if power is None:
            return None
        control = self._connector.get(power["@odata.id"]).json().get("PowerControl") or [{}]
        watts = control[0].get("PowerConsumedWatts")
        return float(watts) if isinstance(watts, int | float) and not isinstance(watts, bool) else None

    def _translated(self, problem: Exception, outlet: str | None) -> PowerError:
        """The library's error, or whatever foreign JSON made it raise, as one of ours."""
        from sushy import exceptions as said  # type: ignore[import-untyped]  # noqa: PLC0415 - an optional extra

        status = getattr(problem, "status_code", None)
        text = " ".join(str(problem).split())[:300]
        kind: type[PowerError] = ConfigurationError
        do = "check url and driver: its answers are not Redfish's"
        if isinstance(problem, said.AccessError):
            kind, do = AuthenticationError, "correct the account, and let it control power"
            text = f"refuses {self._settings.username or 'to be asked without an account'} (HTTP {status})"
        elif isinstance(problem, said.ConnectionError):
            # By its name: requests is sushy's dependency, not ours.
            if type(problem.__context__).__name__ == "SSLError":
                text, do = f"no TLS: {text}", "set ca_file to the certificate of its authority"
            else:
                kind, do = UnreachableError, "check its power, its network and url"
        elif isinstance(problem, said.ResourceNotFoundError):
            do = "check outlet and url"
        elif isinstance(problem, said.HTTPError):
            kind = UnreachableError if status in PASSING else RefusedError
            do = "look at the BMC's log"
        return kind(text, controller=self._name, outlet=outlet, do=do)


def _power(system: Any) -> Power:
    state = system.power_state
    return Power.UNKNOWN if state is None else STATES.get(state.value, Power.UNKNOWN)


def _check_installed(controller: str) -> None:
    if find_spec("sushy") is None:
        raise ConfigurationError(
            "sushy is not installed", controller=controller, do="install boardhand[redfish] where the agent runs"
        )


def make(name: str, settings: RedfishSettings, _context: DriverContext) -> RedfishDriver:
    """The driver of one service."""
    return RedfishDriver(name, settings)
