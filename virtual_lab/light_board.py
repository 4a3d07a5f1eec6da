"""Light boards: boards without a machine, many in one process, for farms larger than QEMU could carry.

Each does on the wire what a real board does: DHCP and TFTP from a MAC address of its own, then the board client's
session over MQTT with the command line that it was given. Power is switched over a QMP socket, as for QEMU.

`python -m virtual_lab.light_board --plan FILE`, started by `virtual_lab.farm_inside` in the lab's network.
"""

import argparse
import asyncio
import logging
import random
import resource
import signal
import socket
import sys
import uuid
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path

from board import client
from virtual_lab import light_boot
from virtual_lab.cabling import Habit
from virtual_lab.farm_plan import FarmPlan, LightBoardPlan
from virtual_lab.light_boot import BootError, DhcpKind, DhcpReply, Download
from virtual_lab.light_client import LightClient, LightIdentity
from virtual_lab.light_network import INTERFACE, LightNetwork, join_light_board
from virtual_lab.light_power import PowerSwitch
from virtual_lab.namespace import LabError
from virtual_lab.patch_panel import PatchPanel

log = logging.getLogger(__name__)

# U-Boot sends again after 0.25 s, 0.75 s, 1.75 s ...; then it gives up and boots anew.
_DHCP_TIMEOUTS_S = (0.25, 0.5, 1.0, 2.0, 4.0)
_TFTP_TIMEOUT_S = 1.0
_TFTP_TRIES = 8
# A board that found nothing to boot tries again after this, as the loop in our U-Boot environment does.
_RETRY_S = 2.0
# What a console says: U-Boot's first line, Linux' first line, and what stands at the end.
_BANNER = b"\r\nU-Boot 2023.01 (light)\r\n\r\nDRAM:  1 MiB\r\n"
_KERNEL = b"[    0.000000] Linux version 6.1.0-light (light board)\r\n"
_PROMPT = b"\r\nlight login: "
_NO_PROMPT = b"[    9.000000] appliance: ready\r\n"
_SERVER_PORT, _CLIENT_PORT, _TFTP_PORT = 67, 68, 69


class LightBoard:
    """One light board. `power_on` and `power_off` may be called at any time, in any order."""

    def __init__(
        self,
        plan: LightBoardPlan,
        network: LightNetwork,
        qmp_socket: Path,
        say: Callable[[bytes], None] = lambda _: None,
    ) -> None:
        """`say` takes what comes out of its console."""
        self._plan = plan
        self._say = say
        self._name = plan.board
        self._mac = plan.mac
        self._network = network
        self._client: LightClient | None = None
        self._life: asyncio.Task[None] | None = None
        self._ended: asyncio.Task[None] | None = None
        self.switch = PowerSwitch(qmp_socket, self)

    @property
    def watts(self) -> int:
        """What it draws while it has power."""
        if self._client is None:
            return self._plan.boot_w
        return self._plan.busy_w if self._client.busy else self._plan.idle_w

    async def feed(self, *, on: bool) -> None:
        """Its mains come or go."""
        self.switch.feed(on)

    def power_on(self) -> None:
        """Boot."""
        self._client = None
        self._life = asyncio.create_task(self._live(self._ended), name=f"light board {self._name}")

    def power_off(self) -> None:
        """Power loss: its last words never leave the interface."""
        self._network.unplug()
        if self._life is not None:
            self._life.cancel()
            self._ended, self._life = self._life, None

    async def close(self) -> None:
        """End for good."""
        self.power_off()
        if self._ended is not None:
            await asyncio.gather(self._ended, return_exceptions=True)
        await self.switch.stop()
        self._network.close()

    async def _live(self, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None:
            await asyncio.gather(earlier, return_exceptions=True)
        await asyncio.sleep(self._plan.first_word_s)
        if self._plan.habit == Habit.SILENT:
            return
        self._say(_BANNER + (f"ethaddr={self._mac}\r\n".encode() if self._plan.says_mac else b""))
        if self._plan.habit == Habit.CONSOLE_ONLY:
            await asyncio.sleep(self._plan.boot_s)
            self._say(_KERNEL + _PROMPT)
            return
        order = ""
        while order != "poweroff":
            self._network.plug()
            try:
                order = await self._boot_and_work()
            except (BootError, client.SettingsError, OSError, TimeoutError) as error:
                log.info("%s: %s; trying again", self._name, error)
                await asyncio.sleep(_RETRY_S)
        self._network.unplug()
        self.switch.guest_ended()

    async def _boot_and_work(self) -> str:
        reply = await self._dhcp()
        self._network.configure(reply.address, reply.netmask)
        path = light_boot.configuration_path(reply.boot_file, self._mac)
        text = (await self._fetch(reply, path)).decode("utf-8", "replace")
        entry = light_boot.parse_pxe(text, reply.boot_file)
        for name in () if self._plan.own_kernel else entry.files:
            await self._fetch(reply, name)
        self._say(_KERNEL)
        await asyncio.sleep(self._plan.boot_s)
        if self._plan.habit == Habit.NO_CLIENT:
            self._say(_NO_PROMPT)
            await asyncio.Event().wait()
        settings = client.Settings(" ".join(f"{key}={value}" for key, value in entry.cmdline.items()))
        identity = LightIdentity(self._mac, self._name, str(uuid.uuid4()))
        self._client = LightClient(settings, identity, lambda: self._network.open_socket(socket.SOCK_STREAM))
        try:
            return await self._client.run()
        finally:
            self._client = None

    async def _dhcp(self) -> DhcpReply:
        """Get an address.

        Raises:
            BootError: nobody offers one.
        """
        with self._network.open_socket(socket.SOCK_DGRAM) as link:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, INTERFACE.encode() + b"\0")
            link.bind(("", _CLIENT_PORT))
            for _ in range(3):
                offer = await self._ask(link, DhcpKind.DISCOVER, None)
                if offer is None:
                    raise BootError("no DHCP offer")
                answer = await self._ask(link, DhcpKind.REQUEST, offer)
                if answer is not None and answer.kind is DhcpKind.ACK:
                    return answer
        raise BootError("no DHCP server keeps to its offer")

    async def _ask(self, link: socket.socket, kind: DhcpKind, offer: DhcpReply | None) -> DhcpReply | None:
        loop = asyncio.get_running_loop()
        transaction = random.getrandbits(32) if offer is None else offer.transaction
        wanted = {DhcpKind.OFFER} if offer is None else {DhcpKind.ACK, DhcpKind.NAK}
        message = light_boot.dhcp_message(kind, self._mac, transaction, offer)
        for timeout_s in _DHCP_TIMEOUTS_S:
            await loop.sock_sendto(link, message, ("255.255.255.255", _SERVER_PORT))
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while True:
                        reply = light_boot.parse_dhcp(await loop.sock_recv(link, 2048), self._mac, transaction)
                        if reply is not None and reply.kind in wanted:
                            return reply
        return None

    async def _fetch(self, reply: DhcpReply, path: str) -> bytes:
        """A file by TFTP.

        Raises:
            BootError: the server refuses, or does not answer.
        """
        loop = asyncio.get_running_loop()
        download = Download(path)
        packet: bytes | None = light_boot.read_request(path)
        target = (reply.next_server, _TFTP_PORT)
        silent = 0
        with self._network.open_socket(socket.SOCK_DGRAM) as link:
            while packet is not None:
                await loop.sock_sendto(link, packet, target)
                if download.finished:
                    break
                try:
                    async with asyncio.timeout(_TFTP_TIMEOUT_S):
                        packet, target = await _next_packet(link, download, target)
                    silent = 0
                except TimeoutError:
                    silent += 1
                    if silent == _TFTP_TRIES:
                        raise BootError(f"TFTP {path}: the server fell silent") from None
        return download.content


async def _next_packet(
    link: socket.socket, download: Download, target: tuple[str, int]
) -> tuple[bytes, tuple[str, int]]:
    """What to send next, and to whom: the server answers from a port of its own (RFC 1350 section 4)."""
    loop = asyncio.get_running_loop()
    while True:
        received, sender = await loop.sock_recvfrom(link, 2048)
        if sender[0] != target[0] or (target[1] != _TFTP_PORT and sender != target):
            continue
        answer = download.take(received)
        if answer is not None:
            return answer, sender


async def _run(plan: FarmPlan, networks: list[LightNetwork]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    panel = PatchPanel({} if plan.cabling is None else plan.cabling.consoles)
    boards = [
        LightBoard(light, network, plan.light_socket(light), partial(panel.said, light.board))
        for light, network in zip(plan.lights, networks, strict=True)
    ]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_close, boards)
        if plan.pdus:
            from virtual_lab import light_pdu  # brings pysnmp along, which takes a while

            fed = {light.board: board for light, board in zip(plan.lights, boards, strict=True)}
            await light_pdu.serve(plan, fed, stack)
        if plan.cabling is not None:
            from virtual_lab import cable_room

            mains = {light.board: board for light, board in zip(plan.lights, boards, strict=True)}
            await cable_room.serve(plan, plan.cabling, mains, panel, stack)
        # The agent waits for these sockets, so what is to be there before it comes first.
        for board in boards:
            await board.switch.start()
        await stop.wait()


async def _close(boards: list[LightBoard]) -> None:
    await asyncio.gather(*(board.close() for board in boards))


def main(arguments: list[str] | None = None) -> int:
    """Entry point. Only `virtual_lab.farm_inside` calls it."""
    parser = argparse.ArgumentParser(prog="virtual_lab.light_board")
    parser.add_argument("--plan", type=Path, required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # Each board holds a namespace, a listening socket, a connection and now and then one more.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    plan = FarmPlan.from_json(options.plan.read_text(encoding="utf-8"))
    try:
        networks = [join_light_board(number, light.mac) for number, light in enumerate(plan.lights)]
        asyncio.run(_run(plan, networks))
    except (LabError, OSError) as error:
        print(f"light boards: {error}", file=sys.stderr)  # noqa: T201  # a child's last words go to its log
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
