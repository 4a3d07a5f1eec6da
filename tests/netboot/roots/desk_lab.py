"""Settings of an agent whose boards run from roots, and a desk of it."""

import asyncio
from pathlib import Path

from agent.roots_desk import RootsDesk
from agent.settings import load
from netboot.roots.importing import RootImport
from netboot.roots.store import RootStore


def settings_file(folder, *, roots="", profile='root = "debian"', more=""):
    for name in ("kernel", "initrd"):
        (folder / name).write_bytes(name.encode())
    file = folder / "agent.toml"
    file.write_text(f"""
[agent]
name = "lab"
state_dir = "{folder}/state"
[controllers.c]
driver = "command"
on = ["true"]
off = ["true"]
[netboot]
interface = "eth9"
address = "10.77.0.1/24"
mqtt_for_boards = "10.77.0.1:1883"
[roots]
dir = "{folder}/store"
{roots}
[profiles.standing]
kernel = "{folder}/kernel"
initrd = "{folder}/initrd"
cmdline = "console=ttyS0"
{profile}
[profiles.plain]
kernel = "{folder}/kernel"
[boards.b1]
feed = ["c:1"]
macs = ["52:54:00:00:00:01"]
address = "10.77.0.11"
profile = "standing"
[boards.b2]
feed = ["c:2"]
macs = ["52:54:00:00:00:02"]
address = "10.77.0.12"
profile = "standing"
[boards.b3]
feed = ["c:3"]
macs = ["52:54:00:00:00:03"]
address = "10.77.0.13"
profile = "plain"
{more}
""")
    return file


class DeskLab:
    """A desk with the root `debian` in its store, and all it says in `events` and `alerts` (by board: None or what)."""

    def __init__(self, folder, tree, engine, **settings):
        self.settings = load(Path(settings_file(folder, **settings)))
        self.store = RootStore(folder / "store")
        if "debian" not in self.store.names():
            RootImport(self.store).run("debian", tree)
        self.leases = {}
        self.events = asyncio.Queue()
        self.alerts = {}
        self.veto = None
        self.asked = []
        self.desk = RootsDesk(
            self.settings,
            job=lambda board: self.leases.get(board, ""),
            told=lambda board, details: self.events.put_nowait((board, details)),
            alarm=lambda boards, what: self.alerts.update(dict.fromkeys(boards, what)),
            may_reset=self.may_reset,
            engine=engine,
        )

    async def may_reset(self, board, root):
        self.asked.append((board, root))
        return self.veto

    async def ask(self, verb, **data):
        return await self.desk.handlers()[verb](data)

    async def event(self, what):
        """The next event, which must be of this kind."""
        board, details = await asyncio.wait_for(self.events.get(), 60)
        assert details["what"] == what, details
        return board, details

    def release(self):
        from netboot.roots.views import Views

        views = Views(self.store)
        for view in views.all():
            views.release(view.board)
