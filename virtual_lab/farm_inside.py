"""The inner process of a virtual farm: it lives in the private network and owns everything that runs there.

Started by `virtual_lab.farm`, which holds the other end of the control socket (AF_UNIX, SOCK_SEQPACKET, one JSON
object per packet). It ends everything when it is told to, and also when that socket ends: then the outer process
is dead, whatever killed it.

inside -> outside: {"listening": true} with the listening socket's descriptor, {"progress": {...}}, {"state": {...}},
                   {"error": "..."}
outside -> inside: {"stop": true}
"""

import argparse
import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from virtual_lab import network
from virtual_lab.child_process import Child, PythonChild, keep_running
from virtual_lab.farm_plan import MQTT_PORT, FarmPlan
from virtual_lab.lab_tools import LabTools
from virtual_lab.namespace import LabError, enter_private_network, network_identity
from virtual_lab.network import BRIDGE_ADDRESS, Cable, CableEnd, CableKind
from virtual_lab.qemu_board import QemuBoard

log = logging.getLogger(__name__)

# The agent says offline over MQTT for each of its boards, maybe to a server that is slow.
AGENT_STOP_TIMEOUT_S = 10.0
_LIGHTS_STOP_TIMEOUT_S = 5.0
_MAX_PACKET_BYTES = 256 * 1024
# A board that is off takes no frames, and its tap would keep them: ARP and TCP to a board that has just left make 50 in
# two minutes. At once on its next start they stop U-Boot's driver for ever, as 33 do (virtual_lab.frame_filter).
_QUEUE_FRAMES = 16


class Inside:
    """Runs the plan until `stop` is asked for."""

    def __init__(self, plan: FarmPlan, control: socket.socket, cables: list[Cable]) -> None:
        self._plan = plan
        self._control = control
        self._cables = cables
        self._stop = asyncio.Event()
        self._restarts = 0
        self._state: dict[str, Any] = {
            "inner": os.getpid(),
            "agent": None,
            "agent_restarts": 0,
            "light": None,
            "pump": None,
            "network": cables[0].kind.value if cables else None,
            "network_namespace": network_identity(),
            "boards": {},
        }

    def _send(self, message: dict[str, Any]) -> None:
        # The outer process reads all the time; if it is gone, the watcher of the socket ends us.
        with suppress(OSError):
            self._control.send(json.dumps(message).encode())

    def _progress(self, stage: str, done: int, of: int, text: str) -> None:
        self._send({"progress": {"stage": stage, "done": done, "of": of, "text": text}})

    async def run(self) -> None:
        """Start everything in order, wait for the end, stop everything in the opposite order."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        watcher = asyncio.create_task(self._watch_control(), name="control")
        # Stopped from the last to the first: the agent says offline while its boards still run.
        kept: list[asyncio.Task[None]] = []
        try:
            await self._start_all(kept)
            await self._stop.wait()
        finally:
            for group in (kept[-1:], kept[:-1]):
                for task in group:
                    task.cancel()
                await asyncio.gather(*group, return_exceptions=True)
            watcher.cancel()

    async def _watch_control(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while packet := await loop.sock_recv(self._control, _MAX_PACKET_BYTES):
                if json.loads(packet).get("stop"):
                    break
        finally:
            self._stop.set()

    async def _start_all(self, kept: list[asyncio.Task[None]]) -> None:
        plan, folder = self._plan, Path(self._plan.folder)
        pairs = [cable.pump for cable in self._cables if cable.pump is not None]
        if pairs:
            ends = [end for pair in pairs for end in pair]
            pump = PythonChild(
                "virtual_lab.frame_pump",
                [f"{one}:{other}" for one, other in pairs],
                folder / "pump.log",
                pass_fds=ends,
                orphan_signal=signal.SIGKILL,
            )
            kept.append(self._keep("frame pump", pump, self._set("pump", pump)))
        kept += self._board_tasks()
        if plan.lights or plan.cabling:
            lights = PythonChild(
                "virtual_lab.light_board",
                ["--plan", str(folder / "plan.json")],
                folder / "light.log",
                stop_timeout_s=_LIGHTS_STOP_TIMEOUT_S,
                orphan_signal=signal.SIGKILL,
            )
            kept.append(self._keep("light boards", lights, self._set("light", lights)))
        await self._until_switchable()
        agent = PythonChild(
            "agent",
            ["--settings", str(plan.agent_settings)],
            folder / "agent.log",
            stop_timeout_s=AGENT_STOP_TIMEOUT_S,
        )
        self._progress("agent", 0, 1, f"starting agent {plan.agent}")
        kept.append(self._keep("agent", agent, self._agent_started(agent)))

    def _board_tasks(self) -> list[asyncio.Task[None]]:
        tools = LabTools(Path(self._plan.qemu), Path(self._plan.uboot))
        tasks = []
        for board, cable in zip(self._plan.boards, self._cables, strict=True):
            spec = self._plan.qemu_spec(board)
            machine = QemuBoard(spec, tools, cable)
            entry: dict[str, Any] = {
                "pid": None,
                "mac": board.mac,
                "address": board.address,
                "listed": board.listed,
                "own_environment": board.own_environment,
                "qmp": str(spec.qmp_socket),
                "console": str(spec.console_socket),
                "console_log": str(spec.console_log),
            }
            self._state["boards"][board.board] = entry
            tasks.append(self._keep(f"board {board.board}", machine, self._pid_of(board.board, machine)))
        return tasks

    async def _until_switchable(self) -> None:
        """Wait for the power switches: an agent that starts before them reports them as unreachable."""
        sockets = [self._plan.qemu_spec(board).qmp_socket for board in self._plan.boards]
        sockets += [self._plan.light_socket(light) for light in self._plan.lights]
        if self._plan.cabling is not None:
            sockets.append(self._plan.cable_socket)
        while not self._stop.is_set() and not all(path.exists() for path in sockets):  # noqa: ASYNC110  # files
            await asyncio.sleep(0.05)

    def _keep(self, name: str, child: Child, started: Callable[[], None]) -> asyncio.Task[None]:
        def ended(how: str) -> None:
            started()  # its pid is None now
            words = child.last_words() if isinstance(child, PythonChild) else ""
            self._progress("trouble", 0, 1, f"{name} {how}" + (f": {words}" if words else ""))

        return asyncio.create_task(keep_running(child, on_start=started, on_end=ended), name=name)

    def _set(self, key: str, child: Child) -> Callable[[], None]:
        def changed() -> None:
            self._state[key] = child.pid
            self._send({"state": self._state})

        return changed

    def _pid_of(self, board: str, child: Child) -> Callable[[], None]:
        boards = self._state["boards"]

        def changed() -> None:
            boards[board]["pid"] = child.pid
            if child.pid is not None:
                running = sum(entry["pid"] is not None for entry in boards.values())
                self._progress("boards", running, len(boards), board)
            self._send({"state": self._state})

        return changed

    def _agent_started(self, agent: Child) -> Callable[[], None]:
        report = self._set("agent", agent)

        def changed() -> None:
            if agent.pid is not None:
                self._state["agent_restarts"] = self._restarts
                self._restarts += 1
            report()

        return changed


def _build(plan: FarmPlan, control: socket.socket) -> list[Cable]:
    """Make the namespace, its network and the listening socket, which is handed out. Before any event loop."""
    enter_private_network()
    network.build_bridge(prefix_length=plan.prefix_length)
    kind = CableKind.TAP if network.tap_is_possible() else CableKind.VETH
    ends = [
        CableEnd(board.mac, board.address if board.listed else None, queue_frames=_QUEUE_FRAMES)
        for board in plan.boards
    ]
    cables = network.lay_cables(ends, kind)
    with socket.create_server((BRIDGE_ADDRESS, MQTT_PORT), backlog=256) as listener:
        socket.send_fds(control, [b'{"listening": true}'], [listener.fileno()])
    text = f"{network.BRIDGE} {BRIDGE_ADDRESS}/{plan.prefix_length}, {len(cables)} cables ({kind})"
    progress = {"stage": "network", "done": 1, "of": 1, "text": text}
    control.send(json.dumps({"progress": progress}).encode())
    return cables


def main(arguments: list[str] | None = None) -> int:
    """Entry point. Only `virtual_lab.farm` calls it."""
    parser = argparse.ArgumentParser(prog="virtual_lab.farm_inside")
    parser.add_argument("--plan", type=Path, required=True)
    parser.add_argument("--control", type=int, required=True, help="descriptor of the control socket")
    options = parser.parse_args(arguments)
    plan = FarmPlan.from_json(options.plan.read_text(encoding="utf-8"))
    control = socket.socket(fileno=options.control)
    os.set_inheritable(control.fileno(), False)
    try:
        cables = _build(plan, control)
        control.setblocking(False)
        asyncio.run(_run(plan, control, cables))
    except (LabError, OSError) as error:
        with suppress(OSError):
            control.send(json.dumps({"error": str(error)}).encode())
        return 1
    finally:
        # The outer process does it too, unless it was killed.
        (Path(plan.folder) / "farm.json").unlink(missing_ok=True)
    return 0


async def _run(plan: FarmPlan, control: socket.socket, cables: list[Cable]) -> None:
    await Inside(plan, control, cables).run()


if __name__ == "__main__":
    sys.exit(main())
