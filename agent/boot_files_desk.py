"""Puts chosen boots into effect: fetches their files, serves them to the board they were chosen for, and gives the
board its standing profile back."""

import asyncio
import logging
import os
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from agent import netboot_bridge
from agent.boot_choice import BootChoices, BootRequest, overlay_part
from agent.fetch_settings import FetchTable
from agent.requests import Answer, RequestError
from agent.settings import AgentSettings
from netboot.fetch_errors import (
    FetchChecksumError,
    FetchError,
    FetchNoRoomError,
    FetchTooLargeError,
    FetchUnreachableError,
    FetchUrlError,
)
from netboot.file_cache import FileCache
from netboot.profile import BootProfile
from netboot.server import NetbootServer
from wire.phases import ErrorKind

log = logging.getLogger(__name__)

SaveChoices = Callable[[dict[str, object]], Awaitable[None]]


class BootFilesDesk:
    """The chosen boots of one agent, between `start` and `stop`."""

    def __init__(
        self,
        settings: AgentSettings,
        netboot: NetbootServer,
        stored: dict[str, object] | None,
        save: SaveChoices,
    ) -> None:
        """`stored` is what `save` was given before a restart."""
        self._settings = settings
        self._netboot = netboot
        self._save = save
        self._choices = BootChoices(stored)
        self._standing = {board.board: board for board in netboot_bridge.boards(settings)}
        self._profiles = {name: board.profile for name, board in self._standing.items()}
        self._folder = settings.agent.state_dir / "boot"
        fetch = FetchTable() if settings.netboot is None else settings.netboot.fetch
        self._cache = FileCache(
            settings.agent.state_dir / "boot-cache", fetch.cache_mib << 20, limits=fetch.limits, policy=fetch.policy
        )
        # One change of a board at a time; a long download for one keeps no other waiting.
        self._changing = {board: asyncio.Lock() for board in self._standing}
        self._checksums: dict[str, dict[str, str]] = {}  # by board, of what was just fetched for it

    async def start(self) -> None:
        """Take up what was chosen before a restart. A choice whose files are gone is dropped, and logged.

        Raises:
            OSError: the folders cannot be used.
        """
        await self._cache.start()
        for board in self._choices.boards:
            request = self._choices.get(board)
            if request is None or board not in self._standing:
                continue
            try:
                self._profiles[board] = await self._profile(request)
            except (FetchError, RequestError, ValueError, OSError) as problem:
                log.warning("board %s: the boot that was chosen for it is gone: %s", board, problem)
                self._choices.choose(BootRequest(board=board))
        self._serve()

    async def stop(self) -> None:
        """Fetch nothing more."""
        await self._cache.stop()

    def follow(self, settings: AgentSettings) -> None:
        """Serve by other settings from now on. A boot of files that were chosen goes on; one of a profile that was
        chosen takes that profile as it is now. Transfers under way go on.

        Raises:
            ValueError: netboot does not take the boards; what was served is served on.
        """
        standing = {board.board: board for board in netboot_bridge.boards(settings)}
        profiles = {name: board.profile for name, board in standing.items()}
        for name in profiles:
            chosen = self.chosen(name)
            if chosen is not None and name in self._profiles:
                table = None if chosen.profile is None else settings.profiles.get(chosen.profile)
                profiles[name] = self._profiles[name]
                if table is not None:
                    profiles[name] = table.boot_profile(chosen.profile or "", dtb=settings.boards[name].dtb)
        self._netboot.set_boards([replace(board, profile=profiles[name]) for name, board in standing.items()])
        self._settings, self._standing, self._profiles = settings, standing, profiles
        for name in standing:
            self._changing.setdefault(name, asyncio.Lock())

    async def choose(self, data: dict[str, object]) -> Answer:
        """The handler of the request `boot`: answered when the files are here and the next boot will get them.

        Raises:
            RequestError: it cannot be booted; says which key or URL is at fault.
        """
        try:
            request = BootRequest.model_validate(data)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False)[0]
            key = ".".join(map(str, first["loc"]))
            raise RequestError(ErrorKind.BAD_REQUEST, f"{key}: {first['msg']}".lstrip(": "), key or None) from None
        if request.board not in self._standing:
            raise RequestError(
                ErrorKind.UNKNOWN_BOARD, f"board {request.board}: does not boot from this agent", "board"
            )
        async with self._changing[request.board]:
            try:
                profile = await self._profile(request)
            except FetchError as error:
                raise RequestError(_kind(error), f"board {request.board}: {error}") from error
            except (ValueError, OSError) as error:
                raise RequestError(ErrorKind.CONFIGURATION, f"board {request.board}: {error}") from error
            if request.board not in self._standing:
                message = f"board {request.board}: was taken out of the settings meanwhile"
                raise RequestError(ErrorKind.UNKNOWN_BOARD, message, "board")
            before = self._choices.get(request.board)
            self._choices.choose(request.pinned(self._checksums.pop(request.board, {})))
            try:
                await self._save(self._choices.state())
            except sqlite3.Error:
                # It would be forgotten by a restart: the board boots as before, and whoever asked is told.
                self._choices.choose(before or BootRequest(board=request.board))
                raise
            self._profiles[request.board] = profile
            self._serve()
        return {"board": request.board, "profile": profile.name, "chosen": request.chooses}

    def chosen(self, board: str) -> BootRequest | None:
        """What the board boots instead of its standing profile; None: nothing."""
        request = self._choices.get(board)
        return request if request is not None and request.chooses else None

    async def registered(self, board: str) -> None:
        """The board has proved that it is up."""
        if self._choices.registered(board):
            await self._keep(board)

    async def power_lost(self, board: str) -> None:
        """The board lost its power: after a chosen boot that was up, its standing profile is back."""
        if board not in self._changing:
            return
        async with self._changing[board]:
            if not self._choices.power_lost(board) or board not in self._standing:
                return
            self._profiles[board] = self._standing[board].profile
            self._serve()
            self._cache.release(board)
            await self._keep(board)
            await asyncio.to_thread(shutil.rmtree, self._folder / board, ignore_errors=True)
        log.info("board %s: back at its profile %s", board, self._profiles[board].name)

    async def _keep(self, board: str) -> None:
        """Store what a board came to by itself, which a full disk must not hold up."""
        try:
            await self._save(self._choices.state())
        except sqlite3.Error as error:
            log.error("board %s: how its chosen boot went is not stored: %s", board, error)  # noqa: TRY400

    def _serve(self) -> None:
        self._netboot.set_boards(
            [replace(board, profile=self._profiles[name]) for name, board in self._standing.items()]
        )

    async def _profile(self, request: BootRequest) -> BootProfile:
        standing = self._standing[request.board].profile
        if not request.chooses:
            self._cache.release(request.board)
            return standing
        if request.profile is not None:
            table = self._settings.profiles.get(request.profile)
            if table is None:
                known = ", ".join(sorted(self._settings.profiles)) or "none"
                message = f"board {request.board}: there is no profile {request.profile}; known are {known}"
                raise RequestError(ErrorKind.NOT_FOUND, message, "profile")
            return table.boot_profile(request.profile, dtb=self._settings.boards[request.board].dtb)
        paths: dict[str, Path] = {}
        checksums = self._checksums[request.board] = dict[str, str]()
        for part, file in request.files.items():
            kept = await self._cache.fetch(file.url, file.sha256, holder=request.board)
            checksums[part] = kept.name
            paths[part] = await asyncio.to_thread(_named, kept, self._folder / request.board / part / file.file_name)
        return BootProfile(
            name=f"{request.board}-chosen"[:63],
            arch=request.arch or standing.arch,
            kernel=paths["kernel"],
            initrd=paths.get("initrd"),
            dtb=paths.get("dtb") or standing.dtb,
            cmdline=request.cmdline or standing.cmdline,
            uboot_env=standing.uboot_env,
            family=request.family or standing.family,
            overlays=tuple(paths[overlay_part(number)] for number in range(len(request.overlays))),
            tftp=standing.tftp,
        )


def _named(kept: Path, wanted: Path) -> Path:
    """The kept file under the name that the board asks for: U-Boot and the tree go by a file's ending."""
    shutil.rmtree(wanted.parent, ignore_errors=True)
    wanted.parent.mkdir(mode=0o700, parents=True)
    os.link(kept, wanted)
    return wanted.absolute()


def _kind(error: FetchError) -> ErrorKind:
    if isinstance(error, FetchUrlError | FetchChecksumError | FetchTooLargeError):
        return ErrorKind.BAD_REQUEST
    if isinstance(error, FetchUnreachableError):
        return ErrorKind.UNREACHABLE
    return ErrorKind.BUSY if isinstance(error, FetchNoRoomError) else ErrorKind.REFUSED
