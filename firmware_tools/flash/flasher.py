"""Writes one image by one tool, and looks whether it is there: probe, write, read back, go on."""

import asyncio
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from firmware_tools.flash import child
from firmware_tools.flash.child import Ended
from firmware_tools.flash.errors import (
    DeviceMissingError,
    ImageError,
    NotVerifiedError,
    ToolFailedError,
)
from firmware_tools.flash.image_check import Image
from firmware_tools.flash.read_back import compare_disk, first_difference
from firmware_tools.flash.tools import Readback, Tool, far, fill

PROBE_DEADLINE_S = 30.0
AFTER_DEADLINE_S = 30.0
FIND_S = 30.0
"""How long a tool may say that it waits for its device: fastboot and uuu would do so for ever."""

Tell = Callable[[str, float | None, str], None]
"""Is told a stage, per cent of it where known, and a tool's line."""


@dataclass(frozen=True, slots=True)
class Job:
    """One flash.

    Attributes:
        values: the keys of the tool's command from the settings.
        product: what the device has to answer when it is asked what it is (fastboot's `getvar product`); None: it is
            not asked.
        verify: read back, where the tool can.
        reset: have the device go on by itself afterwards, where the tool can; power does it elsewhere.
        scratch: a folder for what is read back.
    """

    tool: Tool
    image: Image
    values: Mapping[str, str]
    deadline_s: float
    find_s: float = FIND_S
    product: str | None = None
    verify: bool = True
    reset: bool = False
    scratch: Path = Path("/var/tmp")  # noqa: S108  # a temporary folder of our own is made in it


@dataclass(frozen=True, slots=True)
class Written:
    """What a flash came to. `verified`: how it is known that the image is in the device."""

    took_s: float
    verified: str


async def flash(job: Job, tell: Tell) -> Written:
    """Write and verify. Cancelled, the tool is dead when this returns, and the device holds what it then holds.

    Raises:
        FlashError: which one says what to do.
    """
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="boardhand-flash-", dir=job.scratch))
    try:
        if job.product is not None and job.tool.probe:
            await _probe(job, tell)
        ended = await _write(job, tell)
        verified = f"{job.tool.name} says so"
        if job.verify and job.tool.readback is not Readback.NONE:
            verified = await _read_back(job, folder, tell)
        if job.reset and job.tool.after:
            verified += await _reset(job, tell)
        return Written(round(ended.took_s, 3), verified)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _reset(job: Job, tell: Tell) -> str:
    """Have the device go on. The image is in it whatever comes of that, so a failure is told and no more."""
    ended = await _call(job, fill(job.tool.name, job.tool.after, job.values), "reset", AFTER_DEADLINE_S, tell)
    return "" if ended.code == 0 else f"; it did not take the reset: {ended.last_words}"


async def _call(job: Job, argv: list[str], stage: str, deadline_s: float, tell: Tell) -> Ended:
    current = stage

    def wait_until(at: float | None) -> None:
        if not patience.expired():  # its last words come while it is being ended
            patience.reschedule(at)

    def hear(line: str) -> None:
        nonlocal current
        found = far(job.tool.patterns, line)
        if found is not None:
            current = found[0] if stage == "write" else stage
            tell(current, found[1], "")
            wait_until(None)
        else:
            tell(current, None, line)
            if job.tool.absent.search(line) and patience.when() is None:
                wait_until(asyncio.get_running_loop().time() + job.find_s)

    tell(stage, None, "")
    try:
        async with asyncio.timeout(None) as patience:
            return await child.run(argv, hear, deadline_s, package=job.tool.package, terminal=job.tool.terminal)
    except TimeoutError:
        raise DeviceMissingError(
            f"{job.tool.name}: waited {job.find_s:g} s for the device; look at its cable and its boot mode"
        ) from None


async def _probe(job: Job, tell: Tell) -> None:
    """Is it the board that the settings mean? Asked before anything is written."""
    ended = await _call(job, fill(job.tool.name, job.tool.probe, job.values), "probe", PROBE_DEADLINE_S, tell)
    if ended.code != 0:
        raise DeviceMissingError(f"{job.tool.name}: no answer from the device: {ended.last_words}; look at its cable")
    said = next((line.partition(":")[2].strip() for line in ended.words if line.startswith("product:")), None)
    if said != job.product:
        raise ImageError(f"{job.tool.name}: the device is {said!r}, and the settings say product = {job.product!r}")


async def _write(job: Job, tell: Tell) -> Ended:
    values = {**job.values, "image": str(job.image.path)}
    if job.image.bmap is not None:
        values["bmap"] = str(job.image.bmap)
    values["nobmap"] = "" if job.image.bmap is not None else "--nobmap"
    ended = await _call(job, fill(job.tool.name, job.tool.argv, values), "write", job.deadline_s, tell)
    if ended.code == 0:
        return ended
    absent = any(map(job.tool.absent.search, ended.words))
    # A tool that has told how far it is had found its device, whatever it says afterwards.
    began = any(far(job.tool.patterns, line) is not None for line in ended.words)
    how = f"did not end within {job.deadline_s:g} s" if ended.code is None else f"ended with {ended.code}"
    if absent and not began:
        raise DeviceMissingError(
            f"{job.tool.name}: did not find the device ({ended.last_words}); look at its cable and its boot mode"
        )
    raise ToolFailedError(
        f"{job.tool.name}: {how}: {ended.last_words}; the device may hold a part of the image: flash again"
    )


async def _read_back(job: Job, folder: Path, tell: Tell) -> str:
    given_up = threading.Event()
    try:
        return await _compared(job, folder, tell, given_up)
    finally:
        given_up.set()


async def _compared(job: Job, folder: Path, tell: Tell, given_up: threading.Event) -> str:
    if job.tool.readback is Readback.DEVICE:
        tell("read back", None, "")
        return await asyncio.to_thread(compare_disk, job.image, Path(job.values["device"]), given_up)
    back, size = folder / "read-back", job.image.payload_bytes
    argv = fill(job.tool.name, job.tool.upload, {**job.values, "bytes": str(size), "file": str(back)})
    ended = await _call(job, argv, "read back", job.deadline_s, tell)
    if any("bitCanUpload" in line for line in ended.words):
        return f"{job.tool.name} says so; the device cannot be read back"
    found = await asyncio.to_thread(_size_of, back)
    if ended.code != 0 and found < size:
        raise NotVerifiedError(
            f"{job.tool.name}: cannot read back what it wrote: ended with {ended.code}: {ended.last_words}; flash again"
        )
    at = await asyncio.to_thread(first_difference, job.image.path, back, size, given_up)
    if at is not None:
        raise NotVerifiedError(f"{job.tool.name}: what lies in the device differs from the image from octet {at} on")
    return f"read back, {size} octets are the same"


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
