"""What a board boots with, beside its root: the kernel, an initramfs of ours that goes on to the root, device trees."""

import json
import os
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import board
import firmware_tools.image as image_room
from firmware_tools import debian_packages, initramfs, kernel_modules
from firmware_tools.debian_packages import KernelTree, Progress
from firmware_tools.image.packages import Place
from firmware_tools.image.recipe import Recipe
from netboot.roots import boot_words

PACKED = {"arm64", "riscv64"}
"""Whose boot programs take a kernel packed by gzip; the others' unpack themselves."""
ARCH_OF_PROFILES = {"arm64": "arm64", "armhf": "arm", "amd64": "x86_64", "riscv64": "riscv64"}
DISK_INIT = "lib/boardhand/disk-init.sh"
DISK_MODULES = ("virtio_pci", "virtio_mmio", "virtio_blk", "virtio_rng", "nvme", "sd_mod", "usb_storage", "uas",
                "mmc_block", "crc32c_generic", "ext4")  # fmt: skip
_DISK_DRIVERS = ("kernel/drivers/mmc/host", "kernel/drivers/usb/host", "kernel/drivers/ata")


@dataclass(frozen=True, slots=True)
class BootFiles:
    """Kernel and busybox as fetched, and how to make the rest of them."""

    recipe: Recipe
    kernel: KernelTree
    busybox: Path

    def write(self, folder: Path) -> list[Path]:
        """Kernel, initramfs for roots over NFS, device trees; each whole or not at all.

        Raises:
            KernelModuleError, InitramfsError, CpioError, OSError: see there.
        """
        folder.mkdir(parents=True, exist_ok=True)
        kernel = folder / "kernel"
        _put(kernel, (self.kernel.image_gz if self.recipe.arch in PACKED else self.kernel.image).read_bytes())
        initrd = folder / "initrd"
        modules = self.kernel.modules_dir
        initramfs.build_board_initramfs(
            initrd,
            arch=self.recipe.arch,
            busybox=self.busybox,
            modules=kernel_modules.resolve(modules, kernel_modules.BOARD_MODULES),
            root_modules=kernel_modules.resolve(modules, boot_words.MODULES),
            client="busybox",
            client_file=Path(board.__file__).with_name("client.sh"),
            extra_files=boot_words.initramfs_files(),
        )
        written = [kernel, initrd]
        for name, source in self._device_trees():
            target = folder / "dtbs" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _put(target, source.read_bytes())
            written.append(target)
        return written

    def _device_trees(self) -> list[tuple[str, Path]]:
        wanted = self.recipe.kernel.dtbs if self.recipe.kernel is not None else ()
        root = self.kernel.modules_dir.parent.parent
        place = root / f"linux-image-{self.kernel.version}"
        found = [(str(path.relative_to(place)), path) for path in sorted(place.rglob("*.dtb"))]
        chosen = [(name, path) for name, path in found if any(fnmatch(name, pattern) for pattern in wanted)]
        for pattern in wanted:
            if not any(fnmatch(name, pattern) for name, _ in chosen):
                names = ", ".join(name for name, _ in found[:5]) or "none"
                raise debian_packages.PackageError(
                    f"kernel.dtbs: kernel {self.kernel.version} has no device tree {pattern} (but {names}, …)"
                )
        return chosen

    def on_disk(self, identifier: str) -> dict[str, bytes]:
        """What U-Boot's distro boot finds on a disk's image: see its doc/develop/distro.rst and doc/README.pxe."""
        with tempfile.TemporaryDirectory() as folder:
            initrd = Path(folder) / "initrd"
            initramfs.build_board_initramfs(
                initrd,
                arch=self.recipe.arch,
                busybox=self.busybox,
                modules=kernel_modules.resolve(self.kernel.modules_dir, self._disk_modules()),
                client="busybox",
                client_file=Path(board.__file__).with_name("client.sh"),
                extra_files={DISK_INIT: Path(image_room.__file__).with_name("board_disk_init.sh").read_bytes()},
            )
            packed = initrd.read_bytes()
        trees = {f"boot/dtbs/{name}": path.read_bytes() for name, path in self._device_trees()}
        cmdline = self.recipe.kernel.cmdline if self.recipe.kernel is not None else ""
        lines = [
            "default boardhand", "timeout 10", "label boardhand", "  linux /boot/vmlinuz", "  initrd /boot/initrd.img",
            *(["  fdtdir /boot/dtbs"] if trees else []),
            f"  append rdinit=/{DISK_INIT} boardhand.disk={identifier} {cmdline}".rstrip(),
        ]  # fmt: skip
        return {
            "boot/vmlinuz": self.kernel.image.read_bytes(),
            "boot/initrd.img": packed,
            "boot/extlinux/extlinux.conf": ("\n".join(lines) + "\n").encode(),
            **trees,
        }

    def _disk_modules(self) -> list[str]:
        """Those that this kernel has as modules; what is built into it needs none."""
        modules = self.kernel.modules_dir
        names = {kernel_modules.plain_name(path.name): path for path in sorted(modules.rglob("*.ko*"))}
        drivers = [
            name for name, path in names.items()
            if any(str(path.relative_to(modules)).startswith(f"{place}/") for place in _DISK_DRIVERS)
        ]  # fmt: skip
        return [*drivers, *(name for name in DISK_MODULES if name in names)]


def fetch(recipe: Recipe, where: Place, cache: Path, progress: Progress) -> BootFiles:
    """Kernel and busybox, from the same sources as the packages.

    Raises:
        PackageError: they cannot be had.
    """
    sources = where.sources(recipe)
    into = cache if sources is None else where.folder
    kernel = debian_packages.fetch_kernel(recipe.arch, into, progress, sources)
    return BootFiles(recipe, kernel, debian_packages.fetch_busybox(recipe.arch, into, progress, sources))


def _put(target: Path, content: bytes) -> None:
    fresh = target.with_name(f"{target.name}.{os.getpid()}.new")
    try:
        fresh.write_bytes(content)
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def _toml(value: object) -> str:
    """A string of TOML: JSON's rules for them are the same, but for a character that neither paths nor we have."""
    return json.dumps(str(value), ensure_ascii=False)


def profile(recipe: Recipe, folder: Path) -> str:
    """The stanza of the agent's settings by which boards run from this image over NFS."""
    cmdline = recipe.kernel.cmdline if recipe.kernel is not None else ""
    trees = sorted((folder / "boot/dtbs").rglob("*.dtb")) if recipe.kernel is not None and recipe.kernel.dtbs else []
    lines = [
        f"[profiles.{recipe.name}]",
        f'arch = "{ARCH_OF_PROFILES[recipe.arch]}"',
        f"kernel = {_toml(folder / 'boot/kernel')}",
        f"initrd = {_toml(folder / 'boot/initrd')}",
        *([f"dtb = {_toml(trees[0])}"] if len(trees) == 1 else []),
        *([f"cmdline = {_toml(cmdline)}"] if cmdline else []),
        f'root = "{recipe.name}"',
        'root_view = "server"',
        'root_reset = "boot"',
    ]
    return "\n".join(lines) + "\n"
