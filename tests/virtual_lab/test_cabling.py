"""A cabled farm: its file, its room with plugs that move, and serial ports that carry whoever is wired to them."""

import asyncio
import json
from contextlib import AsyncExitStack

import pytest

from agent.settings import load
from virtual_lab import farm_plan
from virtual_lab.cable_room import CableRoom, Hand
from virtual_lab.cabling import Cabling, ControllerPlan, Habit, Kind
from virtual_lab.farm_plan import FarmPlan
from virtual_lab.namespace import LabError
from virtual_lab.patch_panel import PatchPanel

PATIENCE_S = 60.0
RACK = ControllerPlan("rack", Kind.SNMP, 4, 1161, model="eaton-g3", kept=["4"])
STRIP = ControllerPlan("strip", Kind.NETIO, 2, 8080)
FEEDS = {"light-1": ["rack:1"], "light-2": ["rack:2", "strip:1"]}


def cabling(**more):
    return Cabling(**{"controllers": [RACK, STRIP], "feeds": FEEDS, "consoles": {"port-1": "light-1"}, **more})


def test_it_survives_json():
    made = cabling(lights={"light-2": {"habit": Habit.SILENT.value}})
    assert Cabling.from_table(json.loads(made.to_json())) == made


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"feeds": {"light-1": ["rack:9"]}}, "there is no outlet rack:9"),
        ({"feeds": {"light-1": ["rack:1"], "light-2": ["rack:1"]}}, "two plugs"),
        ({"consoles": {"port-1": "light-1", "port-2": "light-1"}}, "one console"),
        ({"lights": {"light-1": {"habit": "noisy"}}}, "noisy"),
        ({"lights": {"light-7": {}}}, "light-7 hangs on no outlet"),
        ({"wires": []}, "wires"),
    ],
)
def test_what_cannot_be_is_refused(more, words):
    table = json.loads(cabling().to_json()) | more
    with pytest.raises(LabError, match=words):
        Cabling.from_table(table)


def plan(folder, made):
    lights = farm_plan.cabled(farm_plan.light_boards(2), [], made)
    return FarmPlan(
        folder=str(folder), sockets=str(folder), agent="lab", prefix="boardhand", prefix_length=20, qemu="", uboot="",
        kernel="", initrd="", device_tree="", joining="open", lights=lights, cabling=made,
    )  # fmt: skip


def test_the_agent_knows_the_controllers_and_no_board(tmp_path):
    made = cabling(lights={"light-2": {"habit": "silent", "first_word_s": 2.0}})
    ours = plan(tmp_path, made)
    assert FarmPlan.from_json(ours.to_json()) == ours
    assert (ours.lights[1].habit, ours.lights[1].first_word_s) == (Habit.SILENT, 2.0)
    ours.light_kernel.write_bytes(b"x")
    ours.agent_settings.write_text(farm_plan.agent_toml(ours))
    settings = load(ours.agent_settings)
    assert not settings.boards
    assert {name: table.driver for name, table in settings.controllers.items()} == {"rack": "snmp", "strip": "netio"}
    assert settings.controllers["rack"].model_dump()["keep_outlets"] == ["4"]


def test_a_farm_of_other_boards_is_refused(tmp_path):
    with pytest.raises(LabError, match="light-2"):
        farm_plan.cabled(farm_plan.light_boards(1), [], cabling())
    with pytest.raises(LabError, match="color"):
        plan(tmp_path, cabling(lights={"light-1": {"color": "red"}}))


class Machine:
    """Draws 6 W; may be stuck a while."""

    watts = 6

    def __init__(self):
        self.on = False
        self.edges = []
        self.refusals = 0

    async def feed(self, *, on):
        if self.refusals:
            self.refusals -= 1
            raise OSError("not now")
        self.on = on
        self.edges.append(on)


class Rack:
    def __init__(self, name, room):
        self.name, self.room = name, room

    def press(self, outlet, *, on):
        self.room.switched(f"{self.name}:{outlet}", on=on)


async def until(condition):
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # what is looked at has no event
            await asyncio.sleep(0.01)


@pytest.fixture
async def place():
    machines = {"light-1": Machine(), "light-2": Machine()}
    async with CableRoom(FEEDS, machines) as room:
        yield room, machines


async def test_a_board_runs_while_one_of_its_outlets_is_on(place):
    room, machines = place
    double = machines["light-2"]
    room.switched("rack:2", on=True)
    await until(lambda: double.on)
    assert (room.watts("rack:2"), room.watts("strip:1"), room.watts("rack:3")) == (6, 0, 0)
    room.switched("strip:1", on=True)
    assert (room.watts("rack:2"), room.watts("strip:1")) == (3, 3), "they share its load"
    room.switched("rack:2", on=False)
    room.switched("strip:1", on=False)
    await until(lambda: not double.on)
    assert double.edges == [True, False]
    assert machines["light-1"].edges == []
    assert room.edges == {"rack:2": 2, "strip:1": 2}


async def test_plugs_that_change_places_take_their_power_with_them(place):
    room, machines = place
    machines["light-1"].refusals = 2
    room.switched("rack:1", on=True)
    await until(lambda: machines["light-1"].on)
    room.swap("rack:1", "rack:2")
    await until(lambda: machines["light-2"].on and not machines["light-1"].on)
    with pytest.raises(ValueError, match="nothing hangs"):
        room.swap("rack:3", "rack:4")


async def test_the_hand_does_what_it_is_told(place, tmp_path):
    room, machines = place
    panel = PatchPanel({"port-1": "light-1", "port-2": "light-2"})
    async with AsyncExitStack() as stack:
        path = tmp_path / "cables"
        await Hand(path, room, panel, {"rack": Rack("rack", room)}).serve(stack)
        reader, writer = await asyncio.open_unix_connection(path)

        async def told(line):
            writer.write(line + b"\n")
            async with asyncio.timeout(PATIENCE_S):
                return json.loads(await reader.readline())

        assert (await told(b'{"do": "press", "outlet": "rack:1", "on": true}'))["on"] == ["rack:1"]
        await until(lambda: machines["light-1"].on)
        assert (await told(b'{"do": "swap", "outlets": ["rack:1", "rack:3"]}'))["ok"]
        await until(lambda: not machines["light-1"].on)
        assert (await told(b'{"do": "state"}')) == {"ok": True, "on": ["rack:1"], "edges": {"rack:1": 1}}
        assert (await told(b'{"do": "swap-consoles", "ports": ["port-1", "port-2"]}'))["ok"]
        for bad in (b"{", b"[]", b'{"do": "dance"}', b'{"do": "press", "outlet": "shelf:1", "on": true}'):
            assert not (await told(bad))["ok"]
        writer.close()
    assert not path.exists()


async def test_a_port_carries_whoever_is_wired_to_it(tmp_path):
    heard = []

    async def console(reader, writer):
        writer.write(b"QEMU speaks\n")
        heard.append(await reader.readline())
        writer.close()

    server = await asyncio.start_unix_server(console, tmp_path / "virt-1.console")
    panel = PatchPanel({"port-1": "virt-1", "port-2": "light-1"})
    await panel.open_port("port-1", tmp_path / "port-1")
    await panel.open_port("port-2", tmp_path / "port-2")
    one, into_one = await asyncio.open_unix_connection(tmp_path / "port-1")
    two, into_two = await asyncio.open_unix_connection(tmp_path / "port-2")
    await until(lambda: panel.readers("port-1") and panel.readers("port-2"))
    async with asyncio.timeout(PATIENCE_S):
        panel.plug_socket("virt-1", tmp_path / "virt-1.console")
        assert await one.readline() == b"QEMU speaks\n"
        into_one.write(b"typed\n")
        await until(lambda: heard)
        panel.said("light-1", b"light speaks\n")
        assert await two.readline() == b"light speaks\n"
        panel.swap("port-1", "port-2")
        panel.said("light-1", b"over here\n")
        assert await one.readline() == b"over here\n"
    assert heard == [b"typed\n"]
    into_one.close()
    into_two.close()
    await panel.close()
    server.close()
    assert not (tmp_path / "port-1").exists()
