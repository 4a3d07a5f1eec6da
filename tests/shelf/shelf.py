"""A shelf: two boards, a PDU that feeds them, and the switch that joins them to a host. Nobody has written down what
hangs where.

`python -m tests.shelf.shelf FOLDER NAMESPACE` runs until its standard input ends; the host gets `eth1` in its network
namespace. Boards and PDU live in a namespace of their own. One line on standard output says that all is there.
"""

import asyncio
import os
import socket
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from pyroute2 import IPRoute

from virtual_lab import boot_artifacts, network, qemu_board
from virtual_lab.lab_tools import cache_folder, find_tools
from virtual_lab.namespace import enter_private_network, inside
from virtual_lab.network import Cable, CableEnd, CableKind
from virtual_lab.qemu_board import QemuBoard, QemuBoardSpec
from virtual_lab.snmp_pdu import PduSettings, VirtualPdu, qmp_hook

PDU_ADDRESS = "10.77.0.10"
SNMP_PORT = 161
MAC_OF_OUTLET = {"3": "52:54:00:77:00:03", "6": "52:54:00:77:00:06"}


class ShelfPdu(VirtualPdu):
    """Its meters read what hangs there."""

    def watts(self, outlet: str) -> int:
        return 4 if self.on[outlet] and outlet in MAC_OF_OUTLET else 0


def lay(host_network: int) -> list[Cable]:
    """The switch with the PDU's address on it, the cable to the host, and one to each board."""
    enter_private_network()
    network.build_bridge(PDU_ADDRESS)
    with IPRoute() as routes:
        routes.link("add", ifname="up0", kind="veth", peer={"ifname": "eth1", "net_ns_fd": host_network})
    network.join_bridge("up0")
    with inside(host_network):
        network.switch_off_tx_checksum("eth1")  # no card is there that would fill it in
    ends = [CableEnd(mac, queue_frames=16) for mac in MAC_OF_OUTLET.values()]
    return network.lay_cables(ends, CableKind.TAP if network.tap_is_possible() else CableKind.VETH)


async def run(folder: Path, specs: dict[str, QemuBoardSpec], cables: list[Cable]) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin.fileno(), ended.set)
    settings = PduSettings(host=PDU_ADDRESS, port=SNMP_PORT, outlets=8, model="eaton-g3", write_community="private")
    async with AsyncExitStack() as stack:
        for spec, cable in zip(specs.values(), cables, strict=True):
            board = QemuBoard(spec, find_tools(), cable)
            stack.push_async_callback(board.stop)
            await board.start()
        hook = qmp_hook({outlet: spec.qmp_socket for outlet, spec in specs.items()})
        await stack.enter_async_context(ShelfPdu(settings, hook=hook))
        sys.stdout.write("there\n")
        sys.stdout.flush()
        await ended.wait()


def main() -> None:
    folder, host = Path(sys.argv[1]), os.open(sys.argv[2], os.O_RDONLY | os.O_CLOEXEC)
    tree = boot_artifacts.get(cache_folder(), find_tools(), lambda *_: None).device_tree
    specs = {}
    for outlet, mac in MAC_OF_OUTLET.items():
        spec = QemuBoardSpec(f"of-outlet-{outlet}", mac, folder / outlet, folder, own_environment=False)
        qemu_board.prepare(spec, tree)
        specs[outlet] = spec
    cables = lay(host)
    asyncio.run(run(folder, specs, cables))


if __name__ == "__main__":
    socket.setdefaulttimeout(30)
    main()
