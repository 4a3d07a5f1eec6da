"""A small Redfish service over the outlets of a virtual strip: one ComputerSystem per outlet.

Schema: DMTF DSP0266 (protocol) and DSP8010 (ServiceRoot v1, ComputerSystem v1); checked against what sushy and
sushy-tools read and write. Sessions are not offered: accounts are HTTP basic.
"""

from typing import Any

from aiohttp import web

from virtual_lab.plug_server import PlugServer

ROOT = "/redfish/v1"
RESETS = {"On": True, "ForceOn": True, "ForceOff": False}


def redfish_routes(plug: PlugServer) -> list[web.RouteDef]:
    """All routes below /redfish."""
    service = _Redfish(plug)
    return [
        web.get("/redfish", service.versions),
        web.get(ROOT, service.root),
        web.get(f"{ROOT}/", service.root),
        web.get(f"{ROOT}/Systems", service.systems),
        web.get(ROOT + "/Systems/{outlet}", service.system),
        web.get(ROOT + "/Chassis/{outlet}", service.chassis),
        web.get(ROOT + "/Chassis/{outlet}/Power", service.power),
        web.post(ROOT + "/Systems/{outlet}/Actions/ComputerSystem.Reset", service.reset),
    ]


class _Redfish:
    def __init__(self, plug: PlugServer) -> None:
        self._plug = plug

    async def versions(self, _request: web.Request) -> web.Response:
        return web.json_response({"v1": f"{ROOT}/"})

    async def root(self, _request: web.Request) -> web.Response:
        return web.json_response(
            {
                "@odata.type": "#ServiceRoot.v1_5_0.ServiceRoot",
                "@odata.id": f"{ROOT}/",
                "Id": "RootService",
                "Name": "Root Service",
                "RedfishVersion": "1.5.0",
                "Product": "virtual strip",
                "UUID": "00000000-0000-4000-8000-000000000001",
                "Systems": {"@odata.id": f"{ROOT}/Systems"},
                "Links": {},
            }
        )

    async def systems(self, _request: web.Request) -> web.Response:
        members = [{"@odata.id": f"{ROOT}/Systems/{outlet}"} for outlet in self._plug.on]
        return web.json_response(
            {
                "@odata.type": "#ComputerSystemCollection.ComputerSystemCollection",
                "@odata.id": f"{ROOT}/Systems",
                "Name": "Computer System Collection",
                "Members@odata.count": len(members),
                "Members": members,
            }
        )

    async def system(self, request: web.Request) -> web.Response:
        outlet = request.match_info["outlet"]
        if outlet not in self._plug.on:
            return _error(404, "Base.1.0.ResourceMissingAtURI", "there is no such system")
        path = f"{ROOT}/Systems/{outlet}"
        body: dict[str, Any] = {
            "@odata.type": "#ComputerSystem.v1_10_0.ComputerSystem",
            "@odata.id": path,
            "Id": outlet,
            "Name": f"system {outlet}",
            "PowerState": self._plug.power_states.get(outlet) or ("On" if self._plug.on[outlet] else "Off"),
            "Status": {"State": "Enabled", "Health": "OK"},
            "Links": {"Chassis": [{"@odata.id": f"{ROOT}/Chassis/{outlet}"}]},
            "Actions": {
                "#ComputerSystem.Reset": {
                    "target": f"{path}/Actions/ComputerSystem.Reset",
                    "ResetType@Redfish.AllowableValues": ["On", "ForceOff", "ForceRestart"],
                }
            },
        }
        return web.json_response(body)

    async def chassis(self, request: web.Request) -> web.Response:
        outlet = request.match_info["outlet"]
        if outlet not in self._plug.on:
            return _error(404, "Base.1.0.ResourceMissingAtURI", "there is no such chassis")
        path = f"{ROOT}/Chassis/{outlet}"
        body: dict[str, Any] = {
            "@odata.type": "#Chassis.v1_8_0.Chassis",
            "@odata.id": path,
            "Id": outlet,
            "Name": f"chassis {outlet}",
            "ChassisType": "RackMount",
        }
        if self._plug.metered:
            body["Power"] = {"@odata.id": f"{path}/Power"}
        return web.json_response(body)

    async def power(self, request: web.Request) -> web.Response:
        outlet = request.match_info["outlet"]
        if outlet not in self._plug.on or not self._plug.metered:
            return _error(404, "Base.1.0.ResourceMissingAtURI", "nothing is measured")
        return web.json_response(
            {
                "@odata.type": "#Power.v1_5_0.Power",
                "@odata.id": f"{ROOT}/Chassis/{outlet}/Power",
                "Id": "Power",
                "Name": "Power",
                "PowerControl": [{"MemberId": "0", "PowerConsumedWatts": self._plug.watts(outlet)}],
            }
        )

    async def reset(self, request: web.Request) -> web.Response:
        outlet = request.match_info["outlet"]
        if outlet not in self._plug.on:
            return _error(404, "Base.1.0.ResourceMissingAtURI", "there is no such system")
        kind = (await request.json()).get("ResetType")
        self._plug.resets.append((outlet, str(kind)))
        if kind not in RESETS:
            return _error(400, "Base.1.0.ActionParameterNotSupported", f"ResetType {kind}")
        if not self._plug.command(outlet, on=RESETS[kind]):
            return _error(409, "Base.1.0.GeneralError", "the system refuses")
        return web.Response(status=204)


def _error(status: int, code: str, message: str) -> web.Response:
    """An extended error, DSP0266 section 8.6."""
    return web.json_response({"error": {"code": code, "message": message}}, status=status)
