"""The promises of `Driver`, kept by the hub driver with both ways of switching."""

import errno

import pytest

from agent.power import conformance
from agent.power.driver_kind import find_kind
from tests.agent.power.usb_hub_rig import PLACE, context, settings
from virtual_lab.usb_hub_tree import UsbHubTree, VirtualDevice


class HubBench(conformance.DriverBench):
    """A hub of two halves; silent is one whose node and ports answer with an error of input and output."""

    outlets = ("1", "2", "3")

    def __init__(self, tree, method):
        self.tree = tree
        self.method = method
        usb2 = tree.hub(tree.root_hub(), 1, usb_version=" 2.10")
        usb3 = tree.hub(tree.root_hub(usb3=True), 1, usb_version=" 3.00")
        tree.peers(usb2, usb3)
        self.halves = (usb2, usb3)
        for number in (1, 2, 3):
            tree.plug(usb2, number, VirtualDevice(ttys=1))

    def make(self):
        return find_kind("usb_hub").driver("hub", settings(PLACE, method=self.method), context(self.tree))

    async def truth(self, outlet):
        return self.tree.vbus(self.halves[0], int(outlet))

    async def press(self, outlet, on):
        for half in self.halves:
            self.tree.write(half.ports[int(outlet)].disable, "0" if on else "1")

    async def silence(self):
        self.tree.silent = errno.ETIMEDOUT

    async def restore(self):
        self.tree.silent = 0

    async def edges(self, outlet):
        return len(self.halves[0].ports[int(outlet)].edges)


@pytest.fixture(params=["sysfs", "usb"])
def bench(request, tmp_path):
    return HubBench(UsbHubTree(tmp_path / "sys"), request.param)


@pytest.mark.parametrize("check", conformance.CHECKS)
async def test_promise(check, bench):
    await conformance.run_check(check, bench)
