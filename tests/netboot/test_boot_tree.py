"""Paths: a board sees its own files and nobody else's."""

from dataclasses import replace
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.boot_files import BootIdentity, content
from netboot.boot_raspberry import NEVER_SENT
from netboot.boot_templates import parse
from netboot.boot_tree import BootTree, GeneratedFile, Refused, SharedFile, StagedFile, TreeClient
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


# --- the other families ---

GRUB = GeneratedFile(B1, "grub")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("grub/grub.cfg", GRUB),
        ("/boot/grub/x86_64-efi/grub.cfg", GRUB),
        ("grub.cfg", GRUB),
        (f"grub/grub.cfg-{UUID}", GRUB),
        ("grub/grub.cfg-01-52-54-00-77-00-01", GRUB),
        ("grub/grub.cfg-52-54-00-77-00-01", GRUB),
        ("grub/grub.cfg-0A4D000B", GRUB),
        ("grub/grub.cfg-0A4D", GRUB),
        ("autoexec.ipxe", IPXE),
        ("extlinux/extlinux.conf", PXE),
        ("52-54-00-77-00-01/kernel", KERNEL),
        ("52-54-00-77-00-01/boot.ipxe", IPXE),
    ],
)
def test_own_files_of_other_families(path, found):
    assert TREE.look_up(B1.address, path) == found


@pytest.mark.parametrize(
    ("path", "missing"),
    [
        ("grub/grub.cfg-01-52-54-00-77-00-02", False),
        ("grub/grub.cfg-0A4D000C", False),
        ("grub/grub.cfg-ffffffff-1234-1234-1234-123456789abc", True),
        ("grub/grub.cfg-", True),
        ("grub/grub.cfg.bak", True),
        ("52-54-00-77-00-02/kernel", False),
        ("52-54-00-77-00-FF/kernel", False),
        ("B2/kernel", False),
        ("config.txt", True),
        ("cmdline.txt", True),
        ("overlays/can.dtbo", True),
    ],
)
def test_refused_of_other_families(path, missing):
    found = TREE.look_up(B1.address, path)
    assert isinstance(found, Refused)
    assert found.missing is missing


FIRMWARE = Path("/img/firmware")
PI_PROFILE = replace(
    PROFILE,
    name="pi",
    family="raspberry-pi",
    folder=FIRMWARE,
    overlays=(Path("/img/can.dtbo"),),
    files=(("pieeprom.upd", Path("/img/eeprom")), ("sub/x.bin", Path("/img/x"))),
)
PI1 = TreeClient("pi1", ("dc:a6:32:01:36:c2",), IPv4Address("10.77.0.21"), PI_PROFILE, None, "10000000d9780558")
PI2 = TreeClient("pi2", ("dc:a6:32:01:36:c3",), IPv4Address("10.77.0.22"), PI_PROFILE, None, "8ECA4DB2")
PI3 = TreeClient("pi3", ("dc:a6:32:01:36:c4",), IPv4Address("10.77.0.23"), replace(PI_PROFILE, family="auto"))
PIS = BootTree({client.address: client for client in (PI1, PI2, PI3)})


def held(client, name, role="other"):
    return SharedFile(client, FIRMWARE / name, role, FIRMWARE)


@pytest.mark.parametrize("prefix", ["", "d9780558/", "D9780558/", "dc-a6-32-01-36-c2/", "pi1/"])
def test_a_raspberry_pi_gets_the_same_with_and_without_its_folder(prefix):
    def get(name):
        return PIS.look_up(PI1.address, prefix + name)

    assert get("config.txt") == GeneratedFile(PI1, "config")
    assert get("cmdline.txt") == GeneratedFile(PI1, "cmdline")
    assert not get("config.txt").carries_secret
    assert get("cmdline.txt").carries_secret
    assert get("kernel.gz") == SharedFile(PI1, PI_PROFILE.kernel, "kernel")
    assert get("start4.elf") == held(PI1, "start4.elf")
    assert get("bcm2711-rpi-4-b.dtb") == held(PI1, "bcm2711-rpi-4-b.dtb", "dtb")
    assert get("overlays/can.dtbo") == SharedFile(PI1, Path("/img/can.dtbo"), "dtb")
    assert get("overlays/overlay_map.dtb") == held(PI1, "overlays/overlay_map.dtb", "dtb")
    assert get("sub/x.bin") == SharedFile(PI1, Path("/img/x"), "other")
    for name in ("pxelinux.cfg/default", "grub.cfg", ".git/config", "a/.b", "a b/\x7f"):
        assert get(name) == Refused("no such file for this board", missing=True)
    assert get("boot.scr") == held(PI1, "boot.scr")  # of this family none is made: the folder may hold one


def test_what_would_flash_or_divert_a_pi_is_kept_back():
    for name in NEVER_SENT - {"pieeprom.upd"}:
        assert PIS.look_up(PI1.address, f"d9780558/{name}").missing
    assert PIS.look_up(PI1.address, "pieeprom.upd") == SharedFile(PI1, Path("/img/eeprom"), "other")


def test_serial_folders_of_others():
    assert PIS.look_up(PI1.address, "8eca4db2/config.txt") == Refused("these are another board's files")
    assert PIS.look_up(PI3.address, "d9780558/config.txt") == Refused("these are another board's files")
    wrong = PIS.look_up(PI1.address, "11111111/start4.elf")
    assert wrong == Refused("the board has the serial number 11111111, and by the settings 10000000d9780558")
    assert PIS.look_up(PI3.address, "11111111/config.txt") == GeneratedFile(PI3, "config")  # its number is not known


def test_raw_and_efi_stub():
    raw = replace(B1, profile=replace(PROFILE, family="raw", kernel=Path("/img/rtos.bin"), initrd=None, dtb=None))
    tree = BootTree({raw.address: raw})
    assert tree.look_up(raw.address, "rtos.bin") == SharedFile(raw, Path("/img/rtos.bin"), "kernel")
    for name in ("boot.scr.uimg", "pxelinux.cfg/default", "boot.ipxe", "grub.cfg", "config.txt"):
        assert tree.look_up(raw.address, name).missing
    stub = replace(B1, profile=replace(PROFILE, family="efi-stub", first_file="linux.efi"))
    found = BootTree({stub.address: stub}).look_up(stub.address, "linux.efi")
    assert found == SharedFile(stub, PROFILE.kernel, "kernel")


def test_loaders_and_templates():
    extra, grub = parse("user-data", Path("/t"), "@{secret}"), parse("grub.cfg", Path("/t"), "@{cmdline}")
    profile = replace(PROFILE, loaders=(("bootaa64.efi", Path("/l/shim")),), templates=(extra, grub), family="uboot")
    client = replace(B1, profile=profile)
    tree = BootTree({client.address: client})
    for name in ("bootaa64.efi", "BOOTAA64.EFI", "/EFI/BOOT/BOOTAA64.EFI"):
        assert tree.look_up(client.address, name) == SharedFile(client, Path("/l/shim"), "other")
    assert tree.look_up(client.address, "ci/user-data") == GeneratedFile(client, "text", "user-data")
    assert tree.look_up(client.address, "ci/user-data").carries_secret
    assert tree.look_up(client.address, "grub.cfg") == GeneratedFile(client, "grub")  # wanted by its template
    assert tree.look_up(client.address, "boot.ipxe").missing


# --- isolation ---

SECRETS = {client.board: f"{number:064x}" for number, client in enumerate((B1, B2, X86, PI1, PI2, PI3), 1)}
STAGED = [replace(client, staged=client.board) for client in (B1, B2, X86, PI1, PI2, PI3)]
TEMPLATED = replace(
    STAGED[1], profile=replace(OTHER, templates=(parse("user-data", Path("/t"), "@{board} @{secret} @{mac}"),))
)
WHOLE = BootTree({client.address: client for client in (STAGED[0], TEMPLATED, *STAGED[2:])}, staging=True)
WORDS = [
    *("..", ".", "", "/", "~", "\0", "*", "%2e%2e", "con", "B1", "b1.", "overlays", "grub", "EFI", "extlinux"),
    *("kernel", "kernel.gz", "initrd", "dtb", "boot.scr", "boot.ipxe", "autoexec.ipxe", "config.txt", "cmdline.txt"),
    *("pxelinux.cfg", "default", "grub.cfg", "extlinux.conf", "user-data", "can.dtbo", "start4.elf", "pieeprom.upd"),
    *(client.board for client in STAGED),
    *(folder for client in STAGED for folder in client.folders),
    *(f"01-{client.macs[0].replace(':', '-')}" for client in STAGED),
    *(f"grub.cfg-01-{client.macs[0].replace(':', '-')}" for client in STAGED),
    *(f"{int(client.address):08X}" for client in STAGED),
    *(f"grub.cfg-{int(client.address):08X}" for client in STAGED),
    UUID,
]
any_case = st.sampled_from([str, str.upper, str.title])
words = st.one_of(st.tuples(st.sampled_from(WORDS), any_case).map(lambda pair: pair[1](pair[0])), st.text(max_size=12))
paths = st.tuples(st.lists(words, max_size=6), st.lists(st.sampled_from(["/", "\\", "//", "/./", ""]), max_size=6))


@settings(deadline=None, max_examples=500)
@given(st.sampled_from(STAGED), paths)
def test_no_path_gets_another_boards_file_or_secret(asker, path):
    parts, separators = path
    text = "".join(a + b for a, b in zip(parts, [*separators, *["/"] * len(parts)], strict=False))
    found = WHOLE.look_up(asker.address, text)
    if isinstance(found, StagedFile):
        assert found.folder == asker.board
        assert found.name not in {"", ".", ".."}
        assert not set("/\\\0") & set(found.name)
        found = found.otherwise
    if isinstance(found, Refused):
        return
    assert found.client.board == asker.board
    profile = found.client.profile
    if isinstance(found, SharedFile):
        if found.root is not None:
            assert found.root == profile.folder
            assert ".." not in found.path.relative_to(found.root).parts
            assert not any(part.startswith(".") for part in found.path.relative_to(found.root).parts)
        else:
            named = {profile.kernel, profile.initrd, profile.dtb, *profile.overlays}
            assert found.path in named | {file for _, file in profile.files}
        return
    secret = SECRETS[asker.board] if found.carries_secret else None
    made = content(found, BootIdentity("desk", "10.77.0.1:1883", "boardhand", asker.board, secret)).decode("latin-1")
    assert (SECRETS[asker.board] in made) is found.carries_secret
    for board, other in SECRETS.items():
        if board != asker.board:
            assert other not in made
            assert f"boardhand.board={board} " not in made


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(STAGED), st.sampled_from(STAGED), paths, any_case)
def test_a_folder_of_another_board_leads_nowhere(asker, other, path, case):
    if asker is other:
        return
    for folder in other.folders:
        found = WHOLE.look_up(asker.address, "/".join([case(folder), *path[0], "kernel"]))
        assert isinstance(found, Refused)
