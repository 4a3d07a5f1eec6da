"""`boardhand discover` as a process: virtual hubs, PDUs on a network, plugs on a Mosquitto, and what it writes."""

import asyncio
import json
from contextlib import AsyncExitStack

from agent.settings import load
from broker.settings import read_settings
from cli.exits import Exit
from daemon.mqtt_settings import MqttSettings
from tests.agent.discovery.old_shelly import OldShellyDouble
from tests.cli.farm_double import boardhand, boardhand_process
from virtual_lab.snmp_pdu import PduSettings, VirtualPdu
from virtual_lab.snmp_pdu_engine import V3User
from virtual_lab.tasmota_plug import TasmotaPlug
from virtual_lab.usb_hub_tree import UsbHubTree, VirtualDevice


async def test_from_nothing_to_settings(server, tmp_path):
    tree = UsbHubTree(tmp_path / "sys")
    hub = tree.hub(tree.root_hub(), 1)
    tree.plug(hub, 1, VirtualDevice(serial="BRD0001", ttys=1))
    tree.plug(hub, 2, VirtualDevice("16c0", "05df", label="USBRelay4"))
    (tmp_path / "community").write_text("a-secret-word\n")
    (tmp_path / "auth-key").write_text("a-secret-word-too\n")
    path = tmp_path / "boardhand.toml"
    words = ["discover", "--sysfs", str(tree.root), "--dev", str(tmp_path / "dev"), "--no-dns", "--no-mdns",
             "--network", "127.0.0.2/31", "--community-file", str(tmp_path / "community"),
             "--snmp-user", "operator", "--auth-key-file", str(tmp_path / "auth-key"),
             "--write", str(path), "--agent", "attic", "--listen", "4"]  # fmt: skip
    async with AsyncExitStack() as stack:
        settings = PduSettings(host="127.0.0.2", model="hpe-g2", outlets=4, read_community="a-secret-word")
        pdu = await stack.enter_async_context(VirtualPdu(settings))
        mqtt = MqttSettings(url=f"mqtt://127.0.0.1:{server}")
        plug = await stack.enter_async_context(TasmotaPlug(mqtt, "plug_1"))
        user = V3User("operator", "sha", "a-secret-word-too")
        settings = PduSettings(
            host="127.0.0.3", port=pdu.port, model="eaton-g3", outlets=4, read_community="no", users=(user,)
        )
        by_user = await stack.enter_async_context(VirtualPdu(settings))
        shelly = await stack.enter_async_context(OldShellyDouble(host="127.0.0.3"))
        words += ["--snmp-port", str(pdu.port), "--http-port", str(shelly.port)]
        done = await asyncio.to_thread(boardhand_process, *words, "--json", port=server)
        assert done.returncode == Exit.OK, done.stderr
        answer = json.loads(done.stdout)
        again = await asyncio.to_thread(boardhand_process, *words, port=server)
        assert plug.commands == []
        assert pdu.sets == by_user.sets == shelly.turns == [], "nothing is switched"
    assert "a-secret-word" not in done.stdout + done.stderr + path.read_text()
    agent = load(path)
    drivers = [one.driver for one in agent.controllers.values()]
    assert drivers == ["hid_relay", "snmp", "snmp", "rest", "tasmota"]
    assert [one.version for one in agent.controllers.values() if one.driver == "snmp"] == ["2c", "3"]
    assert agent.mqtt.url == f"mqtt://127.0.0.1:{server}"
    assert read_settings(path).mqtt == agent.mqtt
    written = {one["name"]: one for one in answer["controllers"] if one["name"]}
    assert written.keys() == agent.controllers.keys()
    assert written["plug-1"]["settings"] == {"driver": "tasmota", "topic": "plug_1"}
    assert answer["written"] == str(path)
    assert f"{path}: nothing new\n" in again.stdout
    assert again.stdout.count("(in the settings)") == 5


def test_the_manual_says_what_it_does():
    page = boardhand("discover", "--help").stdout
    assert "--probe-serial" in page
    assert "switches nothing" in page
