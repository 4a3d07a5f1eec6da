"""BMCs by IPMI 2.0 over LAN, through pyghmi in a helper process of each controller (`ipmi_helper` says why).

Off is power down at once and on is power up (section 28.3): outlets are power, nobody shuts an operating system down.
pyghmi sends a command again that was not answered; both may be said twice without harm, reset is never sent.
"""

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from agent.power.driver import OutletDescription, Timing
from agent.power.driver_kind import DriverContext
from agent.power.drivers.secret_source import read_secret
from agent.power.errors import AuthenticationError, ConfigurationError, PowerError, RefusedError, UnreachableError
from agent.power.kinds.ipmi import IpmiSettings
from wire.phases import Power

OUTLET = "1"
"""The one outlet of a BMC: its chassis."""
STATES = {"on": Power.ON, "off": Power.OFF}
ERRORS: dict[str, tuple[type[PowerError], str]] = {
    "unreachable": (UnreachableError, "check its network, and that IPMI over LAN is on"),
    "authentication": (AuthenticationError, "correct the account, and let it use the privilege"),
    "refused": (RefusedError, "look at the BMC's log"),
}
CALL_MARGIN_S = 1.0
CLOSE_TIMEOUT_S = 2.0
"""For the helper's logout."""
TIMING = Timing(
    verify_deadline_s=15.0,  # a server's supply and its BMC's view of it take seconds
    poll_interval_s=0.2,
    settle_s=3.0,
    min_off_s=5.0,  # bulk capacitors of a server's supply
    attempts=3,
    answer_deadline_s=30.0,
)


class IpmiDriver:
    """One BMC. Its helper is started when first needed, and again after it was ended for being late."""

    def __init__(self, name: str, settings: IpmiSettings) -> None:
        self._name = name
        self._settings = settings
        self._helper: Process | None = None
        self._password = ""
        self._ending: set[asyncio.Task[int]] = set()
        self._timing = replace(TIMING, call_timeout_s=settings.timeout_s + CALL_MARGIN_S)

    @property
    def timing(self) -> Timing:
        return self._timing

    @property
    def reads_back(self) -> bool:
        return True

    async def set(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        await self._call(outlet, {"do": "set", "on": on})

    async def get(self, outlet: str) -> Power:
        return STATES.get(await self._call(outlet, {"do": "get"}), Power.UNKNOWN)

    async def read(self, outlet: str) -> float | None:
        watts = await self._call(outlet, {"do": "watts"})
        return None if watts is None else float(watts)

    async def describe(self) -> list[OutletDescription]:
        return [OutletDescription(OUTLET, "chassis", await self.get(OUTLET))]

    async def identify(self) -> str:
        return f"ipmi: {await self._call(OUTLET, {'do': 'identify'})}, by Get Device ID"

    async def close(self) -> None:
        helper = self._helper
        if helper is not None and helper.stdin is not None:
            helper.stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await helper.wait()
        self._drop()
        if self._ending:
            await asyncio.wait(self._ending, timeout=CLOSE_TIMEOUT_S)

    async def _call(self, outlet: str, request: dict[str, Any]) -> Any:
        if outlet != OUTLET:
            raise ConfigurationError(
                "a BMC has one outlet", controller=self._name, outlet=outlet, do=f"write {self._name}:{OUTLET}"
            )
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answer = await self._exchange(request)
        except TimeoutError:
            self._drop()
            raise UnreachableError(
                f"{self._settings.host} did not answer within {self._settings.timeout_s:g} s",
                controller=self._name,
                outlet=outlet,
                do="check its network, and that IPMI over LAN is on; a user name that it does not know looks the same",
            ) from None
        except (OSError, ValueError) as problem:
            self._drop()
            raise UnreachableError(
                f"the helper for {self._settings.host} ended: {problem}", controller=self._name, outlet=outlet
            ) from problem
        except asyncio.CancelledError:
            self._drop()  # its answer would be taken for that of the next question
            raise
        if "error" in answer:
            kind, do = ERRORS[answer["error"]]
            raise kind(f"{self._settings.host}: {answer['text']}", controller=self._name, outlet=outlet, do=do)
        return answer["value"]

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        password = read_secret(self._name, "password", self._settings.password_file, self._settings.password_env)
        if password != self._password:
            self._drop()
        helper = self._helper or await self._start(password)
        if helper.stdin is None or helper.stdout is None:
            raise OSError("it has no pipes")
        helper.stdin.write(json.dumps(request).encode() + b"\n")
        await helper.stdin.drain()
        line = await helper.stdout.readline()
        if not line:
            raise OSError("without an answer")
        answer = json.loads(line)
        if not isinstance(answer, dict):
            raise ValueError("with an answer that is none")  # noqa: TRY004 - a protocol fault, not a type of ours
        return answer

    async def _start(self, password: str) -> Process:
        if find_spec("pyghmi") is None:
            raise ConfigurationError(
                "pyghmi is not installed", controller=self._name, do="install boardhand[ipmi] where the agent runs"
            )
        s = self._settings
        module = "agent.power.drivers.ipmi_helper"
        helper = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, start_new_session=True
        )
        self._helper, self._password = helper, password
        if helper.stdin is not None:
            login = {
                "host": s.host,
                "port": s.port,
                "username": s.username,
                "password": password,
                "privilege": s.privilege,
                "timeout_s": s.timeout_s,
            }
            helper.stdin.write(json.dumps(login).encode() + b"\n")  # never on the command line, where ps shows it
        return helper

    def _drop(self) -> None:
        helper, self._helper = self._helper, None
        if helper is None:
            return
        with contextlib.suppress(ProcessLookupError):
            helper.kill()
        ending = asyncio.ensure_future(helper.wait())
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)


def make(name: str, settings: IpmiSettings, _context: DriverContext) -> IpmiDriver:
    """The driver of one BMC."""
    return IpmiDriver(name, settings)
