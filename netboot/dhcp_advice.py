"""What somebody else's DHCP server has to say for boards to boot from us: configuration for dnsmasq and ISC dhcpd, as
text for the admin who keeps that server. For the modes `off` (all of it) and `proxy` (what a proxy cannot say: the
addresses, and the boot file of U-Boot).
"""

from collections.abc import Sequence
from enum import StrEnum
from ipaddress import IPv4Address

from netboot.dhcp_options import BootFileFor, ClientKind
from netboot.dhcp_settings import DhcpBoard


class AdviceSyntax(StrEnum):
    """Whose configuration file the lines are for."""

    DNSMASQ = "dnsmasq"
    ISC = "isc"


_PI_WORDS = "Raspberry Pi Boot"
# The architectures of option 93 that mean a kind, without those that only a vendor class tells apart.
_ARCHES: dict[ClientKind, tuple[int, ...]] = {
    ClientKind.PXE_BIOS: (0,),
    ClientKind.UEFI_X64: (7, 9),
    ClientKind.UEFI_ARM: (10,),
    ClientKind.UEFI_ARM64: (11,),
    ClientKind.UEFI_RISCV64: (27,),
    ClientKind.HTTP_X64: (16,),
    ClientKind.HTTP_ARM64: (19,),
}


def advice(
    syntax: AdviceSyntax, boards: Sequence[DhcpBoard], boot_file_for: BootFileFor, server: IPv4Address
) -> list[str]:
    """The lines for `boards`, which fetch their files from `server`. A board whose MAC address is not known gets a
    comment that says so."""
    write = _dnsmasq if syntax is AdviceSyntax.DNSMASQ else _isc
    lines = [f"# boardhand: boards that boot from {server}"]
    lines += _DNSMASQ_HEAD if syntax is AdviceSyntax.DNSMASQ else _ISC_HEAD
    for board in boards:
        if not board.macs:
            lines.append(f"# {board.board}: its MAC address is not known, so no other server can know it")
            continue
        lines += write(board, boot_file_for, server)
    return lines


# Tags that exclude each other: iPXE also says an architecture, and its own tag wins over that.
_DNSMASQ_HEAD = [
    "dhcp-match=set:bh-ipxe,175",
    *(f"dhcp-match=set:bh-{kind},option:client-arch,{arch}" for kind, arches in _ARCHES.items() for arch in arches),
    f"dhcp-vendorclass=set:bh-{ClientKind.UBOOT},U-Boot",
]


def _dnsmasq(board: DhcpBoard, boot_file_for: BootFileFor, server: IPv4Address) -> list[str]:
    name, tag_of_board = board.board, f"board-{board.board}"  # some bare names mean something to dnsmasq, as "known"
    lines = [f"dhcp-host={','.join(board.macs)},set:{tag_of_board},{board.address},{name}"]
    elsewhere = f",,{server}"
    ipxe = boot_file_for(name, ClientKind.IPXE)
    if ipxe is not None:
        lines.append(f"dhcp-boot=tag:{tag_of_board},tag:bh-ipxe,{ipxe}{elsewhere}")
    others = "tag:!bh-ipxe"
    for kind in _ARCHES:
        tag = f"tag:bh-{kind}"
        boot_file = boot_file_for(name, kind)
        where = f"tag:{tag_of_board},tag:!bh-ipxe,tag:!bh-{ClientKind.UBOOT},{tag}"
        if boot_file is not None:
            lines.append(f"dhcp-boot={where},{boot_file}{'' if kind.by_http else elsewhere}")
        if kind.by_http and boot_file is not None:
            lines.append(f"dhcp-option-force={where},option:vendor-class,HTTPClient")
        others += f",tag:!bh-{kind}"
    uboot = boot_file_for(name, ClientKind.UBOOT)
    if uboot is not None:
        # U-Boot says an architecture too, in some builds.
        lines.append(f"dhcp-boot=tag:{tag_of_board},tag:bh-{ClientKind.UBOOT},{uboot}{elsewhere}")
    other = boot_file_for(name, ClientKind.OTHER)
    if other is not None:
        lines.append(f"dhcp-boot=tag:{tag_of_board},tag:!bh-{ClientKind.UBOOT},{others},{other}{elsewhere}")
    if boot_file_for(name, ClientKind.RASPBERRY_PI) is not None:
        # A Raspberry Pi's boot program says that it is a PXE BIOS.
        where = f"tag:{tag_of_board},tag:bh-{ClientKind.PXE_BIOS},tag:!bh-ipxe"
        lines.append(f'dhcp-option-force={where},43,"{_PI_WORDS}"')
        lines.append(f"dhcp-option-force={where},60,PXEClient")
        lines.append(f"dhcp-option-force={where},66,{server}")
    return lines


_ISC_HEAD = ["option bh-arch code 93 = unsigned integer 16;"]


def _isc(board: DhcpBoard, boot_file_for: BootFileFor, server: IPv4Address) -> list[str]:
    lines = []
    for number, mac in enumerate(board.macs):
        # One host knows one MAC address; the second host of a board needs another name and no address of its own pool.
        label = board.board if number == 0 else f"{board.board}-mac{number + 1}"
        lines += [
            f"host {label} {{",
            f"  hardware ethernet {mac};",
            f"  fixed-address {board.address};",
            f'  option host-name "{board.board}";',
            f"  next-server {server};",
            *_isc_boot(board.board, boot_file_for, server),
            "}",
        ]
    return lines


def _isc_boot(name: str, boot_file_for: BootFileFor, server: IPv4Address) -> list[str]:
    cases: list[tuple[str, ClientKind]] = [
        ('exists user-class and option user-class = "iPXE"', ClientKind.IPXE),
        ('substring(option vendor-class-identifier, 0, 6) = "U-Boot"', ClientKind.UBOOT),
    ]
    cases += [
        (" or ".join(f"option bh-arch = {_octets(arch)}" for arch in arches), kind) for kind, arches in _ARCHES.items()
    ]
    lines: list[str] = []
    other = boot_file_for(name, ClientKind.OTHER)
    for condition, kind in cases:
        said = []
        boot_file = boot_file_for(name, kind)
        if boot_file is not None:
            said.append(f'filename "{boot_file}";')
        if kind.by_http and boot_file is not None:
            said.append('option vendor-class-identifier "HTTPClient";')
        if kind is ClientKind.PXE_BIOS and boot_file_for(name, ClientKind.RASPBERRY_PI) is not None:
            # A Raspberry Pi says that it is a PXE BIOS.
            said += [
                f'option vendor-encapsulated-options "{_PI_WORDS}";',
                'option vendor-class-identifier "PXEClient";',
                f'option tftp-server-name "{server}";',
            ]
        if said or other is not None:  # else the one for all others would be said
            lines.append(f"  {'elsif' if lines else 'if'} {condition} {{ {' '.join(said)} }}")
    if other is not None:
        lines.append(f'  else {{ filename "{other}"; }}' if lines else f'  filename "{other}";')
    return lines


def _octets(arch: int) -> str:
    """As dhcpd compares it: a bare number would be one octet."""
    return f"{arch >> 8:02x}:{arch & 0xFF:02x}"
