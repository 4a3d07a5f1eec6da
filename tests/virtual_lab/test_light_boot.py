"""The boot ROM of light boards: codecs, the TFTP client's decisions, the PXE configuration."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from virtual_lab import light_boot
from virtual_lab.light_boot import BootError, DhcpKind, Download

MAC = "52:54:00:78:00:01"


def reply(kind=2, transaction=7, mac=MAC, options=b""):
    head = struct.pack(
        ">BBBBIHH4s4s4s4s16s64s128s", 2, 1, 6, 0, transaction, 0, 0, bytes(4), bytes([10, 77, 1, 1]),
        bytes([10, 77, 0, 1]), bytes(4), bytes.fromhex(mac.replace(":", "")).ljust(16, b"\0"), b"", b"b/pxelinux.0",
    )  # fmt: skip
    return head + b"\x63\x82\x53\x63" + bytes([53, 1, kind]) + options + b"\xff"


def test_an_offer_is_read():
    got = light_boot.parse_dhcp(reply(options=b"\x36\x04\x0a\x4d\x00\x02\x01\x04\xff\xff\xf0\x00"), MAC, 7)
    assert got is not None
    assert (got.kind, got.address) == (DhcpKind.OFFER, "10.77.1.1")
    assert (got.server, got.next_server) == ("10.77.0.2", "10.77.0.1")
    assert (got.boot_file, got.netmask) == ("b/pxelinux.0", "255.255.240.0")


@pytest.mark.parametrize("datagram", [b"", reply(transaction=8), reply(mac="52:54:00:78:00:02"), reply(kind=99)])
def test_what_is_not_for_us_is_passed_over(datagram):
    assert light_boot.parse_dhcp(datagram, MAC, 7) is None


@given(st.binary(max_size=80), st.integers(0, 300))
def test_no_datagram_crashes_the_parser(noise, cut):
    light_boot.parse_dhcp(reply(options=noise)[:cut], MAC, 7)
    light_boot.parse_dhcp(reply(options=noise), MAC, 7)


@given(st.binary(max_size=5000), st.sampled_from([8, 512, 1468]), st.lists(st.integers(0, 9), max_size=30))
def test_a_file_arrives_whole_whatever_is_repeated_or_late(content, size, noise):
    download = Download("f")
    if size != 512:
        oack = b"\0\x06blksize\0" + str(size).encode() + b"\0"
        assert download.take(oack) == b"\0\x04\0\0"
    blocks = [content[at : at + size] for at in range(0, len(content) + 1, size)]
    for number, block in enumerate(blocks, 1):
        for stray in noise:
            if stray != number:
                download.take(struct.pack(">HH", 3, stray if stray < number else 40000) + b"wrong")
        answer = download.take(struct.pack(">HH", 3, number & 0xFFFF) + block)
        assert answer == struct.pack(">HH", 4, number & 0xFFFF)
    assert download.finished
    assert download.content == content


def test_a_refusal_says_why():
    with pytest.raises(BootError, match=r"error 1: no such file"):
        Download("f").take(b"\0\x05\0\x01no such file\0")


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_no_packet_crashes_the_download(packets):
    download = Download("f")
    for packet in packets:
        try:
            download.take(packet)
        except BootError:
            return


def test_the_configuration_is_found_beside_the_boot_file():
    assert light_boot.configuration_path("", MAC) == "pxelinux.cfg/01-52-54-00-78-00-01"
    assert light_boot.configuration_path("b/x/pxelinux.0", MAC) == "b/x/pxelinux.cfg/01-52-54-00-78-00-01"


def test_the_configuration_is_read_as_uboot_reads_it():
    text = "default boot\nlabel boot\n  LINUX k\n  initrd i\n  fdt /d\n  append console=x boardhand.board=b quiet\n"
    entry = light_boot.parse_pxe(text, "b/pxelinux.0")
    assert entry.files == ("b/i", "b/k", "/d")
    assert entry.cmdline == {"console": "x", "boardhand.board": "b", "quiet": ""}
    with pytest.raises(BootError, match="names no kernel"):
        light_boot.parse_pxe("append x", "")
