"""The IPMI driver against pyghmi's own BMC: real RMCP+ on a loopback UDP port."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import agent.power.drivers.ipmi as ipmi_module
from agent.power.controller_queue import ControllerQueue
from agent.power.driver_kind import DriverContext
from agent.power.drivers.ipmi_helper import device_in, kind_of, watts_in
from agent.power.errors import AuthenticationError, ConfigurationError, RefusedError, UnreachableError
from agent.power.kinds.ipmi import KIND, IpmiSettings
from wire.phases import Power


class Bmc:
    def __init__(self, *options):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "virtual_lab.ipmi_bmc", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "VIRTUAL_BMC_PASSWORD": "s3cret"},
        )
        self.port = json.loads(self.process.stdout.readline())["port"]

    def end(self):
        self.process.kill()
        self.process.wait(60)
        self.process.stdin.close()
        self.commands = [json.loads(line)["on"] for line in self.process.stdout]
        self.process.stdout.close()


@pytest.fixture
def bmc():
    started = []

    def make(*options):
        started.append(Bmc(*options))
        return started[-1]

    yield make
    for one in started:
        if one.process.poll() is None:
            one.end()


@pytest.fixture
async def connect(monkeypatch):
    monkeypatch.setenv("BMC_PASSWORD", "s3cret")
    queues = []

    def make(port, **changes):
        table = {"driver": "ipmi", "host": "127.0.0.1", "port": port, "username": "admin", "timeout_s": 8.0}
        settings = IpmiSettings(**{**table, "password_env": "BMC_PASSWORD", **changes})
        queue = ControllerQueue("bmc", KIND.driver("bmc", settings, DriverContext()))
        queues.append(queue)
        return queue

    yield make
    for queue in queues:
        await queue.close()


async def test_switch_read_back_watts_and_identity(bmc, connect):
    device = bmc()
    queue = connect(device.port)
    assert await queue.get("1") is Power.OFF
    assert await queue.read("1") == 4.0
    await queue.set("1", True)
    assert await queue.get("1") is Power.ON
    assert await queue.read("1") == 87.0
    await queue.set("1", False)
    assert [(d.outlet, d.power) for d in await queue.describe()] == [("1", Power.OFF)]
    assert await queue.identify() == "ipmi: IPMI 2.0, firmware 1.00, manufacturer 0, product 0, by Get Device ID"
    helper = queue.driver._helper.pid
    assert b"s3cret" not in Path(f"/proc/{helper}/cmdline").read_bytes()
    await queue.close()
    with pytest.raises(ProcessLookupError):
        os.kill(helper, 0)
    device.end()
    assert device.commands == [True, False]


async def test_a_lying_bmc_shows_in_the_read_back(bmc, connect):
    queue = connect(bmc("--lie").port)
    await queue.set("1", True)
    assert await queue.get("1") is Power.OFF


async def test_a_wrong_password(bmc, connect, monkeypatch):
    device = bmc()
    queue = connect(device.port)
    monkeypatch.setenv("BMC_PASSWORD", "wr0ng")
    with pytest.raises(AuthenticationError, match=r"bmc:1: 127.0.0.1: .*[Ii]ncorrect password") as caught:
        await queue.set("1", True)
    assert "wr0ng" not in str(caught.value)
    monkeypatch.setenv("BMC_PASSWORD", "s3cret")
    assert await queue.get("1") is Power.OFF, "a mended password is taken"
    monkeypatch.delenv("BMC_PASSWORD")
    with pytest.raises(ConfigurationError, match=r"BMC_PASSWORD is empty or not set"):
        await queue.get("1")


async def test_silence_ends_in_time_delays_nobody_and_the_next_call_works(bmc, connect):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        hung, healthy = connect(silent.getsockname()[1], timeout_s=4.0), connect(bmc().port)
        assert await healthy.get("1") is Power.OFF
        hanging = asyncio.create_task(hung.get("1"))
        for _ in range(2):
            assert await healthy.get("1") is Power.OFF
        assert not hanging.done(), "the healthy one did not wait for the other"
        with pytest.raises(UnreachableError, match=r"bmc:1: 127.0.0.1 did not answer within 4 s"):
            await hanging
        assert hung.driver._helper is None


async def test_a_cancelled_call_and_a_killed_helper_cost_nothing_more(bmc, connect, until):
    queue = connect(bmc().port)
    assert await queue.get("1") is Power.OFF
    call = asyncio.create_task(queue.driver.set("1", True))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert await queue.get("1") in {Power.ON, Power.OFF}
    queue.driver._helper.kill()
    await queue.driver._helper.wait()
    with pytest.raises(UnreachableError, match=r"helper for 127.0.0.1 ended"):
        await queue.get("1")
    assert await queue.get("1") in {Power.ON, Power.OFF}


async def test_without_the_extra(connect, monkeypatch):
    monkeypatch.setattr(ipmi_module, "find_spec", lambda _: None)
    with pytest.raises(ConfigurationError, match=r"install boardhand\[ipmi\]"):
        await connect(623).get("1")


async def test_one_outlet_only(connect):
    with pytest.raises(ConfigurationError, match="write bmc:1"):
        await connect(623).set("2", True)


async def test_a_bmc_that_says_no(connect, monkeypatch):
    queue = connect(623)

    async def refuse(_request):
        return {"error": "refused", "text": "Insufficient privilege level (completion code 0xd4)"}

    monkeypatch.setattr(queue.driver, "_exchange", refuse)
    with pytest.raises(RefusedError, match=r"bmc:1: 127.0.0.1: .*0xd4"):
        await queue.set("1", True)


def test_what_pyghmi_says():
    assert kind_of(Exception("Incorrect password provided")) == "authentication"
    assert kind_of(Exception("Unauthorized name in RAKP2")) == "authentication"
    assert kind_of(Exception("timeout")) == "unreachable"
    assert kind_of(Exception("Session no longer connected")) == "unreachable"


@given(st.binary(max_size=24))
def test_short_and_odd_answers(data):
    assert watts_in(data) is None or 0 <= watts_in(data) <= 65535
    assert device_in(data)


def test_settings_are_strict():
    good = {"driver": "ipmi", "host": "h", "username": "u", "password_env": "P"}
    assert IpmiSettings.model_validate(good).port == 623
    for wrong in ({"username": "x" * 17}, {"password_env": None}, {"password_file": "/x"}, {"privilege": "user"}):
        with pytest.raises(ValidationError):
            IpmiSettings.model_validate({**good, **wrong})
