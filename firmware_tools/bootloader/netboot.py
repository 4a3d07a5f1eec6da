"""A boot from the net by dialogue, without a change to saved state: variables in RAM, addresses by DHCP or as given,
the boot script that the netboot server makes for this board, and what of it fails."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from firmware_tools.bootloader import shell as on
from firmware_tools.bootloader.command import CommandResult, Ended
from firmware_tools.bootloader.dialect import Kind, Status
from firmware_tools.bootloader.errors import CommandError, LeftError, WordsError
from firmware_tools.bootloader.exchange import Flow
from firmware_tools.bootloader.shell import Shell

DHCP_WITHIN_S = 60.0
"""A link takes up to 5 s to come up and a switch port 30 s to forward; U-Boot itself gives up later."""
FETCH_WITHIN_S = 120.0
BOOT_WITHIN_S = 600.0
"""From the script's first line to the kernel's: 100 MB by TFTP over a slow cable."""
SILENT_S = 90.0
"""A transfer prints a `#` for every 10 blocks; a big image is unpacked and checked in silence."""
LOAD_ADDRESSES = ("scriptaddr", "loadaddr", "kernel_addr_r")
WAKE_NETWORK = ("pci enum", "usb start")
"""What brings up a network card that is on one of these; done where U-Boot says that it has none."""
_NO_NETWORK = re.compile(r"No ethernet found|No such device|eth\w* not found|Net Initialization Skipped", re.IGNORECASE)
_NUMBER = re.compile(r"(?:0x)?[0-9A-Fa-f]{1,16}")


@dataclass(frozen=True, slots=True)
class NetbootOrder:
    """What to boot.

    Attributes:
        boot_file: of the profile, as DHCP names it.
        address: the board's own, for a U-Boot without DHCP; with `netmask`, dotted.
        server: who serves TFTP; None: whom DHCP names.
        commands: in place of all this; `{server}`, `{address}`, `{netmask}` and `{boot_file}` are filled in. The last
            one is to boot.
    """

    boot_file: str = "boot.scr.uimg"
    address: str | None = None
    netmask: str | None = None
    server: str | None = None
    commands: tuple[str, ...] = ()
    within_s: float = BOOT_WITHIN_S


@dataclass(frozen=True, slots=True)
class Booted:
    """A kernel runs; `line` is how that was told."""

    line: str


def netboot(shell: Shell, order: NetbootOrder) -> Flow[Booted]:
    """Boot by dialogue; over when a kernel says that it runs.

    Raises:
        CommandError: a step failed, and the boot loader stands at its prompt again.
        LeftError: it began anew, or hangs.
        WordsError: there is no way to boot so; nothing was typed.
    """
    if order.commands:
        return (yield from _as_told(shell, order))
    if shell.dialect.kind is not Kind.U_BOOT:
        raise WordsError(f"boot_commands are needed to boot a {shell.dialect.kind.value} from the net")
    yield from _must(shell, "setenv autoload no")
    yield from _get_address(shell, order)
    if order.server is not None:
        yield from _must(shell, f"setenv serverip {order.server}")
    at = yield from _load_address(shell)
    yield from _must(shell, f"tftpboot {at} {order.boot_file}", within_s=FETCH_WITHIN_S)
    booted = yield from _boot(shell, f"source {at}", order)
    if isinstance(booted, Booted):
        return booted
    if not shell.dialect.unknown_command.search(booted.output.partition("\n")[0]):
        raise _came_back(booted)
    # No `source` in it: the PXE file is made for the same boot, and what it needs stands in most environments.
    yield from _must(shell, f"setenv bootfile {order.boot_file}")
    yield from _must(shell, "pxe get", within_s=FETCH_WITHIN_S)
    booted = yield from _boot(shell, "pxe boot", order)
    if isinstance(booted, Booted):
        return booted
    raise _came_back(booted)


def _as_told(shell: Shell, order: NetbootOrder) -> Flow[Booted]:
    names = {
        "server": order.server or "",
        "address": order.address or "",
        "netmask": order.netmask or "",
        "boot_file": order.boot_file,
    }
    last: CommandResult | None = None
    for command in filled(order.commands, names):
        if last is not None and last.ok is False:
            raise _failed(last)
        result = yield from _boot(shell, command, order)
        if isinstance(result, Booted):
            return result
        last = result
    raise WordsError("boot_commands: none are given") if last is None else _came_back(last)


def filled(commands: tuple[str, ...], names: dict[str, str]) -> Iterator[str]:
    """Commands with `{server}` and the like filled in; other braces are the shell's own, as `${loadaddr}`."""
    known = re.compile(r"(?<!\$)\{(" + "|".join(names) + r")\}")
    for command in commands:
        yield known.sub(lambda match: names[match[1]], command)


def _must(shell: Shell, command: str, within_s: float = 10.0) -> Flow[CommandResult]:
    result: CommandResult = on.still_there((yield from on.run(shell, command, within_s=within_s)))
    if result.ended is not Ended.DONE or result.ok is False:
        raise _failed(result)
    return result


def _failed(result: CommandResult) -> CommandError:
    how = "did not end in time" if result.ended is not Ended.DONE else "failed"
    lines = tuple(line for line in result.output.split("\n") if line.strip())
    said = f": {lines[-1][:200]}" if lines else ""
    return CommandError(f"{result.command[:120]!r} {how}{said}", lines[-40:])


def _came_back(result: CommandResult) -> CommandError:
    lines = tuple(line for line in result.output.split("\n") if line.strip())
    said = f": {lines[-1][:200]}" if lines else ""
    return CommandError(f"no kernel was started, {result.command[:120]!r} came back{said}", lines[-40:])


def _get_address(shell: Shell, order: NetbootOrder) -> Flow[None]:
    result: CommandResult = on.still_there((yield shell.command("dhcp", within_s=DHCP_WITHIN_S)))
    if result.ok is not False and not _NO_NETWORK.search(result.output):
        return
    if shell.dialect.unknown_command.search(result.output):
        if order.address is None or order.server is None:
            raise CommandError("this U-Boot has no 'dhcp', and the board has no address in the settings")
        yield from _must(shell, f"setenv ipaddr {order.address}")
        if order.netmask is not None:
            yield from _must(shell, f"setenv netmask {order.netmask}")
        return
    if _NO_NETWORK.search(result.output):
        for command in WAKE_NETWORK:
            on.still_there((yield shell.command(command, within_s=DHCP_WITHIN_S)))
    yield from _must(shell, "dhcp", DHCP_WITHIN_S)


def _load_address(shell: Shell) -> Flow[str]:
    for name in LOAD_ADDRESSES:
        value = yield from on.read(shell, name)
        if value is not None and _NUMBER.fullmatch(value):
            return f"${{{name}}}" if shell.status is not Status.NONE else value
    raise CommandError(f"none of {', '.join(LOAD_ADDRESSES)} is set: give boot_commands, or set one")


def _boot(shell: Shell, command: str, order: NetbootOrder) -> Flow[Booted | CommandResult]:
    result: CommandResult = yield from on.run(
        shell, command, within_s=order.within_s, leaves=True, silent_s=min(SILENT_S, order.within_s)
    )
    if result.ended is Ended.KERNEL:
        return Booted(result.output.rpartition("\n")[2].strip())
    try:
        return on.still_there(result)
    except LeftError as error:
        last = next((line for line in reversed(error.lines) if line.strip()), "")
        raise LeftError(f"{error}: {last[:200]}", error.lines, again=error.again) from None
