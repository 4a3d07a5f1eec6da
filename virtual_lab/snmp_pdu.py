"""A virtual switched PDU that speaks SNMPv1, v2c and v3 over UDP, with APC's three outlet tables.

Run it:

    python -m virtual_lab.snmp_pdu --port 0 --outlets 8 --community-file FILE

It prints one line of JSON when it is ready (`{"ready": true, "host": …, "port": …}`) and then takes one JSON object per
line on its standard input, each answered by one line: `{"do": "deaf", "value": true}` stops it answering,
`{"do": "lie", "outlets": ["2"]}` makes outlets accept and not switch, `{"do": "refuse", "outlets": […]}` makes them
answer genErr, `{"do": "delay", "value": 2.0}` sets how long the state follows the command, `{"do": "press", "outlet":
"1", "on": true}` is a hand at the button, `{"do": "state"}` tells all. The end of the input ends it only with
`--stop-at-eof`, so that it may also run as a service.

From Python: `async with VirtualPdu(PduSettings(outlets=8)) as pdu: …`, in the event loop of the caller.
"""

import argparse
import asyncio
import json
import logging
import socket
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from virtual_lab.snmp_pdu_control import serve_until_told
from virtual_lab.snmp_pdu_engine import Responder, V3User
from virtual_lab.snmp_pdu_tables import FAMILY_NAMES, PduTables

_log = logging.getLogger(__name__)

DEFAULT_ENGINE_ID = "8000013e0562682d706475"
"""A fixed engine ID (RFC 3411, SnmpEngineID; enterprise 318, text `bh-pdu`): a v3 client that lives on would otherwise
time out for ever after the PDU was started again."""

Hook = Callable[[str, bool], Awaitable[None]]


@dataclass(frozen=True)
class PduSettings:
    """What a virtual PDU is like when it starts.

    Attributes:
        port: UDP port, 0 for any free one.
        read_community: may only read; SETs with it are answered noAccess.
        write_community: may do all. Any other community meets silence.
        delay_s: the state column follows the control column after this.
        watts_on: what each outlet that is on is said to draw.
    """

    host: str = "127.0.0.1"
    port: int = 0
    outlets: int = 8
    families: tuple[str, ...] = FAMILY_NAMES
    read_community: str = "public"
    write_community: str = "private"
    users: tuple[V3User, ...] = ()
    engine_id: str = DEFAULT_ENGINE_ID
    delay_s: float = 0.0
    watts_on: int = 12
    initially_on: bool = False
    lying: frozenset[str] = frozenset()
    refusing: frozenset[str] = frozenset()


@dataclass
class VirtualPdu:
    """The PDU. `hook`, where given, is awaited with (outlet, on) when an outlet has really switched.

    Attributes:
        sets: every SET that reached the tables, as (outlet, value), for tests that count them.
        edges: every real change, as (outlet, on).
    """

    settings: PduSettings = field(default_factory=PduSettings)
    hook: Hook | None = None
    deaf: bool = False
    port: int = field(default=0, init=False)
    sets: list[tuple[str, int]] = field(default_factory=list, init=False)
    edges: list[tuple[str, bool]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        names = [str(number) for number in range(1, self.settings.outlets + 1)]
        self.on: dict[str, bool] = dict.fromkeys(names, self.settings.initially_on)
        self.lying = set(self.settings.lying)
        self.refusing = set(self.settings.refusing)
        self.delay_s = self.settings.delay_s
        self._pending: dict[str, asyncio.TimerHandle] = {}
        self._hooks: set[asyncio.Task[None]] = set()
        self._tables = PduTables(self, self.settings.families)
        self._responder: Responder | None = None

    async def __aenter__(self) -> Self:
        s = self.settings
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.bind((s.host, s.port))
            sock.setblocking(False)
            self.port = sock.getsockname()[1]
            self._responder = Responder(self._tables, lambda: self.deaf, s.engine_id)
            self._responder.allow(s.read_community, s.write_community, s.users)
            await self._responder.serve(sock)
        except BaseException:
            sock.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for timer in self._pending.values():
            timer.cancel()
        if self._responder is not None:
            await self._responder.close()
        for task in list(self._hooks):
            task.cancel()
        if self._hooks:
            await asyncio.wait(self._hooks)

    # --- what the tables ask -------------------------------------------------------------------------------------

    def watts(self, outlet: str) -> int:
        return self.settings.watts_on if self.on[outlet] else 0

    def is_pending(self, outlet: str) -> bool:
        return outlet in self._pending

    def command(self, outlet: str, on: bool, after_s: float = 0.0) -> None:  # noqa: FBT001 - as Driver.set
        """What a SET of the control column does: the outlet follows after the delay, unless it lies."""
        earlier = self._pending.pop(outlet, None)
        if earlier is not None:
            earlier.cancel()
        if outlet in self.lying:
            return
        delay_s = self.delay_s + after_s
        if delay_s <= 0:
            self.press(outlet, on)
        else:
            self._pending[outlet] = asyncio.get_running_loop().call_later(delay_s, self._follow, outlet, on)

    def reboot(self, outlet: str) -> None:
        """The device's own reboot command: off now, on a second later."""
        self.press(outlet, False)
        self.command(outlet, True, after_s=1.0)

    def _follow(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - called by the timer
        self._pending.pop(outlet, None)
        self.press(outlet, on)

    def press(self, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        """Switch now, as by hand at the PDU's own button.

        Raises:
            KeyError: no such outlet.
        """
        if self.on[outlet] == on:
            return
        self.on[outlet] = on
        self.edges.append((outlet, on))
        if self.hook is not None:
            task = asyncio.ensure_future(self._call_hook(self.hook, outlet, on))
            self._hooks.add(task)
            task.add_done_callback(self._hooks.discard)

    async def _call_hook(self, hook: Hook, outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        try:
            await hook(outlet, on)
        except (OSError, EOFError, ValueError, TimeoutError) as problem:
            _log.warning("outlet %s: its hook failed: %s", outlet, problem)

    # --- the control lines ---------------------------------------------------------------------------------------

    def control(self, line: str) -> dict[str, Any]:
        """Carry out one control line; returns the answer. A bad line is answered with `error`, never raised."""
        try:
            request = json.loads(line)
            what = request["do"]
            if what == "deaf":
                self.deaf = bool(request["value"])
            elif what == "delay":
                self.delay_s = float(request["value"])
            elif what == "lie":
                self.lying = self._known(request["outlets"])
            elif what == "refuse":
                self.refusing = self._known(request["outlets"])
            elif what == "press":
                self.press(str(request["outlet"]), bool(request["on"]))
            elif what != "state":
                return {"ok": False, "error": f"unknown word {what!r}"}
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            return {"ok": False, "error": f"{type(problem).__name__}: {problem}"}
        return {"ok": True, "on": dict(self.on), "deaf": self.deaf, "sets": len(self.sets), "edges": len(self.edges)}

    def _known(self, outlets: list[Any]) -> set[str]:
        wanted = {str(outlet) for outlet in outlets}
        if not wanted <= self.on.keys():
            raise ValueError(f"no such outlets: {sorted(wanted - self.on.keys())}")
        return wanted


# --- as a program ------------------------------------------------------------------------------------------------


def command_hook(commands: dict[str, tuple[list[str], list[str]]]) -> Hook:
    """A hook that runs a program per outlet: outlet -> (program for on, program for off)."""

    async def run(outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        if outlet in commands:
            process = await asyncio.create_subprocess_exec(
                *commands[outlet][0 if on else 1], stdin=asyncio.subprocess.DEVNULL
            )
            await process.wait()

    return run


def qmp_hook(sockets: dict[str, Path]) -> Hook:
    """A hook that switches a QEMU machine per outlet through its QMP socket, as boardhand's own driver does."""
    from agent.power.drivers.qmp import OUTLET, QmpDriver
    from agent.power.errors import PowerError
    from agent.power.kinds.qmp import QmpSettings

    async def switch(outlet: str, on: bool) -> None:  # noqa: FBT001 - as Driver.set
        if outlet in sockets:
            try:
                await QmpDriver("outlet", QmpSettings(driver="qmp", socket=sockets[outlet])).set(OUTLET, on)
            except PowerError as problem:
                raise OSError(str(problem)) from problem

    return switch


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m virtual_lab.snmp_pdu", description="A virtual switched PDU.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="UDP port; 0 takes a free one")
    parser.add_argument("--outlets", type=int, default=8)
    parser.add_argument("--family", action="append", choices=FAMILY_NAMES, help="tables to serve; default all")
    parser.add_argument("--community-file", type=Path, help="holds the community that may write (default private)")
    parser.add_argument("--user-file", action="append", type=Path, default=[], help="JSON of one SNMPv3 user")
    parser.add_argument("--engine-id", default=DEFAULT_ENGINE_ID, help="hexadecimal, 5 to 32 octets")
    parser.add_argument("--delay-s", type=float, default=0.0, help="the state follows a command after this")
    parser.add_argument("--lie", action="append", default=[], metavar="OUTLET", help="accepts and does not switch")
    parser.add_argument("--refuse", action="append", default=[], metavar="OUTLET", help="answers genErr")
    parser.add_argument("--on", action="store_true", help="all outlets are on at the start")
    parser.add_argument("--qmp", action="append", default=[], metavar="OUTLET=SOCKET", help="drives a QEMU machine")
    parser.add_argument("--stop-at-eof", action="store_true", help="end when standard input ends")
    return parser.parse_args(argv)


def _settings(args: argparse.Namespace) -> PduSettings:
    community = args.community_file.read_text().strip() if args.community_file else "private"
    return PduSettings(
        host=args.host,
        port=args.port,
        outlets=args.outlets,
        families=tuple(args.family or FAMILY_NAMES),
        write_community=community,
        users=tuple(V3User(**json.loads(path.read_text())) for path in args.user_file),
        engine_id=args.engine_id,
        delay_s=args.delay_s,
        initially_on=args.on,
        lying=frozenset(args.lie),
        refusing=frozenset(args.refuse),
    )


async def _serve(args: argparse.Namespace) -> None:
    sockets = {outlet: Path(path) for outlet, _, path in (text.partition("=") for text in args.qmp)}
    async with VirtualPdu(_settings(args), hook=qmp_hook(sockets) if sockets else None) as pdu:
        ready = {"host": pdu.settings.host, "port": pdu.port}
        await serve_until_told(pdu.control, ready, stop_at_eof=args.stop_at_eof)


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    asyncio.run(_serve(_arguments(sys.argv[1:] if argv is None else argv)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
