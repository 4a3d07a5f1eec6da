"""The protocols of `virtual_lab.plug_server`: Shelly RPC, NETIO JSON, Digital Loggers REST, labgrid's rest.

Sources as in the drivers of `agent/power/drivers`; written from the vendors' documents, not from the drivers.
"""

import json
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web

from virtual_lab.plug_server import PlugServer

MODEL = "virtual strip"
MAX_CYCLE = 6
"""NETIO's actions: 0 off, 1 on, 2 pulse off, 3 pulse on, 4 toggle, 5 no change, 6 ignore."""


def routes_of(plug: PlugServer) -> list[web.RouteDef]:
    """All routes but Redfish's."""
    shelly, netio, dli, plain = _Shelly(plug), _Netio(plug), _Dli(plug), _Plain(plug)
    return [
        web.post("/rpc", shelly.frame),
        web.route("*", "/rpc/{method}", shelly.method),
        web.get("/netio.json", netio.read),
        web.post("/netio.json", netio.write),
        web.get("/restapi/config/{what}/", dli.config),
        web.get("/restapi/relay/outlets/{which}/{what}/", dli.read),
        web.put("/restapi/relay/outlets/{which}/{what}/", dli.write),
        web.get("/power/{outlet}", plain.read),
        web.put("/power/{outlet}", plain.write),
    ]


class _RpcError(Exception):
    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Shelly:
    """Gen 2 RPC: a frame to /rpc, or parameters to /rpc/METHOD."""

    def __init__(self, plug: PlugServer) -> None:
        self._plug = plug

    async def frame(self, request: web.Request) -> web.Response:
        frame = await request.json()
        answer: dict[str, Any] = {"id": frame.get("id"), "src": "shellyvirtual-000000000001"}
        try:
            answer["result"] = self._call(str(frame.get("method")), frame.get("params") or {})
        except _RpcError as error:
            answer["error"] = {"code": error.code, "message": str(error)}
        return web.json_response(answer)

    async def method(self, request: web.Request) -> web.Response:
        try:
            params = await request.json() if request.method == "POST" and request.can_read_body else _query(request)
            return web.json_response(self._call(request.match_info["method"], params))
        except _RpcError as error:
            status = 404 if error.code == 404 else 500
            return web.json_response({"code": error.code, "message": str(error)}, status=status)

    def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        plug = self._plug
        if method == "Shelly.GetDeviceInfo":
            return {"id": "shellyvirtual-000000000001", "model": MODEL, "gen": 2, "ver": "1.4.4", "app": "Virtual"}
        if method == "Shelly.GetStatus":
            return {"sys": {}, **{f"switch:{int(outlet) - 1}": self._status(outlet) for outlet in plug.on}}
        if method == "Shelly.GetConfig":
            return {f"switch:{int(outlet) - 1}": {"name": f"socket {outlet}"} for outlet in plug.on}
        if method == "Switch.GetStatus":
            return self._status(self._outlet(params))
        if method == "Switch.Set":
            outlet, on = self._outlet(params), params.get("on")
            if not isinstance(on, bool):
                raise _RpcError(-103, "Missing or bad argument 'on'!")
            was = plug.on[outlet]
            if not plug.command(outlet, on=on):
                raise _RpcError(-109, "Switch is locked")
            return {"was_on": was}
        raise _RpcError(404, f"No handler for {method}")

    def _outlet(self, params: dict[str, Any]) -> str:
        number = params.get("id")
        if number is None:
            raise _RpcError(-103, "Missing required 'id'")
        outlet = str(number + 1) if isinstance(number, int) else ""
        if outlet not in self._plug.on:
            raise _RpcError(-105, f"Argument 'id', value {number} not found!")
        return outlet

    def _status(self, outlet: str) -> dict[str, Any]:
        plug = self._plug
        status: dict[str, Any] = {"id": int(outlet) - 1, "source": "HTTP_in", "output": plug.on[outlet]}
        if plug.metered:
            status |= {"apower": plug.watts(outlet), "voltage": 230.1, "aenergy": {"total": plug.energy_wh[outlet]}}
        return status | {"temperature": {"tC": 41.5, "tF": 106.7}}


def _query(request: web.Request) -> dict[str, Any]:
    """Parameters of a GET are JSON where they can be."""
    found: dict[str, Any] = {}
    for key, value in request.query.items():
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


class _Netio:
    def __init__(self, plug: PlugServer) -> None:
        self._plug = plug

    def _document(self) -> web.Response:
        plug = self._plug
        outputs: list[dict[str, Any]] = []
        for outlet, on in plug.on.items():
            output = {"ID": int(outlet), "Name": f"output_{outlet}", "State": int(on), "Action": 6, "Delay": 5000}
            if plug.metered:
                output |= {"Load": int(plug.watts(outlet)), "Energy": int(plug.energy_wh[outlet]), "Current": 0}
            outputs.append(output)
        agent = {
            "Model": MODEL,
            "Version": "3.4.0",
            "JSONVer": "2.1",
            "SerialNumber": "24:A4:2C:00:00:01",
            "NumOutputs": len(outputs),
        }
        return web.json_response({"Agent": agent, "Outputs": outputs})

    async def read(self, _request: web.Request) -> web.Response:
        return self._document()

    async def write(self, request: web.Request) -> web.Response:
        try:
            wishes = [(str(wish["ID"]), wish.get("Action", MAX_CYCLE)) for wish in (await request.json())["Outputs"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            return web.Response(status=400, text="bad JSON")
        for outlet, action in wishes:
            if outlet in self._plug.on and action in {0, 1} and not self._plug.command(outlet, on=action == 1):
                return web.Response(status=500, text="output refused")
        return self._document()


class _Dli:
    """Single resources, and the matrix URIs `all;` and `=0,2`."""

    def __init__(self, plug: PlugServer) -> None:
        self._plug = plug

    async def config(self, request: web.Request) -> web.Response:
        values = {"hostname": "lpc", "version": "1.11.24.0"}
        what = request.match_info["what"]
        return web.json_response(values[what]) if what in values else web.Response(status=404)

    def _which(self, request: web.Request) -> tuple[list[str], bool]:
        """The outlets that are meant, and whether several may be."""
        which = request.match_info["which"]
        if which == "all;":
            return list(self._plug.on), True
        indexes = which.removeprefix("=").split(",")
        return [str(int(index) + 1) if index.isdigit() else "" for index in indexes], which.startswith("=")

    async def read(self, request: web.Request) -> web.Response:
        outlets, many = self._which(request)
        what = request.match_info["what"]
        if any(outlet not in self._plug.on for outlet in outlets):
            return web.Response(status=404)
        found = []
        for outlet in outlets:
            values = {
                "name": f"Outlet {outlet}",
                "state": self._asked(outlet),
                "physical_state": self._plug.on[outlet],
                "locked": outlet in self._plug.refusing,
            }
            for part in what.removeprefix("=").split(","):
                if part not in values:
                    return web.Response(status=404)
                found.append(values[part])
        if many or what.startswith("="):
            return web.json_response(found, status=207)
        return web.json_response(found[0])

    def _asked(self, outlet: str) -> bool:
        """`state` is what was last asked for, true or not."""
        return next((on for name, on in reversed(self._plug.sets) if name == outlet), self._plug.on[outlet])

    async def write(self, request: web.Request) -> web.Response:
        outlets, many = self._which(request)
        if "X-CSRF" not in request.headers:
            return web.Response(status=403, text="CSRF")
        value = parse_qs(await request.text()).get("value", [""])[0]
        if request.match_info["what"] != "state" or any(outlet not in self._plug.on for outlet in outlets):
            return web.Response(status=404)
        if value not in {"true", "false"}:
            return web.Response(status=400)
        taken = [self._plug.command(outlet, on=value == "true") for outlet in outlets]
        if not all(taken):
            return web.Response(status=409, text="locked")
        return web.Response(status=207 if many else 204)


class _Plain:
    """What labgrid's `rest` model expects of a service."""

    def __init__(self, plug: PlugServer) -> None:
        self._plug = plug

    async def read(self, request: web.Request) -> web.Response:
        outlet = request.match_info["outlet"]
        if outlet == "all":
            return web.json_response(
                {
                    "outlets": {
                        name: {"on": on, "mw": self._plug.watts(name) * 1000} for name, on in self._plug.on.items()
                    }
                }
            )
        if outlet not in self._plug.on:
            return web.Response(status=404, text="no such outlet")
        return web.Response(text=str(int(self._plug.on[outlet])))

    async def write(self, request: web.Request) -> web.Response:
        outlet, value = request.match_info["outlet"], (await request.text()).strip()
        if outlet not in self._plug.on:
            return web.Response(status=404, text="no such outlet")
        if value not in {"0", "1"}:
            return web.Response(status=400, text="0 or 1")
        return web.Response(status=200 if self._plug.command(outlet, on=value == "1") else 409, text=value)
