"""What comes out beside a root: files that boot programs take, and a profile that our settings take."""

import gzip
import subprocess
import tomllib

import pytest

from agent.netboot_settings import ProfileTable
from cli import image_boot_files
from cli.image_boot_files import BootFiles
from firmware_tools.debian_packages import PackageError, cache_dir, fetch_busybox, fetch_kernel
from firmware_tools.image.recipe import Recipe

DTB = "rockchip/rk3399-rock-pi-4a.dtb"


def recipe(**kernel):
    return Recipe(name="lab", arch="arm64", kernel=kernel)


@pytest.fixture(scope="module")
def fetched():
    return fetch_kernel("arm64", cache_dir()), fetch_busybox("arm64", cache_dir())


def listed(image):
    done = subprocess.run(
        ["busybox", "cpio", "-t"], input=gzip.decompress(image), capture_output=True, check=True, timeout=60
    )
    return done.stdout.decode().splitlines()


def test_kernel_initramfs_trees_and_their_profile(tmp_path, fetched):
    wanted = recipe(cmdline='console=ttyS0 x="y"', dtbs=[DTB])
    written = BootFiles(wanted, *fetched).write(tmp_path / "boot")
    assert [str(path.relative_to(tmp_path)) for path in written] == ["boot/kernel", "boot/initrd", f"boot/dtbs/{DTB}"]
    assert gzip.decompress(written[0].read_bytes())[56:60] == b"ARMd"
    assert {"lib/boardhand/root-init.sh", "lib/boardhand/modules/nfsv4.ko"} < set(listed(written[1].read_bytes()))
    assert written[2].read_bytes()[:4] == b"\xd0\x0d\xfe\xed"
    table = tomllib.loads(image_boot_files.profile(wanted, tmp_path))["profiles"]["lab"]
    assert (table["cmdline"], table["dtb"]) == ('console=ttyS0 x="y"', str(written[2]))
    ProfileTable.model_validate(table)


def test_a_disk_has_what_uboot_looks_for(fetched):
    found = BootFiles(recipe(cmdline="quiet"), *fetched).on_disk("the-uuid")
    assert found["boot/vmlinuz"][56:60] == b"ARMd"
    lines = [line.strip() for line in found["boot/extlinux/extlinux.conf"].decode().splitlines()]
    assert "append rdinit=/lib/boardhand/disk-init.sh boardhand.disk=the-uuid quiet" in lines
    names = listed(found["boot/initrd.img"])
    for module in ("virtio_blk", "ext4", "sd_mod"):
        assert f"lib/boardhand/modules/{module}.ko" in names
    assert "lib/boardhand/disk-init.sh" in names


def test_a_device_tree_that_the_kernel_has_not(tmp_path, fetched):
    with pytest.raises(PackageError, match=r"kernel\.dtbs: .* no device tree vendor/none\.dtb"):
        BootFiles(recipe(dtbs=["vendor/none.dtb"]), *fetched).write(tmp_path / "boot")
