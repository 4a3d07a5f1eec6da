"""Netboot of one interface: DHCP, TFTP, boot files and boot secrets wired together. Knows no MQTT and no power."""

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from netboot.boot_files import BootIdentity, ipxe_script, pxe_file, script_image, uboot_script
from netboot.boot_secrets import BootSecrets, Verdict
from netboot.boot_tree import BootTree, GeneratedFile, Refused, TreeClient
from netboot.dhcp_policy import DhcpBoard, DhcpPolicy, DhcpSettings
from netboot.dhcp_server import DhcpServer
from netboot.errors import SecretsNotSavedError
from netboot.events import FileFailed, FileRefused, FileRequested, FileSent, NetbootEvent, Role
from netboot.profile import BootProfile
from netboot.tftp_packet import ERROR_ACCESS, ERROR_NOT_FOUND, ERROR_UNDEFINED
from netboot.tftp_process import (
    Answer,
    Done,
    Question,
    SendBytes,
    SendError,
    SendFile,
    TftpProcess,
    WorkerConfig,
    WorkerRefusal,
)
from wire.names import is_id, normal_mac

log = logging.getLogger(__name__)

MAX_LOGGED_SOURCES = 1024
"""Each source of refused requests is logged once; beyond so many, all are only counted."""

SaveSecrets = Callable[[dict[str, object]], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class NetbootBoard:
    """A board that is known on this network.

    Raises:
        ValueError: the id or a MAC address cannot be used.
    """

    board: str
    macs: tuple[str, ...]
    address: IPv4Address
    profile: BootProfile
    uuid: str | None = None

    def __post_init__(self) -> None:
        if not is_id(self.board):
            raise ValueError(f"{self.board!r} is not an id: use a-z, 0-9 and '-', at most 63 characters")
        object.__setattr__(self, "macs", tuple(normal_mac(mac) for mac in self.macs))


@dataclass(frozen=True, slots=True)
class NetbootConfig:
    """One board network. `mqtt_for_boards` is `host:port` as the boards reach it. `pool` serves unknown boards while
    joining is open, with `joining_profile`. `router` None: the server itself."""

    agent: str
    interface: str
    server_address: IPv4Address
    network: IPv4Network
    pool: tuple[IPv4Address, IPv4Address] | None
    mqtt_for_boards: str
    prefix: str
    joining_profile: BootProfile | None
    dhcp_port: int = 67
    tftp_port: int = 69
    lease_s: int = 600
    router: IPv4Address | None = None
    dns: tuple[IPv4Address, ...] = ()


@dataclass(frozen=True, slots=True)
class _Asked:
    board: str | None
    client: str
    path: str
    role: Role


class NetbootServer:
    """Serves one interface from `start` to `stop`.

    `on_event` runs in the event loop and must not block. `save_secrets` gets the whole state as plain JSON values; it
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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._owner_on_event = on_event
        self._save_secrets = save_secrets
        self._saves_later = inspect.iscoroutinefunction(save_secrets)
        self._clock = clock
        self._secrets = BootSecrets(secrets_state)
        self._unsaved = False
        self._saving = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: dict[int, _Asked] = {}
        self._counts = {"tftp_files_sent": 0, "tftp_transfers_failed": 0, "tftp_refused": 0, "tftp_missing": 0}
        self._logged_sources: set[str] = set()
        self._boards: dict[str, NetbootBoard] = {}
        self._tree = BootTree({})
        self._policy = DhcpPolicy(self._dhcp_settings(), ())
        self.set_boards(boards)
        self._dhcp = DhcpServer(
            self._policy,
            interface=config.interface,
            server_address=config.server_address,
            on_event=self._on_event,
            clock=clock,
            port=config.dhcp_port,
        )
        self._tftp = TftpProcess(
            WorkerConfig(address=str(config.server_address), port=config.tftp_port, interface=config.interface),
            answer=self._decide,
            on_done=self._done,
            on_refusal=self._worker_refused,
        )
        self.tftp_port = config.tftp_port

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
        """Serve DHCP and TFTP.

        Raises:
            NetbootStartError: an interface or port cannot be served; nothing is left running.
        """
        self.tftp_port = await self._tftp.start()
        try:
            self._dhcp.start()
        except OSError:
            await self._tftp.stop()
            raise

    async def stop(self) -> None:
        """Stop serving, store what is not stored. May be called twice."""
        self._dhcp.stop()
        await self._tftp.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._unsaved:
            await self._save()

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
        self._policy.set_boards([DhcpBoard(b.board, b.macs, b.address, b.profile.boot_file) for b in boards])
        self._boards = {board.board: board for board in boards}
        self._tree = BootTree({b.address: TreeClient(b.board, b.macs, b.address, b.profile, b.uuid) for b in boards})

    def set_joining(self, open: bool) -> None:  # noqa: A002, FBT001  # the contract's name
        """Whether unknown boards get an address and the joining profile. Closed at first."""
        self._policy.joining_open = open and self._config.joining_profile is not None

    def new_boot(self, board: str) -> None:
        """The board's power was switched on: a secret that was fetched before and not used is void."""
        if self._secrets.new_boot(board):
            self._store()

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
        verdict = self._secrets.verify(board, boot_id, proof, message)
        if verdict is Verdict.OK:
            self._store()
        return verdict

    def stats(self) -> dict[str, int]:
        """Counters since the start, by name."""
        worker = {f"tftp_{name}": count for name, count in self._tftp.counters.items()}
        own = {**self._counts, "tftp_restarts": self._tftp.restarts, "tftp_asked": len(self._asked)}
        return {**worker, **self._dhcp.counters, **own, "tftp_refused": self._counts["tftp_refused"]}

    @property
    def tftp_pid(self) -> int | None:
        """The worker's process id, None while it is being started again."""
        return self._tftp.pid

    # --- secrets ---

    def _store(self) -> None:
        self._unsaved = True
        if not self._saves_later:
            self._save_secrets(self._secrets.state())
            self._unsaved = False
            return
        task = asyncio.get_running_loop().create_task(self._save_and_log(), name="netboot-save-secrets")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _save_and_log(self) -> None:
        try:
            await self._save()
        except SecretsNotSavedError:
            log.exception("the boot secrets stay unsaved until the next file is fetched")

    async def _save(self) -> None:
        """Store the state if it has changed; on return it is stored, also where another task did it."""
        async with self._saving:
            if not self._unsaved:
                return
            self._unsaved = False
            try:
                result = self._save_secrets(self._secrets.state())
                if result is not None:
                    await result
            except Exception as error:  # whatever the owner's store raises, the secret must not leave
                self._unsaved = True
                raise SecretsNotSavedError(f"cannot store the boot secrets: {error}") from error

    # --- TFTP ---

    def _on_event(self, event: NetbootEvent) -> None:
        try:
            self._owner_on_event(event)
        except Exception:  # a fault of the owner's must not stop DHCP or TFTP for all boards
            log.exception("the owner of netboot failed on %s", type(event).__name__)

    def _joining_client(self, address: IPv4Address) -> TreeClient | None:
        profile = self._config.joining_profile
        if profile is None or not self._policy.joining_open or not self._policy.in_pool(address):
            return None
        mac = self._policy.pool_mac(address, self._clock())
        return TreeClient(None, (mac,) if mac is not None else (), address, profile)

    async def _decide(self, question: Question) -> Answer:
        address = IPv4Address(question.client)
        found = self._tree.look_up(address, question.path, joining=self._joining_client(address))
        if isinstance(found, Refused):
            return self._refuse(question, found)
        board = found.client.board
        answer: Answer
        if isinstance(found, GeneratedFile):
            role: Role = "config"
            try:
                answer = SendBytes(await self._generate(found))
            except SecretsNotSavedError:
                log.exception("board %s gets no boot file now", board)
                return SendError(ERROR_UNDEFINED, "try again")
        else:
            role, answer = found.role, SendFile(found.path)
        self._asked[question.number] = _Asked(board, question.client, question.path, role)
        self._on_event(FileRequested(board, question.client, question.path, role))
        return answer

    async def _generate(self, wanted: GeneratedFile) -> bytes:
        client, profile, config = wanted.client, wanted.client.profile, self._config
        if wanted.kind == "script":
            return script_image(uboot_script(profile), profile.arch, f"boardhand {client.board or 'joining'}")
        secret = None
        if wanted.carries_secret and client.board is not None:
            secret, minted = self._secrets.fetch(client.board)
            self._unsaved = self._unsaved or minted
            await self._save()
        identity = BootIdentity(config.agent, config.mqtt_for_boards, config.prefix, client.board, secret)
        text = ipxe_script(profile, identity) if wanted.kind == "ipxe" else pxe_file(profile, identity)
        return text.encode()

    def _refuse(self, question: Question, refused: Refused) -> SendError:
        known = self._tree.board_at(IPv4Address(question.client))
        self._report(
            FileRefused(
                client=question.client,
                path=question.path,
                reason=refused.reason,
                board=known.board if known is not None else None,
                missing=refused.missing,
            )
        )
        return SendError(ERROR_NOT_FOUND if refused.missing else ERROR_ACCESS, refused.reason)

    def _worker_refused(self, refusal: WorkerRefusal) -> None:
        self._report(FileRefused(refusal.client, refusal.path, refusal.reason))

    def _report(self, event: FileRefused) -> None:
        self._counts["tftp_missing" if event.missing else "tftp_refused"] += 1
        sources = self._logged_sources
        if not event.missing and event.client not in sources and len(sources) < MAX_LOGGED_SOURCES:
            sources.add(event.client)
            log.warning(
                "TFTP: refused %r to %s: %s (further ones are only counted)", event.path, event.client, event.reason
            )
        self._on_event(event)

    def _done(self, done: Done) -> None:
        asked = self._asked.pop(done.number, None)
        if asked is None:
            return  # it was refused, and told so then
        if done.ok:
            self._counts["tftp_files_sent"] += 1
            self._on_event(FileSent(asked.board, asked.client, asked.path, asked.role, done.size_bytes, done.seconds))
        elif done.begun:
            self._counts["tftp_transfers_failed"] += 1
            log.debug("TFTP: %s to %s ended: %s", asked.path, asked.client, done.reason)
            self._on_event(FileFailed(asked.board, asked.client, asked.path, asked.role, done.reason))
        else:
            # The file itself is at fault: missing, a link that leads out, not readable.
            log.error("TFTP: cannot send %s to %s: %s", asked.path, asked.client, done.reason)
            self._counts["tftp_refused"] += 1
            self._on_event(FileRefused(asked.client, asked.path, done.reason, asked.board))
