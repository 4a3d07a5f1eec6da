"""The virtual plugs, asked and switched by foreign programs: curl, mosquitto_pub and mosquitto_sub."""

import asyncio
import json
import signal
import sys

import pytest

from daemon.mqtt_settings import MqttSettings
from virtual_lab.plug_login import LoginGate
from virtual_lab.plug_server import PlugServer
from virtual_lab.tasmota_plug import TasmotaPlug


async def run(*program, stdin=None):
    process = await asyncio.create_subprocess_exec(
        *program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            out, complaint = await process.communicate(stdin)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaint.decode()
    return out.decode()


async def curl(*options):
    """Body and status."""
    answer = await run("curl", "-s", "-S", "--noproxy", "*", "-m", "10", "-w", "\n%{http_code}", *options)
    body, _, status = answer.rpartition("\n")
    return body, int(status)


async def test_curl_switches_a_shelly():
    async with PlugServer(outlets=2, gate=LoginGate("sha-256", {"admin": "s3cret"})) as plug:
        who = ("--digest", "-u", "admin:s3cret")
        body, status = await curl(*who, "-d", '{"id":1,"on":true}', f"{plug.url}/rpc/Switch.Set")
        assert (json.loads(body), status) == ({"was_on": False}, 200)
        assert plug.edges == [("2", True)]
        body, _ = await curl(*who, f"{plug.url}/rpc/Switch.Set?id=0&on=true")
        assert json.loads(body) == {"was_on": False}
        frame = '{"id":7,"method":"Switch.GetStatus","params":{"id":0}}'
        body, _ = await curl(*who, "-d", frame, f"{plug.url}/rpc")
        answer = json.loads(body)
        assert (answer["id"], answer["result"]["output"], answer["result"]["apower"]) == (7, True, 12.5)
        body, _ = await curl(*who, "-d", frame.replace('"id":0', '"id":5'), f"{plug.url}/rpc")
        assert json.loads(body)["error"]["code"] == -105
        _, status = await curl("--digest", "-u", "admin:wrong", f"{plug.url}/rpc/Switch.GetStatus?id=0")
        assert status == 401


async def test_curl_switches_a_netio():
    async with PlugServer(gate=LoginGate("basic", {"netio": "w", "r": "r"}), readers=frozenset({"r"})) as plug:
        wish = '{"Outputs":[{"ID":2,"Action":1},{"ID":3,"Action":6}]}'
        body, status = await curl("-u", "netio:w", "-d", wish, f"{plug.url}/netio.json")
        assert status == 200
        assert [output["State"] for output in json.loads(body)["Outputs"]] == [0, 1, 0, 0]
        assert plug.edges == [("2", True)]
        assert (await curl("-u", "r:r", "-d", wish, f"{plug.url}/netio.json"))[1] == 403
        assert (await curl("-u", "r:r", f"{plug.url}/netio.json"))[1] == 200
        assert (await curl("-u", "netio:w", "-d", "{", f"{plug.url}/netio.json"))[1] == 400


async def test_curl_switches_a_digital_loggers_as_its_page_says():
    async with PlugServer(outlets=8, gate=LoginGate("md5", {"admin": "1234"})) as plug:
        outlets = f"{plug.url}/restapi/relay/outlets"
        who = ("--digest", "-u", "admin:1234")
        put = (*who, "-X", "PUT", "-H", "X-CSRF: x", "--data", "value=true")
        assert await curl(*put, f"{outlets}/2/state/") == ("", 204)
        assert plug.edges == [("3", True)], "the third: the API counts from 0"
        assert (await curl(*put, f"{outlets}/=0,4/state/"))[1] == 207
        body, status = await curl(*who, "-H", "Accept:application/json", f"{outlets}/all;/physical_state/")
        assert (json.loads(body), status) == ([True, False, True, False, True, False, False, False], 207)
        body, _ = await curl(*who, f"{outlets}/=1,2/=name,physical_state/")
        assert json.loads(body) == ["Outlet 2", False, "Outlet 3", True]
        assert (await curl(*put, f"{outlets}/8/state/"))[1] == 404
        assert (await curl(*who, "-X", "PUT", "--data", "value=true", f"{outlets}/2/state/"))[1] == 403


async def test_curl_switches_labgrids_rest_and_redfish():
    async with PlugServer(outlets=2) as plug:
        assert await curl("-X", "PUT", "-d", "1", f"{plug.url}/power/1") == ("1", 200)
        assert await curl(f"{plug.url}/power/1") == ("1", 200)
        assert (await curl("-X", "PUT", "-d", "x", f"{plug.url}/power/1"))[1] == 400
        assert (await curl(f"{plug.url}/power/3"))[1] == 404
        system = f"{plug.url}/redfish/v1/Systems/1"
        assert json.loads((await curl(system))[0])["PowerState"] == "On"
        reset = ("-H", "Content-Type: application/json", "-d")
        assert (await curl(*reset, '{"ResetType":"ForceOff"}', f"{system}/Actions/ComputerSystem.Reset"))[1] == 204
        assert json.loads((await curl(system))[0])["PowerState"] == "Off"
        assert (await curl(*reset, '{"ResetType":"Nmi"}', f"{system}/Actions/ComputerSystem.Reset"))[1] == 400


async def test_mosquitto_switches_a_tasmota(mqtt):
    port = str(mqtt.port)

    async def publish(word, *payload):
        await run("mosquitto_pub", "-p", port, "-t", f"cmnd/plug/{word}", *payload)

    async with TasmotaPlug(MqttSettings(url=mqtt.url), "plug", relays=2, metered="each") as plug:
        listening = await asyncio.create_subprocess_exec(
            "mosquitto_sub", "-p", port, "-t", "stat/plug/#", "-t", "tele/plug/LWT", "-v", "-C", "8", "-W", "15",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            assert await listening.stdout.readline() == b"tele/plug/LWT Online\n", "retained: it has subscribed"
            await publish("POWER2", "-m", "ON")
            await publish("Power2", "-n")
            await publish("STATUS", "-m", "10")
            await publish("POWER3", "-m", "ON")
            await publish("POWER2", "-m", "toggle")
            heard = (await listening.communicate())[0].decode().splitlines()
        assert plug.edges == [(2, True), (2, False)]
        assert heard[:2] == heard[2:4] == ['stat/plug/RESULT {"POWER2": "ON"}', "stat/plug/POWER2 ON"]
        assert json.loads(heard[4].removeprefix("stat/plug/STATUS10 "))["StatusSNS"]["ENERGY"]["Power"] == [0, 12.0]
        assert heard[5:] == ['stat/plug/RESULT {"POWER2": "OFF"}', "stat/plug/POWER2 OFF"]
    last = await run("mosquitto_sub", "-p", port, "-t", "tele/plug/LWT", "-C", "1", "-W", "10")
    assert last == "Offline\n"


async def test_as_a_program():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "virtual_lab.plug_server", "--outlets", "2",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            url = json.loads(await process.stdout.readline())["url"]

            async def control(line):
                process.stdin.write(line.encode() + b"\n")
                return json.loads(await process.stdout.readline())

            assert (await control('{"do": "press", "outlet": "2", "on": true}'))["on"] == {"1": False, "2": True}
            assert await curl(f"{url}/power/2") == ("1", 200)
            assert (await control('{"do": "lie", "outlets": ["2"]}'))["ok"]
            await curl("-X", "PUT", "-d", "0", f"{url}/power/2")
            assert (await control('{"do": "state"}'))["on"]["2"] is True
            for bad in ("{", '{"do": "jump"}', '{"do": "press", "outlet": "9"}', "[]"):
                assert not (await control(bad))["ok"]
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("line", ["{", '{"do": "jump"}', '{"do": "press"}', "3"])
def test_bad_control_lines_of_the_tasmota_are_answered(line):
    plug = TasmotaPlug(MqttSettings(), "plug")
    assert plug.control(line)["ok"] is False
    assert plug.control('{"do": "press", "relay": 1, "on": true}')["on"] == {"1": True}
