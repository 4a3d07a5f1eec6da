"""The agent's netboot: the server of its board network with the boots that were chosen, and what of both is stored."""

import asyncio
import functools
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from agent import netboot_bridge
from agent.boot_choice import BootChoices, BootRequest
from agent.boot_files_desk import BootFilesDesk
from agent.errors import AgentError
from agent.memory import Memory
from agent.segment_alerts import AlertChange, SegmentAlerts
from agent.settings import AgentSettings
from agent.unit import Moment
from netboot.dhcp_events import SegmentEvent
from netboot.events import NetbootEvent
from netboot.server import NetbootServer, NetbootState

if TYPE_CHECKING:
    from agent.roots_desk import RootsDesk

SECRETS_FACT, CHOICES_FACT, LEASES_FACT = "boot_secrets", "boot_choices", "dhcp_leases"
"""Under these names the state of netboot is stored."""
ALERTS_EVERY_S = 30.0


def _moment() -> Moment:
    return Moment(time.monotonic(), datetime.now(UTC))


def _chooses(request: BootRequest | None) -> BootRequest | None:
    return request if request is not None and request.chooses else None


class NetbootDesk:
    """Netboot of one agent between `start` and `stop`; without a `[netboot]` table both do nothing."""

    def __init__(
        self,
        settings: AgentSettings,
        on_event: Callable[[NetbootEvent], None],
        on_alerts: Callable[[list[AlertChange]], None],
        make_roots: "Callable[[], RootsDesk | None]" = lambda: None,
    ) -> None:
        """`on_event` and `on_alerts` run in the event loop and must not block. `make_roots` is called once,
        by `start`."""
        self._settings = settings
        self._on_event = on_event
        self._on_alerts = on_alerts
        self._alerts = SegmentAlerts(settings.boards)
        self.server: NetbootServer | None = None
        """None without a `[netboot]` table."""
        self.boot_files: BootFilesDesk | None = None
        self._make_roots = make_roots
        self.roots: RootsDesk | None = None
        """None without a `[roots]` table."""

    async def start(self, memory: Memory, *, off: Iterable[str]) -> None:
        """Serve what is configured and what was chosen before a restart. `off` are the boards without power.

        Raises:
            AgentError: the settings contradict each other, or a port cannot be opened; says which.
        """
        config = netboot_bridge.config(self._settings)
        if config is None or self._settings.netboot is None:
            return
        off = set(off)
        stored = await memory.fact(CHOICES_FACT)
        self.roots = self._make_roots()
        if self.roots is not None:
            # A board that runs from a root that was chosen for it must keep it over our restart.
            before = BootChoices(stored)
            self.roots.chosen = lambda board: _chooses(before.get(board))
            await self.roots.start(set(self._settings.boards) - off)
        try:
            self.server = NetbootServer(
                config,
                netboot_bridge.boards(self._settings),
                on_event=self._on_event,
                secrets_state=await memory.fact(SECRETS_FACT),
                save_secrets=functools.partial(memory.remember, SECRETS_FACT),
                state=NetbootState(await memory.fact(LEASES_FACT), functools.partial(memory.remember, LEASES_FACT)),
                on_alert=self._alert,
            )
            if self.roots is not None:
                self.server.give_roots(self.roots.words)
            await self.server.start()
        except ValueError as error:
            raise AgentError(f"netboot on {config.interface}: {error}") from error
        except OSError as error:
            raise AgentError(
                f"netboot on {config.interface}: {error}; is another DHCP or TFTP server running?"
            ) from error
        keep = functools.partial(memory.remember, CHOICES_FACT)
        self.boot_files = BootFilesDesk(self._settings, self.server, stored, keep)
        if self.roots is not None:
            self.roots.chosen = self.boot_files.chosen
        await self.boot_files.start()
        for board in off:
            # It may have lost power while we were away; what it had fetched is not for its next boot.
            self.server.new_boot(board)
        self.server.set_joining(self._settings.netboot.joining == "open")

    async def run(self) -> None:
        """End alerts that are not repeated, for ever."""
        if self.server is None:
            await asyncio.Event().wait()
        self._on_alerts(self._alerts.none_yet())
        while True:
            await asyncio.sleep(ALERTS_EVERY_S)
            self._on_alerts(self._alerts.tick(_moment()))

    def _alert(self, event: SegmentEvent) -> None:
        self._on_alerts(self._alerts.heard(event, _moment()))

    async def stop(self) -> None:
        """Fetch and serve nothing more."""
        if self.boot_files is not None:
            await self.boot_files.stop()
        if self.server is not None:
            await self.server.stop()
        if self.roots is not None:
            await self.roots.stop()

    def follow(self, settings: AgentSettings) -> None:
        """Serve by other settings from now on; transfers and leases go on. Of `[netboot]` itself only what a running
        server can take up is looked at.

        Raises:
            ValueError: netboot does not take them; what was served is served on.
        """
        before, self._settings = self._settings, settings
        self._alerts.follow(settings.boards)
        config, server = netboot_bridge.config(settings), self.server
        if config is None or settings.netboot is None or server is None or self.boot_files is None:
            return
        self.boot_files.follow(settings)
        server.follow(config)
        if before.netboot is None or before.netboot.joining != settings.netboot.joining:
            server.set_joining(settings.netboot.joining == "open")
        if self.roots is not None:
            self.roots.follow(settings)

    def new_boot(self, board: str) -> None:
        """The board lost its power: what it had fetched proves nothing of its next boot."""
        if self.server is not None:
            self.server.new_boot(board)

    async def power_lost(self, board: str) -> None:
        """The rest of `new_boot`, which takes time: after a chosen boot that was up, its standing profile is back."""
        if self.roots is not None:
            await self.roots.power_lost(board)
        if self.boot_files is not None:
            await self.boot_files.power_lost(board)

    async def registered(self, board: str) -> None:
        """The board has proved that it is up."""
        if self.boot_files is not None:
            await self.boot_files.registered(board)
