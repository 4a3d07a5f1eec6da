"""Brings the hub driver and a virtual tree of hubs together, for the tests of both."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from agent.power.controller_queue import ControllerQueue
from agent.power.driver_kind import DriverContext, find_kind
from agent.power.drivers.usb_hub import FILES_KEY, REQUESTS_KEY

PLACE = "pci-0000:00:14.0-usb-0:1"


def settings(hub=PLACE, **changes):
    return find_kind("usb_hub").settings.model_validate({"driver": "usb_hub", "hub": hub, **changes})


def context(tree):
    made = DriverContext(sysfs=tree.root)
    made.share(FILES_KEY, lambda: tree)
    made.share(REQUESTS_KEY, lambda: tree)
    return made


@asynccontextmanager
async def connections() -> AsyncIterator[Callable[..., ControllerQueue]]:
    """Makes queues of drivers, `make(tree, hub, **settings)`, and closes them at the end."""
    queues = []

    def make(tree, hub=PLACE, **changes):
        driver = find_kind("usb_hub").driver("hub", settings(hub, **changes), context(tree))
        queues.append(ControllerQueue("hub", driver))
        return queues[-1]

    yield make
    for queue in queues:
        await queue.close()
