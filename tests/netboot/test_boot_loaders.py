"""Boot programs: a folder's own, else Debian's; a shim only before a GRUB that it starts."""

import pytest

from netboot.boot_loaders import find

SIGNED = "usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed"
PLAIN = "usr/lib/grub/x86_64-efi/monolithic/grubnetx64.efi"
SHIM = "usr/lib/shim/shimx64.efi.signed"


@pytest.fixture
def put(tmp_path):
    def put(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"MZ")

    (tmp_path / "own").mkdir()
    return put


def found(tmp_path, arch="x86_64"):
    programs = find(arch, tmp_path / "own", system_root=tmp_path)
    return {name: str(path.relative_to(tmp_path)) for name, path in programs}


def test_nothing_is_there(tmp_path, put):
    assert found(tmp_path) == {}
    assert find("arm", None, system_root=tmp_path) == ()


def test_debians(tmp_path, put):
    put(PLAIN, "usr/lib/ipxe/undionly.kpxe", "usr/lib/ipxe/ipxe.efi")
    ipxe = {"undionly.kpxe": "usr/lib/ipxe/undionly.kpxe", "ipxe.efi": "usr/lib/ipxe/ipxe.efi"}
    assert found(tmp_path) == {"bootx64.efi": PLAIN, "grubx64.efi": PLAIN, **ipxe}
    put(SIGNED, SHIM)
    assert found(tmp_path) == {"bootx64.efi": SHIM, "grubx64.efi": SIGNED, **ipxe}
    assert found(tmp_path, "arm64") == {}
    put("usr/lib/grub/riscv64-efi/monolithic/grubnetriscv64.efi")
    assert found(tmp_path, "riscv64").keys() == {"bootriscv64.efi", "grubriscv64.efi"}


def test_a_folders_own_are_not_mixed_with_debians(tmp_path, put):
    put(SIGNED, SHIM, "own/grub/x86_64-efi/core.efi")
    core = "own/grub/x86_64-efi/core.efi"
    assert found(tmp_path) == {"bootx64.efi": core, "grubx64.efi": core}
    put("own/bootx64.efi")
    assert found(tmp_path) == {"bootx64.efi": "own/bootx64.efi", "grubx64.efi": core}
    put("own/shimx64.efi", "own/grubx64.efi")
    assert found(tmp_path) == {"bootx64.efi": "own/bootx64.efi", "grubx64.efi": "own/grubx64.efi"}


def test_a_whole_set_in_the_folder_without_its_grub(tmp_path, put):
    put(SIGNED, "own/bootx64.efi")
    assert found(tmp_path) == {"bootx64.efi": "own/bootx64.efi"}


def test_a_link_of_debians_is_followed_as_it_leads_out_of_its_folder(tmp_path, put):
    put("boot/ipxe.efi", "usr/lib/ipxe/undionly.kpxe")
    (tmp_path / "usr/lib/ipxe/ipxe.efi").symlink_to(tmp_path / "boot/ipxe.efi")
    assert found(tmp_path)["ipxe.efi"] == "boot/ipxe.efi"
