"""DHCP of one interface as the settings want it: authoritative, as a proxy beside another server, or off; with stored
leases, router advertisements and the watch of the segment.

| mode | port 67 | port 4011 | leases | a foreign server is |
|---|---|---|---|---|
| authoritative | addresses and boot files | | stored | an alert |
| proxy | boot files for PXE and UEFI HTTP | the same | none | as it should be |
| off | | | none | as it should be |
"""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import IPv4Address

from netboot.dhcp_events import AddressConflict, SegmentEvent
from netboot.dhcp_lease_keeper import LeaseKeeper, SaveLeases
from netboot.dhcp_leases import LeasesStateError
from netboot.dhcp_options import BootFileFor
from netboot.dhcp_policy import DhcpPolicy
from netboot.dhcp_server import SERVER_PORT, DhcpServer, Policy, Watching
from netboot.dhcp_settings import DhcpBoard, DhcpSettings
from netboot.errors import NetbootStartError
from netboot.events import DhcpSeen
from netboot.proxy_dhcp import BOOT_SERVER_PORT, ProxyPolicy
from netboot.router_advert import RouterAdvertiser
from netboot.segment_frames import is_ethernet
from netboot.segment_listener import SegmentListener
from netboot.segment_watch import SegmentWatch

log = logging.getLogger(__name__)


class DhcpMode(StrEnum):
    """Who gives addresses on the board network."""

    AUTHORITATIVE = "authoritative"
    """We do, and nobody else may."""
    PROXY = "proxy"
    """Somebody else; we say what to boot."""
    OFF = "off"
    """Somebody else, who also says what to boot: see `dhcp_advice`."""


@dataclass(frozen=True, slots=True)
class DhcpDuty:
    """What is to be done on the interface. `router_advertisements` and `watch_segment` need CAP_NET_RAW; without it,
    and on what is no Ethernet, the log says so and the rest works."""

    mode: DhcpMode = DhcpMode.AUTHORITATIVE
    port: int = SERVER_PORT
    boot_server_port: int = BOOT_SERVER_PORT
    router_advertisements: bool = False
    watch_segment: bool = False


def _nothing(_: object) -> None:
    return


@dataclass(frozen=True, slots=True)
class DhcpOwner:
    """Whom the desk serves. The functions are called in the event loop and must not block. `clock` is monotonic,
    `wall_clock` Unix time, both in seconds; `leases` is what `save_leases` got last."""

    boot_file_for: BootFileFor
    on_event: Callable[[DhcpSeen], None] = _nothing
    on_alert: Callable[[SegmentEvent], None] = _nothing
    leases: Mapping[str, object] | None = None
    save_leases: SaveLeases = _nothing
    clock: Callable[[], float] = time.monotonic
    wall_clock: Callable[[], float] = time.time


class DhcpDesk:
    """DHCP, router advertisements and the watch, from `start` to `stop`.

    Raises:
        ValueError: at construction, as `DhcpPolicy`.
    """

    def __init__(self, settings: DhcpSettings, duty: DhcpDuty, owner: DhcpOwner) -> None:
        self._settings = settings
        self._duty = duty
        self._owner = owner
        self._gives = duty.mode is DhcpMode.AUTHORITATIVE
        # In the other modes too: it knows whose address is whose.
        self._policy = _policy(settings, owner, gives=self._gives)
        self._proxy = ProxyPolicy(settings, (), boot_file_for=owner.boot_file_for)
        self._keeper = LeaseKeeper(
            self._policy.leases, owner.save_leases, clock=owner.clock, wall_clock=owner.wall_clock
        )
        self._watch = SegmentWatch(
            settings.interface,
            settings.server_address,
            friends=() if self._gives else None,
            board_of=self._board_of,
        )
        self._listener = SegmentListener(
            self._watch,
            interface=settings.interface,
            occupied=self._occupied,
            on_alert=owner.on_alert,
            clock=owner.clock,
        )
        self._advertiser = RouterAdvertiser(settings.interface, owner.clock)
        self._servers = self._make_servers()

    def _make_servers(self) -> list[DhcpServer]:
        duty, alerted = self._duty, Watching(on_alert=self._owner.on_alert, boards=lambda: self._policy.boards)
        watch = self._watch if duty.watch_segment else None
        watching = replace(alerted, watch=watch, on_offer=self._offered, stored=self._keeper.stored)
        match duty.mode:
            case DhcpMode.AUTHORITATIVE:
                return [self._server(self._policy, duty.port, watching)]
            case DhcpMode.PROXY:
                boot_server = self._server(self._proxy.boot_server, duty.boot_server_port, alerted, to_sender=True)
                return [self._server(self._proxy, duty.port, watching), boot_server]
            case DhcpMode.OFF:
                return []

    def _server(self, policy: Policy, port: int, watching: Watching, *, to_sender: bool = False) -> DhcpServer:
        return DhcpServer(
            policy,
            interface=self._settings.interface,
            server_address=self._settings.server_address,
            on_event=self._owner.on_event,
            clock=self._owner.clock,
            port=port,
            watching=watching,
            to_sender=to_sender,
        )

    # --- life ---

    def start(self) -> None:
        """Serve. Must run in the event loop.

        Raises:
            DhcpStartError: a port cannot be served; nothing is left running.
        """
        try:
            for server in self._servers:
                server.start()
        except NetbootStartError:
            self._stop_serving()
            raise
        wanted: list[tuple[str, Callable[[], None]]] = []
        if self._duty.router_advertisements:
            wanted.append(("answers no router solicitations; iPXE waits 13 s for one", self._advertiser.start))
        if self._duty.watch_segment:
            wanted.append(("does not look for foreign DHCP servers and doubled addresses", self._listener.start))
        if wanted and not is_ethernet(self._settings.interface):
            log.info("%s is no Ethernet: netboot neither watches it nor advertises there", self._settings.interface)
            return
        for without, start in wanted:
            try:
                start()
            except NetbootStartError as error:
                log.warning("netboot %s: %s", without, error)

    async def stop(self) -> None:
        """Stop serving, store what is not stored. May be called twice."""
        self._stop_serving()
        await self._keeper.close()

    def _stop_serving(self) -> None:
        for server in self._servers:
            server.stop()
        self._advertiser.stop()
        self._listener.stop()

    # --- what the owner says and asks ---

    def set_boards(self, boards: Sequence[DhcpBoard]) -> None:
        """Replace the known boards.

        Raises:
            ValueError: as at construction; the old boards then stay.
        """
        self._policy.set_boards(boards)
        self._proxy.set_boards(boards)

    @property
    def joining_open(self) -> bool:
        """Whether unknown boards get an address of the pool."""
        return self._policy.joining_open

    @joining_open.setter
    def joining_open(self, is_open: bool) -> None:
        # Where another server gives the addresses we do not know who a stranger's requests come from.
        self._policy.joining_open = is_open and self._gives

    def never_join(self, macs: frozenset[str]) -> None:
        """These get no address of the pool from now on, as long as they ask under their own MAC address."""
        self._policy.never_join = macs

    def in_pool(self, address: IPv4Address) -> bool:
        """Whether `address` is one of ours for unknown boards."""
        return self._policy.in_pool(address)

    def pool_mac(self, address: IPv4Address) -> str | None:
        """Who holds a pool address now."""
        return self._policy.pool_mac(address, self._owner.clock())

    @property
    def counters(self) -> Counter[str]:
        """Since the start, by name."""
        total = self._advertiser.counters + self._listener.counters
        for server in self._servers:
            total += server.counters
        return total

    # --- what the watch asks ---

    def _offered(self, address: IPv4Address) -> None:
        if self._policy.in_pool(address):
            self._listener.check(address)

    def _occupied(self, address: IPv4Address, mac: str, now: float) -> tuple[AddressConflict, ...]:
        conflicts = self._policy.occupied(address, mac, now)
        self._keeper.stored()  # nobody waits for it: the task is the keeper's own
        return conflicts

    def _board_of(self, mac: str) -> str | None:
        board = self._policy.boards.by_mac(mac)
        return board.board if board is not None else None


def _policy(settings: DhcpSettings, owner: DhcpOwner, *, gives: bool) -> DhcpPolicy:
    if not gives:
        return DhcpPolicy(replace(settings, pool=None), (), boot_file_for=owner.boot_file_for)
    try:
        return DhcpPolicy(
            settings,
            (),
            boot_file_for=owner.boot_file_for,
            leases=owner.leases,
            now=owner.clock(),
            wall_s=owner.wall_clock(),
        )
    except LeasesStateError:
        # Boards that cannot boot are worse than boards with other addresses; a squatter is found by ARP.
        log.exception("the stored leases cannot be read: every unknown board is given an address anew")
        return DhcpPolicy(settings, (), boot_file_for=owner.boot_file_for)
