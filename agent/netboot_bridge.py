"""Between the agent and netboot: settings become a netboot configuration, netboot's events become a board's life."""

from dataclasses import dataclass

from agent.life import LifeEvent
from agent.settings import AgentSettings
from netboot.dhcp_desk import DhcpMode
from netboot.events import DhcpSeen, FileFailed, FilePart, FileRefused, FileRequested, FileSent, NetbootEvent
from netboot.server import NetbootBoard, NetbootConfig
from netboot.staged import StagedTree


@dataclass(frozen=True, slots=True)
class Heard:
    """What a netboot event means for a board."""

    board: str
    event: LifeEvent
    details: dict[str, object]


def config(settings: AgentSettings) -> NetbootConfig | None:
    """The netboot configuration, or None where the agent serves no board network."""
    table = settings.netboot
    if table is None:
        return None
    joining = None if table.joining_profile is None else settings.profiles[table.joining_profile]
    return NetbootConfig(
        agent=settings.agent.name,
        interface=table.interface,
        server_address=table.address.ip,
        network=table.address.network,
        pool=table.pool,
        mqtt_for_boards=table.mqtt_for_boards,
        prefix=settings.mqtt.prefix,
        joining_profile=None if joining is None else joining.boot_profile(table.joining_profile or ""),
        dhcp=table.dhcp,
        router_advertisements=table.dhcp is DhcpMode.AUTHORITATIVE
        if table.router_advertisements is None
        else table.router_advertisements,
        watch_segment=table.watch_segment,
        dhcp_port=table.dhcp_port,
        tftp_port=table.tftp_port,
        tftp_window=table.tftp_window,
        tftp_workers=table.tftp_workers,
        tftp_cache_mib=table.tftp_cache_mib,
        http_port=table.http_port or None,
        ipv6=table.ipv6,
        lease_s=table.lease_s,
        staged=None
        if table.labgrid_tftp is None
        else StagedTree(table.labgrid_tftp.absolute(), tuple(path.absolute() for path in table.labgrid_caches)),
    )


def boards(settings: AgentSettings) -> list[NetbootBoard]:
    """The boards that boot from us."""
    found = []
    for name, board in settings.boards.items():
        if board.profile is None or board.address is None:
            continue
        found.append(
            NetbootBoard(
                board=name,
                macs=tuple(board.macs),
                address=board.address,
                profile=settings.profiles[board.profile].boot_profile(board.profile, dtb=board.dtb, own=board),
                uuid=board.uuid,
                serial=board.serial,
                staged=board.labgrid_folder or name,
                address6=board.address6,
            )
        )
    return found


def heard(event: NetbootEvent) -> Heard | None:
    """What `event` says of one of our boards, or None where it says nothing about its life."""
    if isinstance(event, DhcpSeen):
        return _heard_dhcp(event)
    if event.board is None or isinstance(event, FileRefused):
        # Bootloaders ask for many names that are not there; netboot counts and logs them.
        return None
    if isinstance(event, FileRequested | FilePart):
        return None
    if isinstance(event, FileFailed):
        details: dict[str, object] = {"what": "file-failed", "path": event.path, "reason": event.reason}
        return Heard(event.board, LifeEvent.NETBOOT_SEEN, details)
    return _heard_file(event, event.board)


def _heard_dhcp(event: DhcpSeen) -> Heard | None:
    if event.board is None or event.answer == "":
        return None
    return Heard(
        event.board,
        LifeEvent.NETBOOT_SEEN,
        {
            "what": "dhcp",
            "mac": event.mac,
            "address": event.address,
            "vendor_class": event.vendor_class,
            "message": event.message_type,
        },
    )


def _heard_file(event: FileSent, board: str) -> Heard:
    life = LifeEvent.KERNEL_SENT if event.role == "kernel" else LifeEvent.NETBOOT_SEEN
    if event.role == "config":
        life = LifeEvent.BOOT_FILE_SENT
    return Heard(
        board,
        life,
        {
            "what": "file",
            "role": event.role,
            "path": event.path,
            "size_bytes": event.size_bytes,
            "took_s": round(event.seconds, 3),
        },
    )
