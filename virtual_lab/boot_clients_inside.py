"""The inner process of one client of `boot_clients`: the private network, our netboot server in it, and QEMU.

    python -m virtual_lab.boot_clients_inside CONFIG     (a JSON object, see `Plan`)

It needs no rights that the user has not. Lines of JSON go both ways, and it ends everything when its input ends:

out: {"at": s, "event": "ready"}, netboot's events by the names of their classes, {"event": "console", "text": ...},
     {"event": "wire", ...} with what `boot_witness` heard, {"event": "off", "code": ...} when QEMU ended,
     {"event": "did", "what": ...} after each order, {"event": "stats"}
in:  {"do": "power-on" | "power-off" | "stop-server" | "start-server" | "kill-worker" | "stats"}
     with "at_file": name and "after_s": s it is done so long after the next request for this file, and told then

`at` counts seconds from the moment when power came on, as a board's own start does.
"""

import asyncio
import codecs
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

from netboot.events import FileRequested, NetbootEvent
from netboot.profile import BootProfile
from netboot.server import NetbootBoard, NetbootConfig, NetbootServer
from virtual_lab import boot_witness, network
from virtual_lab.boot_clients import ClientSpec, Machine, command, prepare
from virtual_lab.child_process import child_environment
from virtual_lab.namespace import LabError, die_with_parent, enter_private_network
from virtual_lab.network import BRIDGE, BRIDGE_ADDRESS, Cable, CableEnd, CableKind

_READ_BYTES = 65536
_STOP_TIMEOUT_S = 5.0
_PATHS = {"kernel", "initrd", "dtb", "folder"}
_NAMED_PATHS = {"files", "loaders"}


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run. `loss_percent` and `seed` make the cable a bad one. `profile` are the fields of `BootProfile`, and
    `server` further ones of `NetbootConfig`."""

    machine: Machine
    folder: Path
    profile: dict[str, Any]
    mac: str = "52:54:00:77:00:01"
    address: str = "10.77.0.11"
    board: str = "board1"
    uuid: str = "6c8f6a0e-6d2b-4a53-9d3f-2b1f4a1f0b77"
    environment: dict[str, str] | None = None
    uefi_http: bool = False
    loss_percent: float = 0.0
    seed: int = 1
    server: dict[str, Any] = field(default_factory=dict)

    def client(self) -> ClientSpec:
        return ClientSpec(self.machine, self.mac, self.uuid, self.folder, self.environment, self.uefi_http)

    def boot_profile(self) -> BootProfile:
        values: dict[str, Any] = dict(self.profile)
        values.update({key: Path(values[key]) for key in _PATHS & values.keys() if values[key] is not None})
        values["uboot_env"] = tuple((key, text) for key, text in values.get("uboot_env", ()))
        for key in _NAMED_PATHS & values.keys():
            values[key] = tuple((name, Path(path)) for name, path in values[key])
        return BootProfile(**values)


def read_plan(text: str) -> Plan:
    """The plan in a JSON object.

    Raises:
        ValueError, TypeError: it is none.
    """
    values = json.loads(text)
    return Plan(**{**values, "machine": Machine(values["machine"]), "folder": Path(values["folder"])})


class Inside:
    """Runs the plan until its input ends."""

    def __init__(self, plan: Plan, cable: Cable) -> None:
        self._plan = plan
        self._cable = cable
        self._secrets: dict[str, object] | None = None
        self._server: NetbootServer | None = None
        self._qemu: asyncio.subprocess.Process | None = None
        self._console: asyncio.Task[None] | None = None
        self._power_on_at = time.monotonic()
        self._waiting: list[dict[str, Any]] = []
        self._later: set[asyncio.Task[None]] = set()

    def _say(self, event: str, **more: Any) -> None:
        at = round(time.monotonic() - self._power_on_at, 3)
        sys.stdout.write(json.dumps({"at": at, "event": event, **more}, default=str) + "\n")
        sys.stdout.flush()

    def _on_event(self, event: NetbootEvent) -> None:
        self._say(type(event).__name__, **asdict(event))
        if isinstance(event, FileRequested):
            for order in [order for order in self._waiting if order["at_file"] == event.path]:
                self._waiting.remove(order)
                task = asyncio.get_running_loop().create_task(self._do_later(order), name="order")
                self._later.add(task)
                task.add_done_callback(self._later.discard)

    def _save(self, state: dict[str, object]) -> None:
        self._secrets = state

    def _new_server(self) -> NetbootServer:
        plan, profile = self._plan, self._plan.boot_profile()
        config = NetbootConfig(
            agent="desk",
            interface=BRIDGE,
            server_address=IPv4Address(BRIDGE_ADDRESS),
            network=IPv4Network(f"{BRIDGE_ADDRESS}/24", strict=False),
            pool=None,
            mqtt_for_boards=f"{BRIDGE_ADDRESS}:1883",
            prefix="boardhand",
            joining_profile=None,
            **plan.server,
        )
        board = NetbootBoard(plan.board, (plan.mac,), IPv4Address(plan.address), profile, plan.uuid)
        return NetbootServer(
            config, [board], on_event=self._on_event, secrets_state=self._secrets, save_secrets=self._save
        )

    async def run(self) -> None:
        """Serve, and do what the input says until it ends."""
        prepare(self._plan.client())
        loop = asyncio.get_running_loop()
        with boot_witness.open_witness(BRIDGE) as wire:
            loop.add_reader(wire, self._witness, wire)
            try:
                await self._serve()
            finally:
                loop.remove_reader(wire)

    def _witness(self, wire: socket.socket) -> None:
        for heard in boot_witness.read(wire):
            self._say("wire", **heard)

    async def _serve(self) -> None:
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        try:
            await self._start_server()
            self._say("ready", cable=self._cable.kind.value)
            while line := await reader.readline():
                order: dict[str, Any] = json.loads(line)
                if "at_file" in order:
                    self._waiting.append(order)
                else:
                    await self._do(order["do"])
        finally:
            await asyncio.gather(*self._later)
            await self._power_off()
            await self._stop_server()

    async def _do_later(self, order: dict[str, Any]) -> None:
        await asyncio.sleep(order["after_s"])
        await self._do(order["do"])

    async def _do(self, what: str) -> None:
        match what:
            case "power-on":
                await self._power_on()
            case "power-off":
                await self._power_off()
            case "start-server":
                await self._start_server()
            case "stop-server":
                await self._stop_server()
            case "kill-worker":
                if self._server is not None and self._server.tftp_pid is not None:
                    os.kill(self._server.tftp_pid, signal.SIGKILL)
            case "stats":
                self._say("stats", **(self._server.stats() if self._server is not None else {}))
            case _:
                raise LabError(f"no such order: {what}")
        self._say("did", what=what)

    async def _start_server(self) -> None:
        if self._server is None:
            server = self._new_server()
            await server.start()
            self._server = server

    async def _stop_server(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    async def _power_on(self) -> None:
        if self._server is not None:
            self._server.new_boot(self._plan.board)
        self._power_on_at = time.monotonic()
        self._qemu = await asyncio.create_subprocess_exec(
            *command(self._plan.client(), self._cable),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(self._cable.nic,),
            preexec_fn=lambda: die_with_parent(signal.SIGKILL),
            start_new_session=True,
        )
        self._console = asyncio.create_task(self._read_console(self._qemu), name="console")

    async def _read_console(self, qemu: asyncio.subprocess.Process) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        if qemu.stdout is not None:
            while data := await qemu.stdout.read(_READ_BYTES):
                self._say("console", text=decoder.decode(data))
        self._say("off", code=await qemu.wait())

    async def _power_off(self) -> None:
        if self._qemu is not None and self._console is not None:
            with suppress(ProcessLookupError):
                self._qemu.kill()
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await self._console
            self._qemu = self._console = None


def _start_pump(plan: Plan, cable: Cable) -> subprocess.Popen[bytes] | None:
    if cable.pump is None:
        return None
    one, other = cable.pump
    words = ["--loss", str(plan.loss_percent), "--seed", str(plan.seed), f"{one}:{other}"]
    return subprocess.Popen(
        [sys.executable, "-m", "virtual_lab.frame_pump", *words],
        stdin=subprocess.PIPE,
        pass_fds=cable.pump,
        env=child_environment(),
        preexec_fn=lambda: die_with_parent(signal.SIGKILL),  # noqa: PLW1509  # no thread has been started yet
        start_new_session=True,
    )


def main(arguments: list[str]) -> int:
    """Entry point."""
    plan = read_plan(arguments[0])
    enter_private_network()
    network.build_bridge()
    # Only a cable with a pump can be a bad one.
    kind = CableKind.TAP if not plan.loss_percent and network.tap_is_possible() else CableKind.VETH
    # U-Boot needs the filter; iPXE and UEFI want to hear multicast.
    filtered = plan.machine in {Machine.UBOOT_ARM64, Machine.UBOOT_ARM, Machine.UBOOT_RISCV64}
    cable = network.lay_cables([CableEnd(plan.mac, plan.address, filtered)], kind)[0]
    pump = _start_pump(plan, cable)
    try:
        asyncio.run(Inside(plan, cable).run())
    finally:
        if pump is not None and pump.stdin is not None:
            pump.stdin.close()
            pump.wait(_STOP_TIMEOUT_S)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
