"""Netboot of one interface: DHCP, TFTP, HTTP, boot files and boot secrets wired together. Knows no MQTT, no power."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from netboot.board_addresses import ANY, by_ipv6, host_has_ipv6
from netboot.boot_files import boot_file_for
from netboot.boot_secrets import Verdict
from netboot.boot_tree import BootTree, TreeClient
from netboot.dhcp_desk import DhcpDesk, DhcpDuty, DhcpOwner
from netboot.dhcp_events import SegmentEvent
from netboot.dhcp_lease_keeper import SaveLeases
from netboot.dhcp_options import ClientKind, named_to
from netboot.dhcp_settings import DhcpBoard, DhcpSettings
from netboot.events import NetbootEvent
from netboot.file_desk import FileDesk, RootWords
from netboot.http_boot import HttpBoot
from netboot.secret_keeper import SaveSecrets, SecretKeeper
from netboot.server_settings import NetbootBoard, NetbootConfig
from netboot.tftp_process import WorkerConfig
from netboot.tftp_workers import TftpWorkers
from wire.names import normal_mac

__all__ = ["NetbootBoard", "NetbootConfig", "NetbootServer", "NetbootState", "SaveSecrets"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NetbootState:
    """What outlives a restart beside the secrets: `leases` is what `save_leases` got last."""

    leases: Mapping[str, object] | None = None
    save_leases: SaveLeases = lambda _: None


class NetbootServer:
    """Serves one interface from `start` to `stop`.

    `on_event` and `on_alert` run in the event loop and must not block.

    `save_secrets` gets the whole state as plain JSON values; it
    may be a plain function or a coroutine function (`async def`), and it has returned before a file with a new secret
    leaves, so that a kill right after voids nothing.

    Raises:
        ValueError: at construction, when boards or pool contradict each other; the message names the board.
        SecretsStateError: `secrets_state` cannot be read.
    """

    def __init__(
        self,
        config: NetbootConfig,
        boards: Sequence[NetbootBoard],
        *,
        on_event: Callable[[NetbootEvent], None],
        secrets_state: dict[str, object] | None,
        save_secrets: SaveSecrets,
        state: NetbootState = NetbootState(),
        on_alert: Callable[[SegmentEvent], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._owner_on_event = on_event
        self._secrets = SecretKeeper(secrets_state, save_secrets)
        self._files = FileDesk(config, self._secrets, joining=self._joining_client, on_event=self._on_event)
        self._boards: dict[str, NetbootBoard] = {}
        self._dhcp = DhcpDesk(
            self._dhcp_settings(),
            DhcpDuty(
                config.dhcp,
                config.dhcp_port,
                router_advertisements=config.router_advertisements,
                watch_segment=config.watch_segment,
            ),
            DhcpOwner(
                boot_file_for=self._boot_file,
                on_event=self._on_event,
                on_alert=on_alert,
                leases=state.leases,
                save_leases=state.save_leases,
                clock=clock,
            ),
        )
        self.set_boards(boards)
        address6 = ANY if config.ipv6 and host_has_ipv6() else None
        self._tftp = TftpWorkers(
            WorkerConfig(
                address=str(config.server_address),
                address6=address6,
                port=config.tftp_port,
                interface=config.interface,
                max_window=config.tftp_window,
                workers=config.tftp_workers,
                cache_bytes=config.tftp_cache_mib << 20,
            ),
            answer=self._files.decide,
            on_done=self._files.done,
            on_refusal=self._files.worker_refused,
        )
        self.tftp_port = config.tftp_port
        self._http = HttpBoot(config.server_address, config.http_port, config.interface, self._files, address6=address6)

    def _dhcp_settings(self) -> DhcpSettings:
        config = self._config
        return DhcpSettings(
            interface=config.interface,
            server_address=config.server_address,
            network=config.network,
            lease_s=config.lease_s,
            router=config.router or config.server_address,
            dns=config.dns,
            pool=config.pool,
            joining_boot_file=config.joining_profile.boot_file if config.joining_profile is not None else "",
        )

    # --- life ---

    async def start(self) -> None:
        """Serve DHCP, TFTP and HTTP.

        Raises:
            NetbootStartError: an interface or port cannot be served; nothing is left running.
        """
        self.tftp_port = await self._tftp.start()
        try:
            await self._http.start()
            self._dhcp.start()
        except OSError:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop serving, store what is not stored. May be called twice."""
        await self._dhcp.stop()
        await self._tftp.stop()
        await self._http.stop()
        await self._secrets.close()

    # --- what the owner says ---

    def set_boards(self, boards: Sequence[NetbootBoard]) -> None:
        """Replace the known boards; transfers under way go on.

        Raises:
            ValueError: as at construction; the old boards then stay.
        """
        names = [board.board for board in boards]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"board {name} stands twice")
        ipv6 = by_ipv6(boards)
        self._dhcp.set_boards([DhcpBoard(b.board, b.macs, b.address, b.profile.boot_file) for b in boards])
        self._boards = {board.board: board for board in boards}
        self._files.ipv6 = ipv6
        self._files.tree = BootTree(
            {
                b.address: TreeClient(b.board, b.macs, b.address, b.profile, b.uuid, b.serial, b.staged or b.board)
                for b in boards
            },
            staging=self._config.staged is not None,
        )

    def follow(self, config: NetbootConfig) -> None:
        """Another profile for who joins, another word to boards about MQTT. Everything else of `config` is what it was
        at construction: sockets and leases are made of it."""
        self._config = replace(
            self._config, joining_profile=config.joining_profile, mqtt_for_boards=config.mqtt_for_boards
        )
        self._files.config = self._config

    def give_roots(self, words: RootWords) -> None:
        """Have boards' roots made ready by `words` before their boot file goes out."""
        self._files.root_words = words

    def set_joining(self, open: bool) -> None:  # noqa: A002, FBT001  # the contract's name
        """Whether unknown boards get an address and the joining profile. Closed at first."""
        self._dhcp.joining_open = open and self._config.joining_profile is not None

    @property
    def joining_open(self) -> bool:
        """Whether unknown boards get an address and the joining profile."""
        return self._dhcp.joining_open

    def never_join(self, macs: frozenset[str]) -> None:
        """Unknown boards that get nothing, also while joining is open."""
        self._dhcp.never_join(macs)

    def new_boot(self, board: str) -> None:
        """The board's power was switched on: a secret that was fetched before and not used is void."""
        self._secrets.new_boot(board)

    def verify(self, board: str, boot_id: str, mac: str, proof: str, message: bytes) -> Verdict:
        """Judge a registration; `message` is what the proof signs (`wire.payloads.registration_message`).

        Raises:
            OSError: what the plain function `save_secrets` raised; the verdict stands in memory.
        """
        known = self._boards.get(board)
        if known is None:
            return Verdict.UNKNOWN_BOARD
        try:
            if normal_mac(mac) not in known.macs:
                return Verdict.WRONG_MAC
        except ValueError:
            return Verdict.WRONG_MAC
        return self._secrets.verify(board, boot_id, proof, message)

    def stats(self) -> dict[str, int]:
        """Counters since the start, by name."""
        worker = {f"tftp_{name}": count for name, count in self._tftp.counters.items()} | self._http.counters
        counts = self._files.counts
        own = {
            **counts,
            "tftp_restarts": self._tftp.restarts,
            "tftp_asked": self._files.waiting,
            "tftp_pump_native": int(self._tftp.pump == "native"),
        }
        return {**worker, **self._dhcp.counters, **own, "tftp_refused": counts["tftp_refused"]}

    @property
    def http_port(self) -> int | None:
        """The port that is served by HTTP, None for none."""
        return self._http.port

    @property
    def tftp_pid(self) -> int | None:
        """The worker's process id, None while it is being started again."""
        return self._tftp.pid

    # --- what the servers ask ---

    def _on_event(self, event: NetbootEvent) -> None:
        try:
            self._owner_on_event(event)
        except Exception:  # a fault of the owner's must not stop DHCP or TFTP for all boards
            log.exception("the owner of netboot failed on %s", type(event).__name__)

    def _boot_file(self, board: str | None, kind: ClientKind) -> str | None:
        """What DHCP names to `board` (None: one that may join) while a boot program of this kind asks."""
        known = self._boards.get(board) if board is not None else None
        profile = known.profile if known is not None else self._config.joining_profile if board is None else None
        name = boot_file_for(profile, kind) if profile is not None else None
        return named_to(kind, name, self._config.server_address, self.http_port)

    def _joining_client(self, address: IPv4Address) -> TreeClient | None:
        profile = self._config.joining_profile
        if profile is None or not self._dhcp.joining_open or not self._dhcp.in_pool(address):
            return None
        mac = self._dhcp.pool_mac(address)
        return TreeClient(None, (mac,) if mac is not None else (), address, profile)
