"""The hub driver on virtual hubs: both ways of switching, both halves, and the hubs that do not do as told."""

import errno
import logging

import pytest

from agent.power.driver import Identifies, ReadsMany
from agent.power.driver_factory import DriverFactory
from agent.power.errors import ConfigurationError
from agent.power.journal import Journal, MemoryStore
from agent.power.service import Listeners, PowerService
from agent.power.settings import BoardFeed
from tests.agent.power.usb_hub_rig import PLACE, connections, context, settings
from udev.usb_hub_truth import Switching
from udev.usb_hubs import plugged_in, usb_hubs
from virtual_lab.usb_hub_tree import Behaviour, UsbHubTree, VirtualDevice
from wire.phases import ErrorKind, Power, PowerAction

BOX = "5cf3ee30d5074925b001802d79434c30"
PI4, PI5 = "Raspberry Pi 4 Model B Rev 1.4", "Raspberry Pi 5 Model B Rev 1.0"


@pytest.fixture
def tree(tmp_path):
    return UsbHubTree(tmp_path / "sys")


@pytest.fixture
def old(tmp_path):
    """A kernel before 6.0."""
    return UsbHubTree(tmp_path / "sys", kernel_switches=False)


@pytest.fixture
async def connect():
    async with connections() as make:
        yield make


def dual(tree, behaviour=Behaviour.PER_PORT, **properties):
    usb2 = tree.hub(tree.root_hub(), 1, usb_version=" 2.10", behaviour=behaviour, **properties)
    usb3 = tree.hub(tree.root_hub(usb3=True), 1, usb_version=" 3.00", behaviour=behaviour, **properties)
    tree.same_sockets(usb2, usb3)
    return usb2, usb3


# --- by the kernel ----------------------------------------------------------------------------------------------


async def test_off_and_on_by_the_kernel(tree, connect):
    hub = tree.hub(tree.root_hub(), 1)
    tree.plug(hub, 2, VirtualDevice(serial="BRD0001", ttys=1))
    queue = connect(tree)
    assert await queue.get("2") is Power.ON
    await queue.set("2", False)
    assert await queue.get("2") is Power.OFF
    assert "1-1.2" not in plugged_in(tree.root)
    assert [item.name for item in await queue.describe()][1] == "nothing plugged in"
    await queue.set("2", True)
    assert await queue.get("2") is Power.ON
    described = {item.outlet: (item.name, item.power) for item in await queue.describe()}
    assert described["2"] == ("0403:6001 FT232R USB UART BRD0001 ttyUSB0", Power.ON)
    assert described["all"] == ("every port", Power.ON)
    assert hub.ports[2].edges == [False, True]
    assert not any("off" in asked or "on " in asked for asked in tree.requested)
    assert await queue.read("2") is None


async def test_a_hub_is_found_again_when_its_bus_number_changed(tmp_path, connect):
    tree = UsbHubTree(tmp_path / "sys")
    tree.root_hub("pci0000:00/0000:00:1d.0")
    tree.hub(tree.root_hub(), 1, serial="HUBSER1")
    for name in (PLACE, "HUBSER1"):
        queue = connect(tree, name)
        await queue.set("1", False)
        assert await queue.get("1") is Power.OFF
        await queue.set("1", True)
    assert "2-1" in plugged_in(tree.root)


async def test_many_outlets_in_one_question(tree, connect):
    tree.hub(tree.root_hub(), 1)
    queue = connect(tree)
    await queue.set("3", False)
    assert isinstance(queue.driver, ReadsMany) and isinstance(queue.driver, Identifies)
    found = await queue.get_many(["1", "3", "9"])
    assert (found["1"], found["3"]) == (Power.ON, Power.OFF)
    assert isinstance(found["9"], ConfigurationError)
    assert await queue.driver.read_many(["1", "3"]) == {"1": None, "3": None}


@pytest.mark.parametrize("outlet", ["0", "5", "x", "", "-1", "1 ", "²", "ALL", "9" * 5000])
async def test_an_outlet_that_is_none_is_refused_with_those_that_are(tree, connect, outlet):
    tree.hub(tree.root_hub(), 1)
    for call in (connect(tree).get(outlet), connect(tree).set(outlet, True)):
        with pytest.raises(ConfigurationError, match=rf"hub {PLACE} has ports 1, 2, 3, 4; write one of them"):
            await call


# --- both halves ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["peer", "container"])
async def test_both_halves_are_switched(tree, connect, how):
    usb2, usb3 = dual(tree, container=BOX)
    if how == "peer":
        tree.peers(usb2, usb3)
    queue = connect(tree)
    for _ in range(2):
        assert f"its other half is 2-1 ({how})" in await queue.driver.identify()
    assert tree.requested.count("1-1 bos") == (how == "container")
    await queue.set("3", False)
    assert await queue.get("3") is Power.OFF
    assert not tree.vbus(usb2, 3) and tree.vbus(usb2, 1)
    usb3.ports[3].powered = True
    assert await queue.get("3") is Power.UNKNOWN, "one half is on: nothing is claimed"
    await queue.set("3", True)
    assert await queue.get("3") is Power.ON


async def test_halves_are_switched_in_an_order_that_leaves_no_half_to_fall_back_to(tree, connect):
    tree.peers(*dual(tree))
    written = []
    tree.before_write = lambda path: written.append(path.parent.name)
    queue = connect(tree)
    await queue.set("1", False)
    await queue.set("1", True)
    assert written == ["1-1-port1", "2-1-port1", "2-1-port1", "1-1-port1"]


async def test_a_half_alone_where_the_settings_say_so(tree, connect):
    usb2, usb3 = dual(tree)
    tree.peers(usb2, usb3)
    queue = connect(tree, pair=False)
    await queue.set("1", False)
    assert await queue.get("1") is Power.OFF
    assert usb3.ports[1].powered


async def test_a_half_that_cannot_switch_keeps_the_socket_on_and_that_is_said_before(tree, connect):
    usb2, usb3 = dual(tree)
    usb3.behaviour = Behaviour.NONE
    tree.peers(usb2, usb3)
    with pytest.raises(ConfigurationError, match="never switched: the hub says that it cannot"):
        await connect(tree).set("1", False)
    assert usb2.ports[1].edges == []


# --- hubs that do not do as told --------------------------------------------------------------------------------


@pytest.mark.parametrize("on", [True, False])
async def test_a_hub_without_switching_is_refused_before_it_is_tried(tree, connect, on):
    tree.hub(tree.root_hub(), 1, behaviour=Behaviour.NONE)
    written = []
    tree.before_write = written.append
    queue = connect(tree)
    for outlet in ("1", "all"):
        with pytest.raises(ConfigurationError, match=r"no power switching\); use another hub"):
            await queue.set(outlet, on)
    assert written == []
    assert await queue.get("1") is Power.ON


async def service_of(tree, outlet="hub:1", hub=PLACE, **feed):
    return PowerService(
        {"hub": settings(hub)},
        {"pi-1": BoardFeed(outlets=[outlet], min_off_s=0, verify_deadline_s=0.3, **feed)},
        journal=Journal(MemoryStore(), "boot"),
        listeners=Listeners(lambda *_: None),
        driver_factory=DriverFactory(context(tree)),
        poll_every_s=0,
    )


@pytest.mark.parametrize("readable", [True, False])
async def test_a_lying_hub_through_the_service(tree, readable):
    """Its descriptor claims per-port switching, or may not be read; the read-back tells."""
    hub = tree.hub(tree.root_hub(), 1, behaviour=Behaviour.NONE, says=Switching.PER_PORT)
    tree.plug(hub, 1, VirtualDevice(ttys=1))
    tree.readable = readable
    service = await service_of(tree)
    await service.start()
    outcome = await service.switch("pi-1", PowerAction.OFF, operation_id="1")
    await service.close()
    assert (outcome.ok, outcome.error.kind, outcome.power) == (False, ErrorKind.NOT_VERIFIED, Power.ON)


async def test_a_good_hub_through_the_service(tree):
    hub = tree.hub(tree.root_hub(), 1)
    tree.plug(hub, 1, VirtualDevice(ttys=1))
    service = await service_of(tree)
    await service.start()
    for action, power in ((PowerAction.OFF, Power.OFF), (PowerAction.CYCLE, Power.ON)):
        outcome = await service.switch("pi-1", action, operation_id=action)
        assert (outcome.ok, outcome.power) == (True, power), outcome
    await service.close()
    assert hub.ports[1].edges == [False, True]


async def test_a_hub_unplugged_while_it_is_switched_ends_in_one_error(tree):
    hub = tree.hub(tree.root_hub(), 1)
    service = await service_of(tree, attempts=1)
    await service.start()

    def pull(_path):
        tree.before_write = None
        tree.unplug(hub)

    tree.before_write = pull
    outcome = await service.switch("pi-1", PowerAction.OFF, operation_id="1")
    await service.close()
    assert (outcome.ok, outcome.error.kind, outcome.power) == (False, ErrorKind.UNREACHABLE, Power.UNKNOWN)
    assert "hub:1" in outcome.error.message


async def test_dummy_hcds_root_hub_is_known_for_what_it_is(tree, connect):
    tree.root_hub("platform/dummy_hcd.0", ports=1, driver="dummy_hcd", behaviour=Behaviour.STAYS)
    queue = connect(tree, "platform-dummy_hcd.0-usb-0:0", allow_root=True)
    with pytest.raises(ConfigurationError, match="never switched, although commands are accepted"):
        await queue.set("1", False)
    assert "ports 1: never switched" in await queue.driver.identify()


async def test_root_hubs_and_chained_chips_need_a_setting(tree, connect):
    root = tree.root_hub()
    hub = tree.hub(root, 1)
    tree.hub(hub, 4)
    place = "pci-0000:00:14.0-usb-0:0"
    with pytest.raises(ConfigurationError, match="set allow_root = true"):
        await connect(tree, place).set("2", False)
    await connect(tree, place, allow_root=True).set("2", False)
    with pytest.raises(ConfigurationError, match="set allow_chained = true"):
        await connect(tree).set("4", False)
    await connect(tree).set("all", False)
    assert [port.powered for port in hub.ports.values()] == [False, False, False, True]
    await connect(tree, allow_chained=True).set("4", False)
    assert not hub.ports[4].powered


async def test_a_ganged_hub_is_switched_as_a_whole_only(tree, connect):
    hub = tree.hub(tree.root_hub(), 1, behaviour=Behaviour.TOGETHER)
    queue = connect(tree)
    with pytest.raises(ConfigurationError, match=r"together with the hub's other ports.*write hub:all"):
        await queue.set("1", False)
    await queue.set("all", False)
    assert await queue.get("all") is Power.OFF
    await queue.set("all", True)
    hub.ports[2].powered = False
    assert await queue.get("all") is Power.UNKNOWN


async def test_raspberry_pi_4_as_a_whole(tmp_path, connect):
    tree = UsbHubTree(tmp_path / "sys", machine=PI4)
    usb2, usb3 = tree.root_hub(ports=1), tree.root_hub(usb3=True)
    tree.peers(usb2, usb3)
    via = tree.hub(usb2, 1, vendor="2109", product="3431", says=Switching.GANGED)
    tree.one_switch([via, usb3])
    queue = connect(tree)
    with pytest.raises(ConfigurationError, match=r"one switch for all four sockets of a Raspberry Pi 4.*hub:all"):
        await queue.set("2", False)
    await queue.set("all", False)
    assert not tree.vbus(via, 1) and usb2.ports[1].powered
    assert await queue.get("all") is Power.OFF


async def test_raspberry_pi_5_needs_all_its_root_hubs(tmp_path, connect):
    tree = UsbHubTree(tmp_path / "sys", machine=PI5)
    hubs = [
        tree.root_hub(f"platform/axi/1000120000.pcie/xhci-hcd.{number}", ports=1 if usb3 else 2, usb3=usb3)
        for number in (0, 1)
        for usb3 in (False, True)
    ]
    tree.one_switch(hubs)
    place = str(usb_hubs(tree.root)[0].id)
    queue = connect(tree, place)
    with pytest.raises(ConfigurationError, match="all four sockets of a Raspberry Pi 5"):
        await queue.set("1", False)
    await queue.set("all", False)
    assert not tree.vbus(hubs[0], 1)
    assert await queue.get("all") is Power.OFF


# --- past the kernel --------------------------------------------------------------------------------------------


async def test_off_and_on_by_class_requests_and_the_kernel_is_told(old, connect):
    hub = old.hub(old.root_hub(), 1)
    old.plug(hub, 1, VirtualDevice(ttys=1))
    queue = connect(old)
    await queue.set("1", False)
    assert await queue.get("1") is Power.OFF
    assert "1-1.1" not in plugged_in(old.root)
    assert old.claims == {("1-1", 1)}, "else the kernel switches it on again"
    await queue.set("1", True)
    assert await queue.get("1") is Power.ON
    assert plugged_in(old.root)["1-1.1"][1] == ("ttyUSB0",)
    assert old.claims == set()
    assert hub.ports[1].edges == [False, True]


async def test_a_port_that_cannot_be_claimed_keeps_its_device_listed_without_its_tty(old, connect):
    hub = old.hub(old.root_hub(), 1)
    old.plug(hub, 1, VirtualDevice(ttys=1))
    old.claimable = False
    queue = connect(old)
    number = plugged_in(old.root)["1-1.1"][0]
    await queue.set("1", False)
    assert await queue.get("1") is Power.OFF
    assert plugged_in(old.root)["1-1.1"] == (number, ())
    assert "FT232R USB UART (without power, still listed by the kernel)" in (await queue.describe())[0].name
    await queue.set("1", True)
    assert await queue.get("1") is Power.ON
    assert plugged_in(old.root)["1-1.1"] == (number + 1, ("ttyUSB0",))
    assert hub.ports[1].edges == [False, True]


async def test_a_liar_keeps_its_device_with_class_requests(old, connect):
    """The kernel must not drop the device of a board that was never off."""
    hub = old.hub(old.root_hub(), 1, behaviour=Behaviour.NONE, says=Switching.PER_PORT)
    old.plug(hub, 1, VirtualDevice())
    queue = connect(old)
    before = plugged_in(old.root)
    await queue.set("1", False)
    assert await queue.get("1") is Power.ON
    assert plugged_in(old.root) == before
    assert old.claims == set()


async def test_a_stale_device_that_may_not_be_stopped_is_said_and_is_no_failure(old, connect, caplog):
    hub = old.hub(old.root_hub(), 1)
    old.plug(hub, 1, VirtualDevice(ttys=1))
    old.faults = [errno.EACCES]
    queue = connect(old)
    with caplog.at_level(logging.INFO):
        await queue.set("1", False)
    assert await queue.get("1") is Power.OFF
    assert "the kernel keeps 1-1.1, which has no power" in caplog.text
    assert "ttyUSB0 (without power, still listed by the kernel)" in (await queue.describe())[0].name


async def test_the_method_can_be_set(tree, connect):
    tree.hub(tree.root_hub(), 1)
    await connect(tree, method="usb").set("1", False)
    assert "1-1 off 1" in tree.requested


async def test_a_kernel_without_the_attribute(old, connect):
    old.hub(old.root_hub(), 1)
    with pytest.raises(ConfigurationError, match=r'this kernel has no .*disable; set method = "usb"'):
        await connect(old, method="sysfs").set("1", False)
