"""Boot programs that a firmware starts by the net: GRUB, the shim before it, and iPXE.

They are looked for in a profile's folder, then where Debian's packages put them.
"""

from pathlib import Path

from netboot.profile import Arch

SHIM_NAMES: dict[Arch, str] = {"x86_64": "bootx64.efi", "arm64": "bootaa64.efi", "riscv64": "bootriscv64.efi"}
"""What UEFI calls the program to start (UEFI 2.10, table 3.2); GRUB itself where there is no shim."""
GRUB_NAMES: dict[Arch, str] = {"x86_64": "grubx64.efi", "arm64": "grubaa64.efi", "riscv64": "grubriscv64.efi"}
"""What a shim asks for, beside itself."""
IPXE_BIOS, IPXE_EFI = "undionly.kpxe", "ipxe.efi"

_Sources = tuple[str, ...]
_SHIM: dict[Arch, _Sources] = {
    "x86_64": ("shimx64.efi", "/usr/lib/shim/shimx64.efi.signed"),
    "arm64": ("shimaa64.efi", "/usr/lib/shim/shimaa64.efi.signed"),
}
_GRUB: dict[Arch, _Sources] = {
    "x86_64": (
        "grubx64.efi",
        "grubnetx64.efi",
        "grub/x86_64-efi/core.efi",
        "boot/grub/x86_64-efi/core.efi",
        "/usr/lib/grub/x86_64-efi-signed/grubnetx64.efi.signed",
        "/usr/lib/grub/x86_64-efi/monolithic/grubnetx64.efi",
    ),
    "arm64": (
        "grubaa64.efi",
        "grubnetaa64.efi",
        "grub/arm64-efi/core.efi",
        "boot/grub/arm64-efi/core.efi",
        "/usr/lib/grub/arm64-efi-signed/grubnetaa64.efi.signed",
        "/usr/lib/grub/arm64-efi/monolithic/grubnetaa64.efi",
    ),
    "riscv64": (
        "grubriscv64.efi",
        "grub/riscv64-efi/core.efi",
        "boot/grub/riscv64-efi/core.efi",
        "/usr/lib/grub/riscv64-efi/monolithic/grubnetriscv64.efi",
    ),
}
_IPXE: dict[str, dict[Arch, _Sources]] = {
    IPXE_BIOS: {"x86_64": ("undionly.kpxe", "/usr/lib/ipxe/undionly.kpxe")},
    IPXE_EFI: {
        "x86_64": ("ipxe.efi", "snponly.efi", "/usr/lib/ipxe/ipxe.efi", "/usr/lib/ipxe/snponly.efi"),
        "arm64": ("ipxe.efi", "ipxe-arm64.efi", "snponly.efi"),
        "riscv64": ("ipxe.efi", "snponly.efi"),
    },
}


def find(arch: Arch, folder: Path | None = None, *, system_root: Path = Path("/")) -> tuple[tuple[str, Path], ...]:
    """The boot programs for `arch` by the name that boards ask for. Looks at the disk: not for the event loop.

    A folder that holds the file under the name that is asked for is taken as it is: shim and GRUB there belong
    together, and none of Debian's is mixed in.
    """
    found: dict[str, Path] = {}
    first, second = SHIM_NAMES.get(arch), GRUB_NAMES.get(arch)
    if first is not None and second is not None:
        given = _first((first,), folder, system_root)
        grub = _first(_GRUB[arch], folder, system_root, system=given is None)
        if given is not None:
            found[first] = given
        elif grub is not None:
            # The shim starts only a GRUB that its vendor signed: a GRUB of the folder goes without Debian's shim.
            ours = folder is not None and grub.is_relative_to(folder)
            shim = _first(_SHIM.get(arch, ()), folder, system_root, system=not ours)
            found[first] = grub if shim is None else shim
        if grub is not None:
            found[second] = grub
    for name, by_arch in _IPXE.items():
        program = _first(by_arch.get(arch, ()), folder, system_root)
        if program is not None:
            found[name] = program
    return tuple(found.items())


def _first(sources: _Sources, folder: Path | None, system_root: Path, *, system: bool = True) -> Path | None:
    for source in sources:
        if source.startswith("/"):
            path = system_root / source[1:] if system else None
        else:
            path = None if folder is None else folder / source
        if path is not None and path.is_file():
            # Debian's ipxe.efi is a link to /boot, and a link that leads out of its folder is not served.
            return path.resolve() if source.startswith("/") else path
    return None
