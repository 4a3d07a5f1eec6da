"""Flashes boards: looks at the image, brings the board into its mode, runs the tool, compares, brings it back."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from agent.flash_images import FlashImages, Found
from agent.flash_settings import Flashable, FlashesTable, FlashTable
from agent.memory import Memory
from agent.mode_desk import ADVICE, ModeDesk, Progress, failure
from agent.requests import Answer, RequestError
from firmware_tools.flash import flasher, image_check
from firmware_tools.flash.errors import (
    DeviceMissingError,
    FlashError,
    ImageDiskError,
    ImageError,
    NotVerifiedError,
    ToolFailedError,
    ToolMissingError,
)
from firmware_tools.flash.flasher import Job, Written
from firmware_tools.flash.image_check import Image, Wanted
from firmware_tools.flash.passage import Passage, Stage
from wire.payloads import Alert
from wire.phases import ErrorKind

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.5
"""For a board that is to register after its flash."""
KINDS: dict[type[FlashError], ErrorKind] = {
    ImageError: ErrorKind.BAD_REQUEST,
    ImageDiskError: ErrorKind.INTERNAL,
    ToolMissingError: ErrorKind.CONFIGURATION,
    DeviceMissingError: ErrorKind.UNREACHABLE,
    ToolFailedError: ErrorKind.REFUSED,
    NotVerifiedError: ErrorKind.NOT_VERIFIED,
}
HURTING = (ToolFailedError, NotVerifiedError)
"""After these the device may hold half an image."""


class FlashDesk:
    """The flashes of one agent. `boot_timeout_s` tells how long a board may take to register."""

    def __init__(
        self,
        boards: Mapping[str, Flashable],
        settings: FlashesTable,
        state_dir: Path,
        modes: ModeDesk,
        boot_timeout_s: Callable[[str], float],
    ) -> None:
        self._boards = boards
        self._modes = modes
        self._images = FlashImages(settings, state_dir)
        self._scratch = settings.scratch or state_dir
        self._boot_timeout_s = boot_timeout_s

    async def start(self, memory: Memory) -> list[str]:
        """Read what was stored, and say again what is still damaged. Returns the boards that `recover` has to put back.

        Raises:
            sqlite3.Error: the state file cannot be read.
        """
        modes = self._modes
        await modes.records.load(memory, list(self._boards))
        found = []
        for board in self._boards:
            record = modes.records.of(board)
            if record.under_way is not None:
                why = f"the agent was stopped in the middle of {record.under_way}; interrupted: flash again"
                if record.method is None:
                    why = f"the agent was stopped on the way into {record.under_way}"
                try:
                    await modes.hurt(board, why)
                except RequestError as error:
                    log.warning("%s", error)  # the alert stands; a full disk is no reason not to start
                found.append(board)
            elif record.damaged is not None:
                modes.calls.alert(board, Alert(what=record.damaged[:1024], since=record.since, do=ADVICE))
        modes.recovering.update(found)
        return found

    def follow(self, boards: Mapping[str, Flashable]) -> None:
        """Other boards from now on; what is under way goes on."""
        self._boards = boards

    async def recover(self, board: str) -> None:
        """Bring a board whose flash the agent's last end cut short into its safe mode."""
        record, settings = self._modes.records.of(board), self._boards[board]
        table = settings.flash.get(record.method or "")
        mode = "normal" if table is None else table.safe_mode
        try:
            if mode in settings.modes:
                log.warning("board %s: %s was cut short; bringing it into mode %s", board, record.under_way, mode)
                passage = await self._modes.enter(
                    board, mode, mode, record.under_way or "", _silent, method=record.method
                )
                if passage.stage is Stage.ARRIVED:
                    await self._modes.power_as_before(board)
            record = replace(self._modes.records.of(board), under_way=None, method=None)
            await self._modes.store(board, record if settings.modes else self._modes.given_back(board, record))
        except RequestError as error:
            log.warning("board %s: %s", board, error)
        finally:
            self._modes.recovering.discard(board)

    async def stop(self) -> None:
        """Fetch nothing more."""
        await self._images.stop()

    async def flash(self, board: str, data: dict[str, object], progress: Progress) -> Answer:
        """The action `flash`: `{"board", "image", "sha256", "method", "check_only"}`.

        Raises:
            RequestError: it was not done; the message says in which mode the board is, and whether it was written to.
        """
        method, table = self._method(board, data)
        self._modes.check_free(board)
        check_only = data.get("check_only", False)
        if not isinstance(check_only, bool):
            raise RequestError(ErrorKind.BAD_REQUEST, "check_only: true or false is needed", "check_only")
        try:
            found = await self._images.find(board, data, lambda percent: progress("fetch", percent))
            image = await self._looked(board, table, found, progress)
            answer: Answer = {
                "board": board,
                "method": method,
                "image": found.source,
                "sha256": image.sha256,
                "size_bytes": image.size_bytes,
                "format": image.what,
            }
            if check_only:
                return answer | {"checked": True}
            written = await self._flashed(board, method, table, image, progress)
            return answer | {
                "tool": table.tool,
                "took_s": written.took_s,
                "verified": written.verified,
                "mode": self._modes.records.of(board).mode,
            }
        finally:
            await self._images.done(board)

    def _method(self, board: str, data: Mapping[str, object]) -> tuple[str, FlashTable]:
        methods = self._boards[board].flash
        if not methods:
            message = f"board {board}: has no way of being flashed; declare [boards.{board}.flash.NAME] in the settings"
            raise RequestError(ErrorKind.CONFIGURATION, message, "board")
        name, known = data.get("method"), ", ".join(methods)
        if name is None and len(methods) == 1:
            return next(iter(methods.items()))
        if name is None:
            message = f"method: board {board} can be flashed by {known}; say which"
            raise RequestError(ErrorKind.BAD_REQUEST, message, "method")
        if not isinstance(name, str) or name not in methods:
            raise RequestError(ErrorKind.NOT_FOUND, f"method: board {board} has none of this name: {known}", "method")
        return name, methods[name]

    async def _looked(self, board: str, table: FlashTable, found: Found, progress: Progress) -> Image:
        tool = table.the_tool
        wanted = Wanted(
            board,
            tool.format,
            frozenset(table.compatible) or self._modes.calls.compatible(board),
            table.usb_device,
            found.sha256,
            table.max_bytes,
            table.declared,
            table.bmap,
        )
        loop = asyncio.get_running_loop()
        given_up = threading.Event()

        def tell(percent: float) -> None:
            if given_up.is_set():  # else the agent's end would wait for the thread, and so for gigabytes
                raise ImageError(f"{found.path}: was not looked at to its end")
            loop.call_soon_threadsafe(progress, "check", percent)

        try:
            return await asyncio.to_thread(image_check.look, found.path, wanted, tell)
        except FlashError as error:
            raise _said(board, error) from error
        finally:
            given_up.set()

    async def _flashed(self, board: str, method: str, table: FlashTable, image: Image, progress: Progress) -> Written:
        modes, under_way = self._modes, f"flash {method}: {image.path.name}"
        passage = None
        if table.mode is not None:
            passage = await modes.enter(board, table.mode, table.safe_mode, under_way, progress, method=method)
            if passage.stage is not Stage.ARRIVED:
                await modes.power_as_before(board)
                await modes.store(board, replace(modes.records.of(board), under_way=None, method=None))
                raise RequestError(ErrorKind.NOT_VERIFIED, f"{failure(board, passage)}; nothing was written")
        else:
            record = replace(modes.records.of(board), under_way=under_way, method=method)
            await modes.store(board, modes.taken_out(board, record))
        job = Job(
            table.the_tool,
            image,
            table.values,
            table.deadline_s,
            find_s=table.find_s,
            product=table.product,
            verify=table.verify,
            reset=table.reset,
            scratch=self._scratch,
        )
        try:
            written = await flasher.flash(job, progress)
        except asyncio.CancelledError:
            await self._undone(board, passage, f"{under_way} was cut short; flash again", progress)
            raise
        except FlashError as error:
            hurt = f"{under_way} failed: {error}" if isinstance(error, HURTING) else None
            await self._undone(board, passage, hurt, progress, str(error))
            raise _said(board, error, self._where(board, passage)) from error
        except OSError as error:
            await self._undone(board, passage, None, progress, str(error))
            message = f"board {board}: {error.filename or self._scratch}: {error.strerror}; mend the disk"
            raise RequestError(ErrorKind.INTERNAL, message) from error
        # The board may be up all the time: the boot that it is in now shows nothing of the new image.
        await self._whole(board, table, under_way, self._modes.calls.boot(board), progress)
        return written

    async def _undone(
        self, board: str, passage: Passage | None, hurt: str | None, progress: Progress, why: str = "cut short"
    ) -> None:
        """Put the board back after a flash that was not good. Its damage is stored first, for this may be cut short."""
        if hurt is not None:
            try:
                await self._modes.hurt(board, hurt)
            except RequestError as error:
                log.warning("%s", error)  # the alert stands; a full disk is no reason to leave the board as it is
        if passage is not None:
            passage.turn_back(why)
            await self._modes.finish_back(board, passage, progress)
        record = self._modes.records.of(board)
        if passage is None:
            record = self._modes.given_back(board, record)
        await self._modes.store(board, replace(record, under_way=None, method=None))

    def _where(self, board: str, passage: Passage | None) -> str:
        if passage is None:
            return ""
        mode = self._modes.records.of(board).mode
        return f"; the board is in mode {mode}" if mode is not None else "; nobody knows in which mode the board is"

    async def _whole(
        self, board: str, table: FlashTable, under_way: str, old_boot: str | None, progress: Progress
    ) -> None:
        """The image is in the device: back to work. `old_boot` was registered when that was so."""
        modes = self._modes
        record = modes.records.of(board)
        if record.damaged is not None:
            modes.calls.alert(board, None)
        # From here on an end of the agent leaves a whole image behind.
        record = replace(record, damaged=None, damaged_at=None, method=None)
        try:
            await modes.store(board, modes.given_back(board, record) if table.mode is None else record)
        except RequestError as error:
            where = "" if table.mode is None else f", and the board is left in mode {table.mode}"
            raise RequestError(error.info.kind, f"{error}; the image was written and is whole{where}") from error
        if table.mode is not None:
            passage = await modes.enter(board, table.then, table.safe_mode, under_way, progress)
            if passage.stage is not Stage.ARRIVED:
                await modes.store(board, replace(modes.records.of(board), under_way=None))
                message = f"the image was written and is whole, but {failure(board, passage)}"
                raise RequestError(ErrorKind.NOT_VERIFIED, message[:4096])
        if table.boots:
            try:
                await self._boots(board, old_boot, progress)
            except asyncio.CancelledError:
                # The image is whole: the next start has nothing to put back, and nothing is damaged.
                if table.mode is not None:
                    await modes.power_as_before(board)
                await modes.store(board, replace(modes.records.of(board), under_way=None))
                raise
        if table.mode is not None:
            await modes.power_as_before(board)
        await modes.store(board, replace(modes.records.of(board), under_way=None))

    async def _boots(self, board: str, old_boot: str | None, progress: Progress) -> None:
        """Wait until the board registers a boot that is not `old_boot`.

        Raises:
            RequestError: it does not, or comes into a fault.
        """
        calls, timeout_s = self._modes.calls, self._boot_timeout_s(board)
        ends_s = time.monotonic() + timeout_s
        seen = old_boot
        while True:
            ready, boot, left_s = calls.ready(board), calls.boot(board), ends_s - time.monotonic()
            if boot is None:
                old_boot = None  # its power was off: whatever registers now has booted since
            is_up = ready is True and boot not in {None, old_boot}
            if is_up or ready is None or left_s <= 0:
                break
            progress("boot", 100.0 - 100.0 * left_s / timeout_s)
            await asyncio.sleep(min(LOOK_EVERY_S, left_s))
        if not is_up:
            why, do = f"did not register within {timeout_s:g} s", "read its console, flash another one"
            if ready is None:
                why = "came into a fault"
            elif boot is not None and boot == seen:
                why = f"did not boot anew within {timeout_s:g} s: what runs on it was up before the flash ended"
                do = "cycle its power, and have the tool or a mode do so"
            await self._modes.hurt(board, f"the new image was written, and the board {why}")
            await self._modes.store(board, replace(self._modes.records.of(board), under_way=None))
            message = f"board {board}: the image was written, and the board {why}; {do}"
            raise RequestError(ErrorKind.NOT_VERIFIED, message)


def _said(board: str, error: FlashError, where: str = "") -> RequestError:
    return RequestError(KINDS.get(type(error), ErrorKind.INTERNAL), f"board {board}: {error}{where}"[:4096])


def _silent(_stage: str, _percent: float | None = None, _message: str = "") -> None:
    """Nobody asked for this."""
