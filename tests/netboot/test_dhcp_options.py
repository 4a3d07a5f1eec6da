"""Which boot program asks, and what it is told: values as real firmware sends them."""

import uuid
from ipaddress import IPv4Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netboot.dhcp_options import ClientKind, boot_answer, client_kind, client_uuids, proxy_answer
from netboot.dhcp_packet import DhcpPacket, Option, encode, parse

SERVER = IPv4Address("10.77.0.1")
QEMU, PI3, PI4 = "525400770001", "b827eb010203", "e45f01010203"


def asks(vendor="", *, arch=None, user=None, mac=QEMU, machine=None):
    options = [(53, b"\x01")]
    if vendor:
        options.append((60, vendor.encode()))
    if user is not None:
        options.append((77, user))
    if arch is not None:
        options.append((93, arch.to_bytes(2, "big")))
    if machine is not None:
        options.append((97, b"\0" + machine))
    return parse(encode(DhcpPacket(op=1, xid=1, chaddr=bytes.fromhex(mac), options=tuple(options))))


@pytest.mark.parametrize(
    ("packet", "kind"),
    [
        (asks("U-Boot.armv8"), ClientKind.UBOOT),
        (asks("U-Boot.armv7", arch=0x15), ClientKind.UBOOT),
        (asks("PXEClient:Arch:00000:UNDI:002001", arch=0), ClientKind.PXE_BIOS),
        (asks("PXEClient"), ClientKind.PXE_BIOS),
        (asks("PXEClient:Arch:00000:UNDI:002001", arch=0, user=b"iPXE"), ClientKind.IPXE),
        (asks("PXEClient:Arch:00007:UNDI:003010", arch=7, user=b"\x04iPXE"), ClientKind.IPXE),
        (asks("PXEClient:Arch:00007:UNDI:003000", arch=7), ClientKind.UEFI_X64),
        (asks("PXEClient:Arch:00007:UNDI:003000"), ClientKind.UEFI_X64),
        (asks("PXEClient:Arch:00009:UNDI:003000", arch=9), ClientKind.UEFI_X64),
        (asks("PXEClient:Arch:00010:UNDI:003000", arch=10), ClientKind.UEFI_ARM),
        (asks("PXEClient:Arch:00011:UNDI:003000", arch=11), ClientKind.UEFI_ARM64),
        (asks("PXEClient:Arch:00027:UNDI:003000", arch=27), ClientKind.UEFI_RISCV64),
        (asks("HTTPClient:Arch:00016:UNDI:003001", arch=16), ClientKind.HTTP_X64),
        (asks("HTTPClient:Arch:00019:UNDI:003001", arch=19), ClientKind.HTTP_ARM64),
        (asks("HTTPClient:Arch:00015:UNDI:003001", arch=15), ClientKind.OTHER),
        (asks("HTTPClient"), ClientKind.OTHER),
        (asks("PXEClient:Arch:00000:UNDI:002001", arch=0, mac=PI3), ClientKind.RASPBERRY_PI),
        (asks("PXEClient:Arch:00000:UNDI:002001", arch=0, mac=PI4), ClientKind.RASPBERRY_PI),
        (asks("PXEClient:Arch:00000:UNDI:002001", arch=0, machine=b"RPi4" + bytes(range(12))), ClientKind.RASPBERRY_PI),
        (asks("PXEClient:Arch:00011:UNDI:003000", arch=11, mac=PI4), ClientKind.UEFI_ARM64),  # EDK2 on a Pi
        (asks("PXEClient:Arch:00006:UNDI:003000", arch=6), ClientKind.OTHER),
        (asks("udhcp 1.36.1"), ClientKind.OTHER),
        (asks(), ClientKind.OTHER),
    ],
)
def test_kinds(packet, kind):
    assert client_kind(packet) is kind


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=6), st.binary(max_size=20))
def test_any_octets_are_some_kind(vendor, user, arch, machine):
    packet = DhcpPacket(op=1, xid=1, chaddr=bytes(6), options=((60, vendor), (77, user), (93, arch), (97, machine)))
    assert client_kind(packet) in ClientKind
    assert len(client_uuids(packet)) <= 2


def test_uuids_in_both_orders():
    text = "00112233-4455-6677-8899-aabbccddeeff"
    assert text in client_uuids(asks(machine=uuid.UUID(text).bytes))
    assert client_uuids(asks(machine=uuid.UUID(text).bytes_le))[0] == text
    assert (
        client_uuids(asks(machine=bytes(16))) == client_uuids(asks(machine=b"\xff" * 16)) == client_uuids(asks()) == ()
    )


def options(answer):
    return dict(answer.options)


def test_the_file_field_and_option_67_say_the_same():
    for kind in (ClientKind.UBOOT, ClientKind.UEFI_X64, ClientKind.IPXE):
        answer = boot_answer(kind, "some/file", SERVER)
        assert answer.file == options(answer)[67] == b"some/file"
        assert options(answer)[66] == b"10.77.0.1"
        assert 60 not in options(answer)


def test_http_gets_its_class_and_a_url_of_any_length():
    url = "http://10.77.0.1:8080/" + "a" * 180
    answer = boot_answer(ClientKind.HTTP_X64, url, SERVER)
    assert options(answer) == {60: b"HTTPClient", 67: url.encode()}
    assert answer.file == b""
    assert boot_answer(ClientKind.HTTP_X64, url[:60], SERVER).file == url[:60].encode()


def test_ipxe_does_not_wait_for_a_proxy():
    assert options(boot_answer(ClientKind.IPXE, "boot.ipxe", SERVER))[Option.IPXE] == bytes((0xB0, 1, 1))
    assert Option.IPXE not in options(proxy_answer(ClientKind.IPXE, "boot.ipxe", SERVER))


def test_a_pi_hears_its_words_without_a_boot_file():
    answer = boot_answer(ClientKind.RASPBERRY_PI, None, SERVER)
    assert b"Raspberry Pi Boot" in options(answer)[43]
    assert (options(answer)[60], options(answer)[66]) == (b"PXEClient", b"10.77.0.1")
    area, position, codes = options(answer)[43], 0, []
    while area[position] != 255:  # well formed to its end
        codes.append(area[position])
        position += 2 + area[position + 1]
    assert codes == [6, 10, 9]
    assert position == len(area) - 1


def test_no_boot_file_says_nothing_of_booting():
    for kind in set(ClientKind) - {ClientKind.RASPBERRY_PI}:
        assert boot_answer(kind, None, SERVER).options == ()
        assert proxy_answer(kind, None, SERVER).options == ()


def test_a_proxys_answer_is_marked():
    answer = options(proxy_answer(ClientKind.UEFI_X64, "grub.efi", SERVER))
    assert (answer[60], answer[43], answer[67]) == (b"PXEClient", bytes((6, 1, 8, 255)), b"grub.efi")
    assert options(proxy_answer(ClientKind.HTTP_ARM64, "http://a/b", SERVER))[60] == b"HTTPClient"
    assert b"Raspberry Pi Boot" in options(proxy_answer(ClientKind.RASPBERRY_PI, None, SERVER))[43]
