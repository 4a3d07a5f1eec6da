"""Machines that boot from the network with other people's firmware, in QEMU: U-Boot, iPXE, UEFI as Debian ships them.

They have no disk. What they ask for, in which order and with which options is their makers' doing: a server that
serves them all has been tested by somebody else than its author.
"""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from virtual_lab import uboot_environment
from virtual_lab.lab_tools import MissingToolError
from virtual_lab.network import Cable

MEMORY_MB = 512
# Flash banks of QEMU's `virt` machine; firmware images are shorter, and QEMU wants them whole.
_VIRT_FLASH_BYTES = 64 * 1024 * 1024


class Machine(StrEnum):
    """A kind of client."""

    UBOOT_ARM64 = "uboot-arm64"
    UBOOT_ARM = "uboot-arm"
    UBOOT_RISCV64 = "uboot-riscv64"
    IPXE_X86 = "ipxe-x86"
    UEFI_X64 = "uefi-x64"
    UEFI_ARM64 = "uefi-arm64"


@dataclass(frozen=True, slots=True)
class Kind:
    """What a machine is made of.

    Attributes:
        arch: Debian's name of its kernels' architecture.
        console: the kernel's name of its serial port.
        firmware: what it runs first, None for what QEMU brings along (SeaBIOS and iPXE's ROM).
        variables: where UEFI keeps its variables; each machine has a copy of its own.
        firmware_option: how QEMU is told the firmware, where it is not in flash.
        packages: of Debian, where all this is.
    """

    qemu: str
    machine: str
    arch: str
    console: str
    packages: str
    cpu: str = ""
    firmware: Path | None = None
    variables: Path | None = None
    firmware_option: str = "-bios"


KINDS: Mapping[Machine, Kind] = {
    Machine.UBOOT_ARM64: Kind(
        "qemu-system-aarch64", "virt", "arm64", "ttyAMA0", "qemu-system-arm u-boot-qemu", "cortex-a57",
        Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin"),
    ),
    # highmem: a 32-bit kernel without LPAE, and U-Boot, do not reach PCI above 4 GiB.
    Machine.UBOOT_ARM: Kind(
        "qemu-system-arm", "virt,highmem=off", "armhf", "ttyAMA0", "qemu-system-arm u-boot-qemu", "cortex-a15",
        Path("/usr/lib/u-boot/qemu_arm/u-boot.bin"),
    ),
    # OpenSBI, which QEMU brings along, starts it as it would start a kernel.
    Machine.UBOOT_RISCV64: Kind(
        "qemu-system-riscv64", "virt", "riscv64", "ttyS0", "qemu-system-misc u-boot-qemu", "",
        Path("/usr/lib/u-boot/qemu-riscv64_smode/u-boot.bin"), firmware_option="-kernel",
    ),
    Machine.IPXE_X86: Kind("qemu-system-x86_64", "q35", "amd64", "ttyS0", "qemu-system-x86 ipxe-qemu"),
    Machine.UEFI_X64: Kind(
        "qemu-system-x86_64", "q35", "amd64", "ttyS0", "qemu-system-x86 ovmf", "",
        Path("/usr/share/OVMF/OVMF_CODE_4M.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ),
    Machine.UEFI_ARM64: Kind(
        "qemu-system-aarch64", "virt", "arm64", "ttyAMA0", "qemu-system-arm qemu-efi-aarch64", "cortex-a57",
        Path("/usr/share/AAVMF/AAVMF_CODE.fd"), Path("/usr/share/AAVMF/AAVMF_VARS.fd"),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ClientSpec:
    """One machine. `folder` holds its files.

    `environment` is U-Boot's, in flash, whole; None leaves Debian's built-in one, which asks for `boot.scr.uimg`.
    `uefi_http` makes UEFI boot by HTTP and not by PXE.
    """

    machine: Machine
    mac: str
    uuid: str
    folder: Path
    environment: Mapping[str, str] | None = None
    uefi_http: bool = False

    @property
    def kind(self) -> Kind:
        return KINDS[self.machine]


def missing_packages(machines: tuple[Machine, ...] = tuple(Machine)) -> str:
    """Debian's packages, one of which is missing for one of `machines`; empty when all is there."""
    found: dict[str, None] = {}
    for kind in (KINDS[machine] for machine in machines):
        files = [path for path in (kind.firmware, kind.variables) if path is not None]
        if shutil.which(kind.qemu) is None or not all(path.is_file() for path in files):
            found.update(dict.fromkeys(kind.packages.split()))
    return " ".join(found)


def machine_arguments(kind: Kind, *options: str) -> list[str]:
    """QEMU's program, machine and firmware. `options` are further ones of `-M`.

    U-Boot goes in by `-bios` also where only the device tree is asked for: the machine has a GPIO block less then.
    """
    cpu = ["-cpu", kind.cpu] if kind.cpu else []
    bios = [kind.firmware_option, str(kind.firmware)] if kind.firmware and kind.variables is None else []
    machine = ",".join((kind.machine, *options))
    return [kind.qemu, "-M", machine, *cpu, "-m", str(MEMORY_MB), "-smp", "1", "-nographic", *bios]


def prepare(spec: ClientSpec) -> None:
    """Write the machine's own files: U-Boot's environment, UEFI's variables.

    Raises:
        MissingToolError: a program or firmware is not installed.
        OSError: they cannot be written.
    """
    missing = missing_packages((spec.machine,))
    if missing:
        raise MissingToolError(f"{spec.machine}: apt-get install --no-install-recommends {missing}")
    spec.folder.mkdir(parents=True, exist_ok=True)
    if spec.environment is not None:
        with (spec.folder / "environment.img").open("wb") as flash:
            flash.write(uboot_environment.image(dict(spec.environment)))
            flash.truncate(uboot_environment.FLASH_BYTES)
    if spec.kind.variables is not None:
        shutil.copyfile(spec.kind.variables, spec.folder / "variables.fd")


def command(spec: ClientSpec, cable: Cable) -> list[str]:
    """QEMU's command line: the console is its standard input and output, and it ends when the machine goes off."""
    kind = spec.kind
    # romfile: UEFI and U-Boot have drivers of their own. disable-legacy: U-Boot 2023.01 reads a wrong MAC otherwise.
    modern = "" if spec.machine is Machine.IPXE_X86 else ",romfile=,disable-legacy=on"
    flash: list[str] = []
    if spec.environment is not None:
        flash = ["-drive", f"if=pflash,index=1,format=raw,file={_escaped(spec.folder / 'environment.img')}"]
    if kind.variables is not None:
        flash = [
            "-drive", f"if=pflash,format=raw,readonly=on,file={kind.firmware}",
            "-drive", f"if=pflash,format=raw,file={_escaped(spec.folder / 'variables.fd')}",
        ]  # fmt: skip
    return [
        *machine_arguments(kind),
        *flash,
        *(_http_only() if spec.uefi_http else ()),
        *_smbios(spec),
        "-no-reboot", "-monitor", "none", "-serial", "stdio", "-boot", "n",
        "-netdev", cable.qemu_netdev("n0"), "-device", f"virtio-net-pci,netdev=n0,mac={spec.mac}{modern}",
        "-device", "virtio-rng-pci",
    ]  # fmt: skip


def _smbios(spec: ClientSpec) -> list[str]:
    """QEMU 7.2 has no SMBIOS for riscv64."""
    if spec.machine is Machine.UBOOT_RISCV64:
        return []
    return ["-uuid", spec.uuid, "-smbios", f"type=1,serial={spec.folder.name}"]


def _http_only() -> list[str]:
    """OvmfPkg and ArmVirtPkg take these from QEMU: no PXE, so that HTTP is what is left to boot from."""
    names = ("IPv4PXESupport", "IPv6PXESupport")
    return [word for name in names for word in ("-fw_cfg", f"name=opt/org.tianocore/{name},string=n")]


def _escaped(path: Path) -> str:
    """A path inside one of QEMU's comma-separated option strings."""
    return str(path).replace(",", ",,")
