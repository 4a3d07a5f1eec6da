"""Paths: a board sees its own files and nobody else's."""

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.boot_tree import BootTree, GeneratedFile, Refused, SharedFile, TreeClient
from netboot.profile import BootProfile

PROFILE = BootProfile("p", "arm64", Path("/img/vmlinuz.gz"), Path("/img/initrd"), Path("/img/dtb"))
OTHER = replace(PROFILE, name="q", kernel=Path("/other/Image"), initrd=None, dtb=None)
UUID = "12345678-1234-1234-1234-123456789abc"
B1 = TreeClient("b1", ("52:54:00:77:00:01",), IPv4Address("10.77.0.11"), PROFILE, UUID)
B2 = TreeClient("b2", ("52:54:00:77:00:02",), IPv4Address("10.77.0.12"), OTHER)
X86 = TreeClient("b3", ("52:54:00:77:00:03",), IPv4Address("10.77.0.13"), replace(PROFILE, name="x", arch="x86_64"))
TREE = BootTree({client.address: client for client in (B1, B2, X86)})
SCRIPT, PXE, IPXE = (GeneratedFile(B1, kind) for kind in ("script", "pxe", "ipxe"))
KERNEL = SharedFile(B1, Path("/img/vmlinuz.gz"), "kernel")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("boot.scr.uimg", SCRIPT),
        ("/boot.scr.uimg", SCRIPT),
        ("\\boot.scr.uimg", SCRIPT),
        ("b1/boot.scr.uimg", SCRIPT),
        ("pxelinux.cfg/01-52-54-00-77-00-01", PXE),
        ("/anything/pxelinux.cfg/01-52-54-00-77-00-01", PXE),
        ("b1/pxelinux.cfg/01-52-54-00-77-00-01", PXE),
        (f"pxelinux.cfg/{UUID}", PXE),
        (f"pxelinux.cfg/{UUID.upper()}", PXE),
        ("pxelinux.cfg/0A4D000B", PXE),
        ("pxelinux.cfg/0A4D", PXE),
        ("pxelinux.cfg/default-arm-qemu", PXE),
        ("pxelinux.cfg/default", PXE),
        ("boot.ipxe", IPXE),
        ("kernel", KERNEL),
        ("./kernel.gz", KERNEL),
        ("x/initrd", SharedFile(B1, Path("/img/initrd"), "initrd")),
        ("dtb", SharedFile(B1, Path("/img/dtb"), "dtb")),
    ],
)
def test_own_files(path, found):
    assert TREE.look_up(B1.address, path) == found


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("pxelinux.cfg/01-52-54-00-77-00-02", False),
        ("pxelinux.cfg/0A4D000C", False),
        ("b2/kernel", False),
        ("b2/pxelinux.cfg/01-52-54-00-77-00-01", False),
        ("../kernel", False),
        ("x/../kernel", False),
        ("..\\kernel", False),
        ("x/..", False),
        ("ker\0nel", False),
        ("", False),
        ("/", False),
        ("a/" * 300 + "kernel", False),
        ("/etc/passwd", True),
        ("/img/vmlinuz.gz.bak", True),
        ("pxelinux.cfg/ffffffff-1234-1234-1234-123456789abc", True),
        ("pxelinux.cfg/nonsense", True),
        ("kernel2", True),
    ],
)
def test_refused(path, missing):
    found = TREE.look_up(B1.address, path)
    assert isinstance(found, Refused)
    assert found.missing is missing


def test_profiles_do_not_mix():
    assert TREE.look_up(B2.address, "kernel") == SharedFile(B2, Path("/other/Image"), "kernel")
    assert isinstance(TREE.look_up(B2.address, "initrd"), Refused)
    assert isinstance(TREE.look_up(B2.address, "kernel.gz"), Refused)
    assert isinstance(TREE.look_up(X86.address, "boot.scr.uimg"), Refused)


def test_strangers_get_only_the_joining_files():
    unknown = IPv4Address("10.77.0.100")
    assert isinstance(TREE.look_up(unknown, "kernel"), Refused)
    joining = TreeClient(None, (), unknown, PROFILE)
    found = TREE.look_up(unknown, "pxelinux.cfg/01-52-54-00-99-00-01", joining=joining)
    assert found == GeneratedFile(joining, "pxe")
    assert not found.carries_secret
    assert PXE.carries_secret
    assert not SCRIPT.carries_secret
    named = replace(joining, macs=("52:54:00:99:00:02",))
    assert isinstance(TREE.look_up(unknown, "pxelinux.cfg/01-52-54-00-99-00-01", joining=named), Refused)
    assert TREE.look_up(B1.address, "kernel", joining=joining) == KERNEL


parts = st.sampled_from(["..", ".", "", "b1", "b2", "pxelinux.cfg", "kernel", "initrd", "boot.scr.uimg",
                         "default", "01-52-54-00-77-00-02", "01-52-54-00-77-00-01", "0A4D000C",
                         "etc", "passwd", "\0"])  # fmt: skip


@settings(deadline=None)
@given(st.lists(parts, max_size=6), st.sampled_from(["/", "\\", "//"]))
def test_no_path_reaches_another_board_or_file(path, separator):
    found = TREE.look_up(B1.address, separator.join(path))
    if isinstance(found, Refused):
        return
    assert found.client is B1
    assert ".." not in path
    assert "b2" not in path
    if isinstance(found, GeneratedFile) and found.kind == "pxe":
        assert path[-1] in {"default", "01-52-54-00-77-00-01"}
    if isinstance(found, SharedFile):
        assert found.path in {PROFILE.kernel, PROFILE.initrd, PROFILE.dtb}


@settings(deadline=None)
@given(st.text(max_size=600))
def test_any_text_is_answered(path):
    TREE.look_up(B1.address, path)
