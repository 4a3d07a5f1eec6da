"""What the boot files of all families share: the names that files are fetched under, and the kernel's command line."""

from dataclasses import dataclass

from netboot.profile import BootProfile

KERNEL, INITRD, DTB = "kernel", "initrd", "dtb"
"""The names under which a profile's files are fetched."""
OVERLAYS = "overlays"
"""The folder of the device-tree overlays, as the Raspberry Pi's firmware has it."""


@dataclass(frozen=True, slots=True)
class BootIdentity:
    """What the command line says of this boot. `board` and `secret` are None for a board that may join; `server` is
    our own address, `root` the words that tell the kernel of the board's root."""

    agent: str
    mqtt: str
    prefix: str
    board: str | None = None
    secret: str | None = None
    server: str = ""
    root: tuple[str, ...] = ()


def command_line(profile: BootProfile, identity: BootIdentity) -> str:
    """The kernel's command line: the profile's, its root, and what the board's client needs to register."""
    return " ".join([*([profile.cmdline] if profile.cmdline else []), *identity.root, *client_words(identity)])


def client_words(identity: BootIdentity) -> list[str]:
    """What the board's client needs to register."""
    words = []
    if identity.board is not None:
        words.append(f"boardhand.board={identity.board}")
    words += [
        f"boardhand.agent={identity.agent}",
        f"boardhand.mqtt={identity.mqtt}",
        f"boardhand.prefix={identity.prefix}",
    ]
    if identity.secret is not None:
        words.append(f"boardhand.secret={identity.secret}")
    return words


def kernel_name(profile: BootProfile) -> str:
    """`kernel`, with the ending of a compressed one, for the people who read captures."""
    return KERNEL + profile.kernel.suffix if profile.compressed else KERNEL


def overlay_names(profile: BootProfile) -> list[str]:
    """The names of the overlays without their ending, in the order of applying."""
    return [path.name.partition(".")[0] for path in profile.overlays]
