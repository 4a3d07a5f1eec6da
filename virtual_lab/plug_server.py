"""A virtual power strip on HTTP: what real ones speak, over one set of outlets.

    python -m virtual_lab.plug_server --port 0 --outlets 4

It prints one line of JSON when it is ready (`{"ready": true, "url": …}`) and takes one JSON object per line on its
standard input, as `virtual_lab.snmp_pdu` does: `lie`, `refuse` (`{"do": "lie", "outlets": ["2"]}`), `deaf` (takes
requests and never answers), `press` (`{"do": "press", "outlet": "1", "on": true}`), `state`.

Protocols (`virtual_lab/plug_protocols.py`): Shelly RPC at /rpc, NETIO at /netio.json, Digital Loggers at /restapi,
labgrid's rest at /power/N (`GET` answers 0 or 1, `PUT` takes them), Redfish at /redfish. Outlets are called 1, 2, …
here; Shelly and Digital Loggers count them from 0.

From Python: `async with PlugServer(outlets=4) as plug: …`, in the event loop of the caller.
"""

import argparse
import asyncio
import json
import ssl
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web

from virtual_lab.plug_login import LoginGate
from virtual_lab.snmp_pdu_control import serve_until_told

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Hook = Callable[[str, bool], None]

SHUTDOWN_S = 0.2
"""A strip that loses power says no goodbye; requests held back by `deaf` are cut off."""


@dataclass
class PlugServer:
    """The strip. `hook`, where given, is called with (outlet, on) when an outlet has really switched.

    Attributes:
        gate: who is let in.
        readers: accounts that may read and not write (NETIO).
        watts_on: what each outlet that is on draws.
        metered: whether it measures at all.
        lying: outlets that accept and do not switch.
        refusing: outlets that answer no.
        deaf: takes requests and never answers.
        answers: path -> (status, body, headers) that is answered instead.
        sets: every command that reached an outlet, as (outlet, on).
        edges: every real change, as (outlet, on).
        power_states: what Redfish says instead of On and Off, as PoweringOn.
        resets: every ResetType that came by Redfish, as (outlet, type).
        requests: every request, as (method, path), also those not let in; `urls` has them as they were sent.
    """

    outlets: int = 4
    gate: LoginGate = field(default_factory=LoginGate)
    hook: Hook | None = None
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    readers: frozenset[str] = frozenset()
    watts_on: float = 12.5
    metered: bool = True
    lying: set[str] = field(default_factory=set)
    refusing: set[str] = field(default_factory=set)
    deaf: bool = False
    answers: dict[str, tuple[int, str, dict[str, str]]] = field(default_factory=dict)
    sets: list[tuple[str, bool]] = field(default_factory=list, init=False)
    edges: list[tuple[str, bool]] = field(default_factory=list, init=False)
    requests: list[tuple[str, str]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.on: dict[str, bool] = {str(number): False for number in range(1, self.outlets + 1)}
        self.energy_wh: dict[str, float] = dict.fromkeys(self.on, 1000.0)
        self.power_states: dict[str, str] = {}
        self.resets: list[tuple[str, str]] = []
        self.urls: list[str] = []
        self._runner: web.AppRunner | None = None
        self._never = asyncio.Event()

    async def __aenter__(self) -> Self:
        from virtual_lab.plug_protocols import routes_of
        from virtual_lab.redfish_service import redfish_routes

        app = web.Application(middlewares=[self._door])
        app.add_routes([*routes_of(self), *redfish_routes(self)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, self.port, ssl_context=self.tls).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._never.set()
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://{self.host}:{self.port}"

    # --- what the protocols ask ----------------------------------------------------------------------------------

    def command(self, outlet: str, *, on: bool) -> bool:
        """Carry out a command; returns False where the outlet refuses."""
        self.sets.append((outlet, on))
        if outlet in self.refusing:
            return False
        if outlet not in self.lying:
            self.press(outlet, on=on)
        return True

    def press(self, outlet: str, *, on: bool) -> None:
        """A hand at the button."""
        if self.on[outlet] != on:
            self.on[outlet] = on
            self.edges.append((outlet, on))
            if self.hook is not None:
                self.hook(outlet, on)

    def watts(self, outlet: str) -> float:
        return self.watts_on if self.on[outlet] else 0.0

    @web.middleware
    async def _door(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        self.requests.append((request.method, request.rel_url.raw_path))
        self.urls.append(request.raw_path)
        if self.deaf:
            await self._never.wait()
            return web.Response(status=503)  # at its end nobody listens any more; the request must not be carried out
        user = self.gate.user(request.headers.get("Authorization", ""), request.method, request.raw_path)
        if user is None:
            return web.Response(status=401, headers={"WWW-Authenticate": self.gate.challenge()})
        if user in self.readers and request.method != "GET":
            return web.Response(status=403, text="read only")
        if request.path in self.answers:
            status, body, headers = self.answers[request.path]
            return web.Response(status=status, text=body, headers=headers)
        return await handler(request)

    def control(self, line: str) -> dict[str, Any]:
        """Carry out one control line; returns the answer. A bad line is answered with `error`, never raised."""
        try:
            request = json.loads(line)
            what = request["do"]
            if what == "lie":
                self.lying = set(request["outlets"])
            elif what == "refuse":
                self.refusing = set(request["outlets"])
            elif what == "deaf":
                self.deaf = bool(request["value"])
            elif what == "press":
                self.press(request["outlet"], on=bool(request["on"]))
            elif what != "state":
                return {"ok": False, "error": f"unknown word {what!r}"}
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            return {"ok": False, "error": f"{type(problem).__name__}: {problem}"}
        return {"ok": True, "on": self.on, "url": self.url}


async def _serve(args: argparse.Namespace) -> None:
    async with PlugServer(outlets=args.outlets, host=args.host, port=args.port) as plug:
        await serve_until_told(plug.control, {"url": plug.url}, stop_at_eof=args.stop_at_eof)


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(prog="python -m virtual_lab.plug_server", description="A virtual power strip.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at")
    parser.add_argument("--port", type=int, default=0, help="0 for any free one")
    parser.add_argument("--outlets", type=int, default=4)
    parser.add_argument("--stop-at-eof", action="store_true", help="end when standard input ends")
    asyncio.run(_serve(parser.parse_args(argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
