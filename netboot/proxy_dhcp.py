"""PXE beside somebody else's DHCP server: we say what to boot and give no addresses (PXE 2.1 sections 2.2.3 and 2.2.4).

Decisions only. On port 67 we answer the DISCOVER of a PXE or UEFI HTTP client with an offer that has no address; the
client joins it with the other server's. On port 4011 we answer the client that asks there again. U-Boot and operating
systems hear nothing from us: they would take the offer for the real one. So a board that starts with U-Boot needs the
other server to name our boot file (see `dhcp_advice`).
"""

from collections.abc import Sequence
from dataclasses import replace

from netboot.dhcp_events import OtherAddress
from netboot.dhcp_options import BootFileFor, ClientKind, client_kind, is_pxe_or_http, proxy_answer
from netboot.dhcp_packet import NO_ADDRESS, DhcpPacket, MessageType, Op, Option
from netboot.dhcp_policy import (
    LIMITED_BROADCAST,
    Decision,
    Reply,
    client_name,
    reply_base,
    seen,
    with_relay_information,
)
from netboot.dhcp_settings import BoardIndex, DhcpBoard, DhcpSettings

BOOT_SERVER_PORT = 4011
_PXE_BOOT_ITEM = 71
_PXE_END = 255


class ProxyPolicy:
    """Decides on the messages of one interface that arrive on port 67; `boot_server` on those of port 4011. Of the
    settings only addresses count; a relay's messages are answered where `relayed` names its network. Unknown boards
    hear nothing: their address is another server's affair, so we would not know whose files they may read.

    Raises:
        ValueError: at construction, as `BoardIndex`.
    """

    def __init__(self, settings: DhcpSettings, boards: Sequence[DhcpBoard], *, boot_file_for: BootFileFor) -> None:
        self._settings = settings
        self._boot_file_for = boot_file_for
        self._boards = BoardIndex(settings, boards)
        self.boot_server = BootServerPort(self)

    def set_boards(self, boards: Sequence[DhcpBoard]) -> None:
        """Replace the known boards.

        Raises:
            ValueError: as at construction; the old boards then stay.
        """
        self._boards = BoardIndex(self._settings, boards)

    @property
    def boards(self) -> BoardIndex:
        """The known boards."""
        return self._boards

    def handle(self, packet: DhcpPacket, received_on: str, now: float) -> Decision:  # noqa: ARG002  # as DhcpPolicy's
        """Decide on one message to port 67. A client's REQUEST to the other server tells us its address."""
        board = self._sender(packet, received_on)
        if board is None:
            return Decision()
        kind = packet.message_type
        if kind is MessageType.DISCOVER:
            return self._answer(packet, board, MessageType.OFFER)
        if kind is not MessageType.REQUEST:
            return Decision()
        wanted = packet.address_option(Option.REQUESTED_ADDRESS)
        address = wanted if wanted is not None else packet.ciaddr
        if address == NO_ADDRESS:
            return Decision(events=(seen(packet, board, None, None),))
        wrong: tuple[OtherAddress, ...] = ()
        if address != board.address:
            wrong = (
                OtherAddress(
                    self._settings.interface, str(address), client_name(packet), board.board, str(board.address)
                ),
            )
        return Decision(events=(seen(packet, board, address, None),), conflicts=wrong)

    def ask_boot_server(self, packet: DhcpPacket, received_on: str) -> Decision:
        """Decide on one message to port 4011."""
        board = self._sender(packet, received_on)
        if board is None or packet.message_type not in {MessageType.REQUEST, MessageType.INFORM}:
            return Decision()
        return self._answer(packet, board, MessageType.ACK)

    def _sender(self, packet: DhcpPacket, received_on: str) -> DhcpBoard | None:
        return self._boards.sender(packet) if self._is_for_us(packet, received_on) else None

    def _is_for_us(self, packet: DhcpPacket, received_on: str) -> bool:
        known_place = self._settings.subnet_of_sender(packet) is not None
        return received_on == self._settings.interface and packet.op == Op.REQUEST and known_place

    def _answer(self, packet: DhcpPacket, board: DhcpBoard, kind: MessageType) -> Decision:
        silence = Decision(events=(seen(packet, board, None, None),))
        if not is_pxe_or_http(packet):
            return silence
        server, client = self._settings.server_address, client_kind(packet)
        boot_file = self._boot_file_for(board.board, client)
        if boot_file is None and client is not ClientKind.RASPBERRY_PI:
            return silence
        boot = proxy_answer(client, boot_file, server)
        base = reply_base(packet, kind, server)
        reply = replace(
            base,
            ciaddr=packet.ciaddr if kind is MessageType.ACK else NO_ADDRESS,
            siaddr=server,
            file=boot.file,
            options=base.options + _with_boot_item(boot.options, packet),
        )
        reply = with_relay_information(reply, packet)
        address = packet.ciaddr if packet.ciaddr != NO_ADDRESS else None
        if packet.is_relayed:
            sent = Reply(reply, packet.giaddr, to_relay=True)
        elif kind is MessageType.ACK and address is not None:
            sent = Reply(reply, address, client_has_address=True)
        else:
            sent = Reply(reply, LIMITED_BROADCAST)
        return Decision((sent,), (seen(packet, board, address, kind),))


class BootServerPort:
    """The policy as port 4011 sees it."""

    def __init__(self, proxy: ProxyPolicy) -> None:
        self._proxy = proxy

    def handle(self, packet: DhcpPacket, received_on: str, now: float) -> Decision:  # noqa: ARG002  # as DhcpPolicy's
        """Decide on one message."""
        return self._proxy.ask_boot_server(packet, received_on)


def _with_boot_item(options: tuple[tuple[int, bytes], ...], packet: DhcpPacket) -> tuple[tuple[int, bytes], ...]:
    """PXE 2.1 section 2.2.4: the boot item that the client chose goes back to it."""
    item = _suboption(packet.option(Option.VENDOR_SPECIFIC) or b"", _PXE_BOOT_ITEM)
    if item is None:
        return options
    said = bytes((_PXE_BOOT_ITEM, len(item))) + item
    return tuple((code, said + value if code == Option.VENDOR_SPECIFIC else value) for code, value in options)


def _suboption(area: bytes, wanted: int) -> bytes | None:
    position = 0
    while position + 1 < len(area) and area[position] != _PXE_END:
        if area[position] == 0:
            position += 1
            continue
        code, length = area[position], area[position + 1]
        value = area[position + 2 : position + 2 + length]
        if code == wanted:
            return value if len(value) == length else None
        position += 2 + length
    return None
