"""Every driver of a network plug keeps the promises of `Driver`, by the conformance kit."""

import contextlib
import json
import os
import subprocess
import sys

import pytest

from agent.power import conformance
from agent.power.conformance_bench import DriverBench
from agent.power.driver_kind import DriverContext, find_kind
from daemon.mqtt_settings import MqttSettings
from virtual_lab.plug_login import LoginGate
from virtual_lab.plug_server import PlugServer
from virtual_lab.tasmota_plug import TasmotaPlug

SECRET, WRONG = "s3cret-s3cret", "wr0ng-wr0ng"


class PlugBench(DriverBench):
    """One kind on the virtual strip; `first` is what it calls the strip's outlet 1."""

    secrets = (SECRET, WRONG)

    def __init__(self, plug, context, kind, table, first=1):
        self.plug, self.context, self.kind, self.table = plug, context, kind, table
        self.shift = 1 - first
        self.outlets = (str(first), str(first + 1))

    def make(self, env="PLUG_SECRET"):
        kind = find_kind(self.kind)
        table = {"driver": self.kind, "timeout_s": 0.4, "username": "admin", "password_env": env, **self.table}
        return kind.driver("plug", kind.settings.model_validate(table), self.context)

    def make_unauthorised(self):
        return self.make("PLUG_WRONG")

    def name(self, outlet):
        return str(int(outlet) + self.shift)

    async def truth(self, outlet):
        return self.plug.on[self.name(outlet)]

    async def press(self, outlet, on):
        self.plug.press(self.name(outlet), on=on)

    async def silence(self):
        self.plug.deaf = True

    async def restore(self):
        self.plug.deaf = False

    async def edges(self, outlet):
        return sum(name == self.name(outlet) for name, _ in self.plug.edges)


def rest_table(url):
    power = {"url": f"{url}/power/{{outlet}}", "method": "PUT"}
    state = {"url": f"{url}/power/all", "pointer": "/outlets/{outlet}/on"}
    watts = {"pointer": "/outlets/{outlet}/mw", "scale": 0.001}
    table = {"on": {**power, "body": "1"}, "off": {**power, "body": "0"}, "state": state, "watts": watts}
    return {**table, "auth": "basic", "outlets": ["1", "2", "3"]}


PLUGS = {
    "shelly": ("sha-256", lambda url: {"url": url}, 0),
    "netio": ("basic", lambda url: {"url": url}, 1),
    "dli": ("md5", lambda url: {"url": url}, 1),
    "redfish": ("basic", lambda url: {"url": url}, 1),
    "rest": ("basic", rest_table, 1),
}


@pytest.fixture
def secret(monkeypatch):
    monkeypatch.setenv("PLUG_SECRET", SECRET)
    monkeypatch.setenv("PLUG_WRONG", WRONG)


@pytest.mark.parametrize("kind", PLUGS)
async def test_plugs_over_http(kind, secret):
    scheme, table, first = PLUGS[kind]
    context = DriverContext()
    async with PlugServer(outlets=3, gate=LoginGate(scheme, {"admin": SECRET})) as plug:
        results = await conformance.check_driver(PlugBench(plug, context, kind, table(plug.url), first))
    await context.close()
    assert len([result for result in results if result.skipped is None]) >= 15, results


class TasmotaBench(DriverBench):
    outlets = ("1", "2")

    def __init__(self, plug, context):
        self.plug, self.context = plug, context

    def make(self):
        kind = find_kind("tasmota")
        table = {"driver": "tasmota", "topic": "plug", "timeout_s": 1.0}
        return kind.driver("plug", kind.settings.model_validate(table), self.context)

    async def truth(self, outlet):
        return self.plug.on[int(outlet)]

    async def press(self, outlet, on):
        await self.plug.press(int(outlet), on=on)

    async def silence(self):
        self.plug.silent = True

    async def restore(self):
        self.plug.silent = False

    async def edges(self, outlet):
        return sum(relay == int(outlet) for relay, _ in self.plug.edges)


async def test_tasmota(mqtt):
    server = MqttSettings(url=mqtt.url)
    context = DriverContext(mqtt=server)
    async with TasmotaPlug(server, "plug", relays=3, metered="each") as plug:
        results = await conformance.check_driver(TasmotaBench(plug, context))
    await context.close()
    assert len([result for result in results if result.skipped is None]) >= 15, results


class BmcBench(DriverBench):
    """A BMC in a process of its own, so that its truth is what it printed last."""

    secrets = (SECRET, WRONG)
    can_press = can_silence = False

    def __init__(self, process):
        self.process = process
        self.port = json.loads(process.stdout.readline())["port"]
        os.set_blocking(process.stdout.fileno(), False)
        self.said = []

    def read(self):
        with contextlib.suppress(BlockingIOError):
            while line := self.process.stdout.readline():
                self.said.append(json.loads(line)["on"])

    def make(self, env="PLUG_SECRET"):
        kind = find_kind("ipmi")
        table = {"driver": "ipmi", "host": "127.0.0.1", "port": self.port, "username": "admin", "password_env": env}
        return kind.driver("bmc", kind.settings.model_validate(table), DriverContext())

    def make_unauthorised(self):
        return self.make("PLUG_WRONG")

    async def truth(self, outlet):
        self.read()
        return bool(self.said and self.said[-1])


async def test_ipmi(secret):
    process = subprocess.Popen(
        [sys.executable, "-m", "virtual_lab.ipmi_bmc"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "VIRTUAL_BMC_PASSWORD": SECRET},
    )
    try:
        results = await conformance.check_driver(BmcBench(process))
    finally:
        process.kill()
        process.wait(60)
        process.stdin.close()
        process.stdout.close()
    assert len([result for result in results if result.skipped is None]) >= 10, results
