"""U-Boot's environment as it lies in flash: a CRC-32 and `name=value` texts (u-boot, env/common.c, env/flash.c)."""

import zlib

# qemu_arm64_defconfig: CONFIG_ENV_SIZE, and the size of the `virt` machine's second flash bank.
ENVIRONMENT_BYTES = 0x40000
FLASH_BYTES = 64 * 1024 * 1024

# An environment in flash replaces the built-in one whole, so everything that PXE boot needs stands here. Addresses
# are qemu-arm.h's; fdt_addr_r and kernel_comp_* are not set there, and without them `fdt` lines and compressed
# kernels are not taken. The kernel (33 MB) fits between kernel_addr_r and ramdisk_addr_r.
_BASE = {
    "arch": "arm",
    "bootdelay": "0",
    "autoload": "no",
    "baudrate": "115200",
    "board": "qemu-arm",
    "cpu": "armv8",
    "fdt_high": "0xffffffff",
    "initrd_high": "0xffffffff",
    "loadaddr": "0x40200000",
    "scriptaddr": "0x40200000",
    "pxefile_addr_r": "0x40300000",
    "kernel_addr_r": "0x40400000",
    "ramdisk_addr_r": "0x44000000",
    "fdt_addr_r": "0x4a000000",
    "kernel_comp_addr_r": "0x50000000",
    "kernel_comp_size": "0x04000000",
    "stdin": "serial,usbkbd",
    "stdout": "serial",
    "stderr": "serial",
    "vendor": "emulation",
    # A board that nobody answers tries again for ever: its agent may be a minute late.
    "bootcmd": "while true; do run bootcmd_pxe; sleep 2; done",
    "bootcmd_pxe": "pci enum; if dhcp; then if pxe get; then pxe boot; fi; fi",
}


def netboot_environment(uuid: str) -> dict[str, str]:
    """The environment of a board that boots by `pxe` for ever; `uuid` makes it send DHCP option 97."""
    return {**_BASE, "pxeuuid": uuid}


def script_environment() -> dict[str, str]:
    """What stands in for a built-in environment by which no script is fetched: that of Debian 13's U-Boot (2025.01).

    Its standard boot asks DHCP for a script only where `boot_script_dhcp` is set (u-boot, boot/bootmeth_script.c), and
    the environment of qemu_arm64 sets it no more, as that of Debian 12's U-Boot did.
    """
    left_out = {"bootcmd_pxe", "autoload", "fdt_addr_r", "kernel_comp_addr_r", "kernel_comp_size"}  # as built in
    built_in = {name: value for name, value in _BASE.items() if name not in left_out}
    asked = {"bootcmd": "bootflow scan -lb", "boot_targets": "dhcp", "boot_script_dhcp": "boot.scr.uimg"}
    return {**built_in, **asked, "bootdelay": "2"}


def asks_for_a_script(uboot: bytes) -> bool:
    """Whether U-Boot, with the environment that is built into it, fetches a script by DHCP."""
    return b"boot_script_dhcp=" in uboot


def image(environment: dict[str, str], size: int = ENVIRONMENT_BYTES) -> bytes:
    """The environment as U-Boot reads it from flash.

    Raises:
        ValueError: a name or value holds what the format cannot, or it is more than `size` bytes.
    """
    texts = bytearray()
    for name, value in sorted(environment.items()):
        if not name or "=" in name or "\0" in name + value:
            raise ValueError(f"{name!r} cannot stand in an environment: names have no '=', nothing has NUL")
        texts += f"{name}={value}\0".encode()
    texts += b"\0"
    room = size - 4
    if len(texts) > room:
        raise ValueError(f"the environment is {len(texts)} bytes, the flash has room for {room}")
    data = bytes(texts).ljust(room, b"\xff")
    return zlib.crc32(data).to_bytes(4, "little") + data
