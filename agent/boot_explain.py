"""`agent/<agent>/request/netboot`: what a board would be served and why, and its last boots."""

import asyncio
import os
from collections.abc import Mapping
from datetime import datetime
from ipaddress import IPv4Address
from pathlib import Path

from agent import netboot_bridge
from agent.requests import Answer, RequestError, text
from agent.settings import AgentSettings
from netboot.boot_diagnosis import Diagnosis, diagnose
from netboot.boot_files import DTB, INITRD, BootIdentity, boot_file_for, command_line, kernel_name
from netboot.boot_history import BootHistory, Stranger
from netboot.boot_record import Boot, BootRequest, Mark, phases
from netboot.boot_tree import GeneratedFile, TreeClient, look_up
from netboot.dhcp_options import ClientKind, named_to
from netboot.profile import BootProfile
from netboot.server import NetbootBoard
from wire.netboot import (
    MAX_BOOTS,
    BootDiagnosis,
    BootPhase,
    BootReport,
    BootRequestInfo,
    NetbootReport,
    RequestOutcome,
    RequestVia,
    Served,
    ServedFile,
    ServedName,
    StrangerInfo,
)
from wire.payloads import encode
from wire.phases import ErrorKind

MAX_ANSWER_BYTES = 120_000
"""Boots beyond go into the next answer; one boot with all its requests is at most about 100 kB, and an MQTT message
256 kB."""
MAX_DIGITS = 18
"""Of a boot's number: what fits into SQLite's 64 bits."""
HIDDEN = "…"
"""Stands where a secret would."""


async def answer(settings: AgentSettings, history: BootHistory, data: Mapping[str, object], now: datetime) -> Answer:
    """The answer to one request.

    Raises:
        RequestError: the board is not ours, or a value cannot be used.
    """
    board = text(data, "board")
    if board not in settings.boards:
        raise RequestError(ErrorKind.UNKNOWN_BOARD, f"agent {settings.agent.name} has no board {board}", "board")
    wanted = _count(data)
    before = _after(data)
    boots = [boot for boot in history.boots(board)[:wanted] if before is None or boot.number < before]
    strangers = history.strangers()
    served = await asyncio.to_thread(what_is_served, settings, board)
    named = sorted({entry.name for entry in served.boot_files})
    reports: list[BootReport] = []
    size_bytes, following = 0, None
    for boot in boots:
        report = boot_report(boot, diagnose(boot, now, strangers=strangers, named=named))
        size_bytes += len(encode(report))
        if reports and size_bytes > MAX_ANSWER_BYTES:
            following = str(reports[-1].number)
            break
        reports.append(report)
    found = NetbootReport(
        board=board,
        served=served,
        boots=reports,
        strangers=[_stranger(stranger) for stranger in strangers] if before is None else [],
        next=following,
    )
    return found.model_dump(mode="json", exclude_none=True)


def _count(data: Mapping[str, object]) -> int:
    wanted = data.get("boots", MAX_BOOTS)
    if isinstance(wanted, bool) or not isinstance(wanted, int) or not 1 <= wanted <= MAX_BOOTS:
        raise RequestError(ErrorKind.BAD_REQUEST, f"boots: a number from 1 to {MAX_BOOTS}", "boots")
    return wanted


def _after(data: Mapping[str, object]) -> int | None:
    after = data.get("after", "")
    if after == "":
        return None
    if not isinstance(after, str) or not after.isascii() or not after.isdigit() or len(after) > MAX_DIGITS:
        raise RequestError(ErrorKind.BAD_REQUEST, "after: the text of 'next' in the answer before", "after")
    return int(after)


# --- what is served ------------------------------------------------------------------------------------------------


def what_is_served(settings: AgentSettings, board: str) -> Served:
    """What the settings let netboot serve to `board`, with a look at the files on disk: not for the event loop."""
    table = settings.boards[board]
    netboot = settings.netboot
    known = next((entry for entry in netboot_bridge.boards(settings) if entry.board == board), None)
    if netboot is None:
        return Served(problem="this agent serves no board network: its settings have no [netboot] table")
    if known is None:
        lacks = "profile" if table.profile is None else "address"
        return Served(
            problem=f"it is given nothing: [boards.{board}] has no {lacks}",
            macs=list(table.macs),
            address=None if table.address is None else str(table.address),
        )
    identity = BootIdentity(settings.agent.name, netboot.mqtt_for_boards, settings.mqtt.prefix, board, HIDDEN)
    profile = known.profile
    return Served(
        macs=list(known.macs),
        address=str(known.address),
        server=str(netboot.address.ip),
        interface=netboot.interface,
        profile=profile.name,
        arch=profile.arch,
        boot_files=[
            ServedName(client=client, name=name)
            for client, name in boot_files(profile, netboot.address.ip, netboot.http_port or None)
        ],
        files=[*(_file(*entry) for entry in _files(profile)), *_made(known)],
        cmdline=command_line(profile, identity)[:4096],
        why=_why(settings, board, known),
    )


def boot_files(profile: BootProfile, server: IPv4Address, http_port: int | None) -> list[tuple[str, str]]:
    """What DHCP names to each kind of client: the clients in words, and the name."""
    clients: dict[str, list[str]] = {}
    for kind, words in _CLIENTS.items():
        name = named_to(kind, boot_file_for(profile, kind), server, http_port)
        if name is not None:
            clients.setdefault(name, []).append(words)
    return [(", ".join(words), name) for name, words in clients.items()]


_CLIENTS = {
    ClientKind.UBOOT: "U-Boot",
    ClientKind.IPXE: "iPXE",
    ClientKind.IPXE_TFTP: "iPXE without HTTP",
    ClientKind.PXE_BIOS: "PXE of a BIOS",
    ClientKind.UEFI_X64: "UEFI x64",
    ClientKind.UEFI_ARM64: "UEFI arm64",
    ClientKind.UEFI_ARM: "UEFI arm",
    ClientKind.UEFI_RISCV64: "UEFI riscv64",
    ClientKind.HTTP_X64: "UEFI x64 by HTTP",
    ClientKind.HTTP_ARM64: "UEFI arm64 by HTTP",
    ClientKind.RASPBERRY_PI: "Raspberry Pi",
    ClientKind.OTHER: "others",
}
_MADE = ("boot.scr.uimg", "pxelinux.cfg/default", "boot.ipxe", "grub.cfg", "config.txt", "cmdline.txt")
"""Names of files that are made when they are asked for, where the profile has them."""


def _made(known: NetbootBoard) -> list[ServedFile]:
    client = TreeClient(known.board, known.macs, known.address, known.profile, known.uuid)
    return [ServedFile(role="config", name=name) for name in _MADE if isinstance(look_up(client, name), GeneratedFile)]


def _files(profile: BootProfile) -> list[tuple[str, str, Path]]:
    found = [("kernel", kernel_name(profile), profile.kernel)]
    if profile.initrd is not None:
        found.append(("initrd", INITRD, profile.initrd))
    if profile.dtb is not None:
        found.append(("dtb", DTB, profile.dtb))
    found += [("overlay", path.name, path) for path in profile.overlays]
    found += [("file", name, path) for name, path in profile.files]
    found += [("loader", name, path) for name, path in profile.loaders]
    return found


def _file(role: str, name: str, path: Path) -> ServedFile:
    size_bytes, problem = None, None
    try:
        size_bytes = path.stat().st_size
        if not path.is_file():
            problem = "is no file"
        elif not os.access(path, os.R_OK):
            problem = "the agent may not read it"
        elif size_bytes == 0:
            problem = "is empty"
    except OSError as error:
        problem = error.strerror or str(error)
    return ServedFile(role=role, name=name, path=str(path)[:4096], size_bytes=size_bytes, problem=problem)


def _why(settings: AgentSettings, board: str, known: NetbootBoard) -> list[str]:
    table = settings.boards[board]
    own_dtb = [f"its device tree by [boards.{board}] dtb, in place of the profile's"] if table.dtb is not None else []
    return [
        f"it is known by its MAC addresses, [boards.{board}] macs",
        f"its address is reserved by [boards.{board}] address",
        f"it boots profile {known.profile.name} by [boards.{board}] profile",
        *own_dtb,
    ]


# --- its boots -----------------------------------------------------------------------------------------------------


def boot_report(boot: Boot, diagnosis: Diagnosis) -> BootReport:
    """A boot as it is told."""
    return BootReport(
        number=boot.number,
        began=boot.began,
        cause=boot.cause.value,
        ended=boot.ended,
        registered=boot.marks.get(Mark.REGISTERED),
        diagnosis=BootDiagnosis(
            place=diagnosis.place.value,
            stopped=diagnosis.stopped,
            what=diagnosis.what,
            evidence=list(diagnosis.evidence),
            check=list(diagnosis.check),
        ),
        phases=[BootPhase(name=name, seconds=round(seconds, 3)) for name, seconds in phases(boot)],
        files=boot.files,
        size_bytes=boot.size_bytes,
        resent=boot.resent,
        missing=dict(boot.missing),
        requests=[_request(request) for request in boot.requests],
        not_listed=boot.not_listed,
    )


def _request(request: BootRequest) -> BootRequestInfo:
    rate = request.mb_per_s
    return BootRequestInfo(
        at=request.at,
        via=RequestVia(request.via.value),
        name=request.name,
        outcome=RequestOutcome(request.outcome.value),
        role=request.role,
        client=request.client,
        detail=request.detail,
        size_bytes=request.size_bytes,
        seconds=round(request.seconds, 4),
        mb_per_s=None if rate is None else round(rate, 3),
        resent=request.resent,
        times=request.times,
    )


def _stranger(stranger: Stranger) -> StrangerInfo:
    return StrangerInfo(
        first_at=stranger.first_at,
        last_at=stranger.last_at,
        mac=stranger.mac or None,
        address=stranger.address or None,
        vendor_class=stranger.vendor_class,
        times=stranger.times,
        answered=stranger.answered,
        names=list(stranger.names),
    )
