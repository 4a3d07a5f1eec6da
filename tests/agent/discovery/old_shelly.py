"""A Shelly device of the first generation, as its documentation describes its HTTP interface."""

from aiohttp import web


class OldShellyDouble:
    """What shelly-api-docs.shelly.cloud/gen1 says of /shelly, /status, /settings, /relay/N and /meter/N."""

    def __init__(self, kind="SHPLG-S", relays=1, mode="relay", password=None, host="127.0.0.1", **status):
        self.kind, self.mode, self.password = kind, mode, password
        self.on = [False] * relays if isinstance(relays, int) else relays
        self.more = status
        self.host = host
        self.turns = []
        self.asked = []

    async def __aenter__(self):
        app = web.Application()
        app.router.add_get("/shelly", self._shelly)
        app.router.add_get("/status", self._locked(self._status))
        app.router.add_get("/settings", self._locked(lambda _: web.json_response({"mode": self.mode})))
        app.router.add_get("/relay/{n}", self._locked(self._relay))
        app.router.add_get("/meter/{n}", self._locked(self._meter))
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, self.host, 0).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_):
        await self._runner.cleanup()

    def _locked(self, handler):
        async def guarded(request):
            self.asked.append(str(request.rel_url))
            if self.password is not None and request.headers.get("Authorization") != self.password:
                return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="shelly"'})
            return handler(request)

        return guarded

    async def _shelly(self, _request):
        locked = self.password is not None
        return web.json_response({"type": self.kind, "mac": "AABBCCDDEEFF", "auth": locked, "fw": "20230913-112003"})

    def _status(self, _request):
        if self.on is None:
            raise web.HTTPInternalServerError
        relays = [{"ison": on, "has_timer": False, "is_valid": True, "source": "http"} for on in self.on]
        return web.json_response({"relays": relays, "meters": [{"power": 0.0, "is_valid": True}], **self.more})

    def _relay(self, request):
        number = int(request.match_info["n"])
        if number >= len(self.on):
            raise web.HTTPNotFound
        turn = request.query.get("turn")
        if turn is not None:
            self.turns.append((number, turn))
            self.on[number] = turn == "on"
        return web.json_response({"ison": self.on[number], "has_timer": False, "source": "http"})

    def _meter(self, request):
        return web.json_response({"power": 7.5 if self.on[int(request.match_info["n"])] else 0.0, "is_valid": True})
