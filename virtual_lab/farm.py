"""A farm of virtual boards with an agent of its own, in a private network: `python -m virtual_lab.farm`.

This outer process stays in the host's network. It prepares the boot files, starts the inner process
(`virtual_lab.farm_inside`), carries MQTT between the two networks, and keeps `DIR/farm.json` true. Its output is
one JSON object per line: `{"stage", "done", "of", "text"}` while something goes on, then `{"ready": true}`, or
`{"error": "..."}` and exit code 1.

SIGTERM or SIGINT end everything it started. So does its death, however it comes.
"""

import argparse
import asyncio
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from pydantic import ValidationError

from daemon.mqtt_link import Message, MqttLink
from daemon.mqtt_settings import MqttSettings
from virtual_lab import boot_artifacts, farm_plan, qemu_board
from virtual_lab.cabling import Cabling
from virtual_lab.child_process import child_environment
from virtual_lab.farm_plan import FarmPlan
from virtual_lab.farm_progress import Reporter
from virtual_lab.gateway import Gateway
from virtual_lab.lab_tools import MAX_SOCKET_PATH_BYTES, LabTools, cache_folder, find_tools
from virtual_lab.namespace import LabError
from virtual_lab.network import BRIDGE, BRIDGE_ADDRESS
from wire.names import is_id
from wire.payloads import AgentState, PayloadError, decode
from wire.phases import Presence
from wire.topics import Topics

# A namespace, a bridge and some cables: under a second, unless the machine is overloaded.
_INSIDE_START_TIMEOUT_S = 60.0
# The agent's 10 s, the boards' 5 s, and some for a busy machine.
STOP_TIMEOUT_S = 25.0
_AGENT_CONNECT_HINT_S = 30.0
_MAX_PACKET_BYTES = 256 * 1024
# The longest name below the sockets folder: light-1000.console
_LONGEST_SOCKET_NAME_BYTES = 24
_LIGHT_KERNEL_BYTES = 64 * 1024


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m virtual_lab.farm", description="A farm of virtual boards.")
    parser.add_argument("--dir", type=Path, required=True, help="the farm's folder: state, sockets, logs")
    parser.add_argument("--boards", type=int, default=1, help="QEMU boards, virt-1 upward (default 1)")
    parser.add_argument("--light", type=int, default=0, help="light boards, light-1 upward (default 0)")
    parser.add_argument("--pdu", action="store_true", help="light boards hang on virtual PDUs that measure")
    parser.add_argument("--light-boot-s", type=float, default=0.0, help="how long light boards boot (default 0)")
    parser.add_argument("--cabling", type=Path, help="JSON of virtual_lab.cabling, unknown to the agent")
    parser.add_argument("--more-settings", type=Path, help="JSON for the agent: {agent: {...}, boards: {NAME: {...}}}")
    parser.add_argument("--unlisted", type=int, default=0, help="of the QEMU boards, the last so many are unknown")
    parser.add_argument("--joining", choices=["open", "closed"], default="closed", help="may unknown boards join?")
    parser.add_argument("--client", choices=["busybox", "python"], default="busybox", help="the client on QEMU boards")
    parser.add_argument("--agent", default="lab", help="the agent's name (default lab)")
    parser.add_argument("--prefix", default="boardhand", help="the MQTT topic prefix")
    parser.add_argument("--mqtt", default="mqtt://127.0.0.1:1883", help="the MQTT server, mqtt:// or mqtts://")
    parser.add_argument("--mqtt-username")
    parser.add_argument("--mqtt-password-file", type=Path, help="a file with the password on its first line")
    parser.add_argument("--mqtt-ca-file", type=Path)
    parser.add_argument("--mqtt-client-cert-file", type=Path)
    parser.add_argument("--mqtt-client-key-file", type=Path)
    return parser


def mqtt_settings(options: argparse.Namespace) -> MqttSettings:
    """The MQTT server of the command line.

    Raises:
        LabError: an option is wrong; names it.
    """
    given = {
        "url": options.mqtt,
        "prefix": options.prefix,
        "username": options.mqtt_username,
        "password_file": options.mqtt_password_file,
        "ca_file": options.mqtt_ca_file,
        "client_cert_file": options.mqtt_client_cert_file,
        "client_key_file": options.mqtt_client_key_file,
    }
    try:
        return MqttSettings(**given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise LabError(f"the MQTT server's settings: {where + ': ' if where else ''}{first['msg']}") from None


def make_plan(options: argparse.Namespace, sockets: Path, reporter: Reporter) -> FarmPlan:
    """Decide what the farm consists of, and get the boot files.

    Raises:
        LabError: an option is wrong, a program is missing, a boot file cannot be had.
    """
    if not is_id(options.agent):
        raise LabError(f"--agent {options.agent!r}: use a-z, 0-9 and '-', at most 63 characters")
    boards = farm_plan.qemu_boards(options.boards, options.unlisted)
    lights = farm_plan.light_boards(options.light, on_pdus=options.pdu, boot_s=options.light_boot_s)
    cabling = Cabling.read(options.cabling)
    if not boards and options.joining == "closed" and not lights:
        raise LabError("a farm without boards: give --boards or --light")
    tools, files = LabTools(Path(), Path()), None
    if boards:
        tools = find_tools()
        reporter.stage("tools", 1, 1, f"{tools.qemu}, {tools.uboot}")
        files = boot_artifacts.get(cache_folder(), tools, reporter.download, options.client)
    folder = options.dir.resolve()
    return FarmPlan(
        folder=str(folder),
        sockets=str(sockets),
        agent=options.agent,
        prefix=options.prefix,
        prefix_length=farm_plan.prefix_length(options.light),
        qemu=str(tools.qemu),
        uboot=str(tools.uboot),
        kernel=str(files.kernel) if files else "",
        initrd=str(files.initrd) if files else "",
        device_tree=str(files.device_tree) if files else "",
        mqtt_username=options.mqtt_username,
        mqtt_password_file=str(options.mqtt_password_file.resolve()) if options.mqtt_password_file else None,
        joining=options.joining,
        boards=boards,
        lights=lights if cabling is None else farm_plan.cabled(lights, boards, cabling),
        cabling=cabling,
        more=_more_settings(options.more_settings),
    )


def _more_settings(path: Path | None) -> dict[str, Any]:
    try:
        more = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError) as error:
        raise LabError(f"--more-settings {path}: {error}") from None
    tables = [more, *more.values(), *more.get("boards", {}).values()] if isinstance(more, dict) else [None]
    if not all(isinstance(table, dict) for table in tables) or not more.keys() <= {"agent", "boards"}:
        raise LabError(f"--more-settings {path}: must be {{agent: {{...}}, boards: {{NAME: {{...}}}}}}")
    return dict(more)


def write_files(plan: FarmPlan) -> None:
    """Write the boards' files, the plan for the inner process, and the agent's settings.

    Raises:
        LabError, OSError: a file cannot be written.
    """
    folder = Path(plan.folder)
    for board in plan.boards:
        qemu_board.prepare(plan.qemu_spec(board), Path(plan.device_tree), Path(plan.uboot))
    if plan.lights:
        # Light boards check what they fetched; a pattern would hide a block that came twice.
        plan.light_kernel.write_bytes(os.urandom(_LIGHT_KERNEL_BYTES))
    if plan.pdus or plan.cabling:
        plan.pdu_community.write_text(farm_plan.PDU_COMMUNITY + "\n", encoding="utf-8")
    (folder / "plan.json").write_text(plan.to_json(), encoding="utf-8")
    plan.agent_settings.write_text(farm_plan.agent_toml(plan), encoding="utf-8")


class Outside:
    """The outer process while the farm runs."""

    def __init__(
        self,
        plan: FarmPlan,
        settings: MqttSettings,
        reporter: Reporter,
        inner: subprocess.Popen[bytes],
        began: datetime,
    ) -> None:
        """`began` is when nothing of this farm was running yet."""
        self._plan = plan
        self._settings = settings
        self._reporter = reporter
        self._inner = inner
        self._stop = asyncio.Event()
        self._began = began
        self._connected = asyncio.Event()
        """The agent has said that it is online."""
        self._trouble: str | None = None

    async def run(self, control: socket.socket, listener: socket.socket) -> int:
        """Carry MQTT and news until the end. Returns the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        control.setblocking(False)
        gateway = Gateway(self._settings, listener)
        await gateway.start()
        watch = self._watch_agent()
        await watch.start()
        news = asyncio.create_task(self._take_news(control), name="news")
        ready = asyncio.create_task(self._say_ready(), name="ready")
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        try:
            await asyncio.wait({news, stop}, return_when=asyncio.FIRST_COMPLETED)
            asked = self._stop.is_set()
            if asked:
                self._reporter.stage("stopping", 0, 1, "stopping the agent and the boards")
                with suppress(OSError):
                    await loop.sock_sendall(control, b'{"stop": true}')
            await asyncio.wait({news}, timeout=STOP_TIMEOUT_S)
        finally:
            for task in (news, ready, stop):
                task.cancel()
            await asyncio.gather(news, ready, stop, return_exceptions=True)
            await watch.stop()
            await asyncio.to_thread(self._end_inner)
            await gateway.stop()
        if asked and self._trouble is None:
            return 0
        self._reporter.line({"error": self._trouble or f"the farm's inner process ended with {self._inner.returncode}"})
        return 1

    def _end_inner(self) -> None:
        try:
            self._inner.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            # Its children ask the kernel to be ended with it (PR_SET_PDEATHSIG).
            self._inner.kill()
            self._inner.wait()

    async def _take_news(self, control: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with suppress(ConnectionResetError):
            while packet := await loop.sock_recv(control, _MAX_PACKET_BYTES):
                message = json.loads(packet)
                if "progress" in message:
                    self._reporter.line(message["progress"])
                if "state" in message:
                    self._write_state(message["state"])
                if "error" in message:
                    self._trouble = message["error"]

    def _write_state(self, state: dict[str, Any]) -> None:
        plan, folder = self._plan, Path(self._plan.folder)
        lights = {
            light.board: {"mac": light.mac, "address": light.address, "qmp": str(plan.light_socket(light))}
            for light in plan.lights
        }
        whole = {
            "outer": os.getpid(),
            **state,
            "lights": lights,
            "bridge": BRIDGE,
            "address": BRIDGE_ADDRESS,
            "agent_name": plan.agent,
            "agent_settings": str(plan.agent_settings),
            "agent_log": str(folder / "agent.log"),
        }
        part = folder / "farm.json.part"
        part.write_text(json.dumps(whole, indent=1), encoding="utf-8")
        part.replace(folder / "farm.json")

    def _watch_agent(self) -> MqttLink:
        """Listens for the agent's own word: only then does it hear what is said to its boards."""
        topic = Topics(self._plan.prefix).agent_state(self._plan.agent)

        def heard(message: Message) -> None:
            with suppress(PayloadError):
                said = decode(AgentState, message.payload)
                # What an earlier farm left retained is older than this one.
                if said.state is Presence.ONLINE and said.since >= self._began:
                    self._connected.set()

        async def nothing() -> None:
            """Say nothing ourselves."""

        name = f"boardhand-farm-{self._plan.agent}"[:64]
        return MqttLink(self._settings, name, will=None, subscriptions=[topic], on_message=heard, on_connect=nothing)

    async def _say_ready(self) -> None:
        try:
            async with asyncio.timeout(_AGENT_CONNECT_HINT_S):
                await self._connected.wait()
        except TimeoutError:
            hint = f"the agent is not online at the MQTT server {self._settings.url} yet: is it up?"
            self._reporter.stage("agent", 0, 1, f"{hint} See also {self._plan.folder}/agent.log")
            await self._connected.wait()
        self._reporter.stage("agent", 1, 1, f"agent {self._plan.agent} is connected")
        self._reporter.line({"ready": True})


def _start_inner(plan: FarmPlan, lock: TextIO) -> tuple[subprocess.Popen[bytes], socket.socket, socket.socket]:
    """Start the inner process and wait until its network is there. It shares `lock`, so that the folder stays
    taken until it, too, has ended.

    Raises:
        LabError: the inner process says why not.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    arguments = ["--plan", f"{plan.folder}/plan.json", "--control", str(theirs.fileno())]
    with (Path(plan.folder) / "inside.log").open("ab") as log:
        inner = subprocess.Popen(
            [sys.executable, "-m", "virtual_lab.farm_inside", *arguments],
            pass_fds=(theirs.fileno(), lock.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=child_environment(),
            start_new_session=True,  # a terminal's Ctrl-C is for the outer process, which says in which order to end
        )
    theirs.close()
    ours.settimeout(_INSIDE_START_TIMEOUT_S)
    try:
        packet, descriptors, _, _ = socket.recv_fds(ours, _MAX_PACKET_BYTES, 1)
    except TimeoutError:
        packet, descriptors = b"", []
    if not descriptors:
        ours.close()
        code = inner.wait(timeout=5.0)
        told = json.loads(packet).get("error") if packet else None
        raise LabError(told or f"the inner process ended with {code}; see {plan.folder}/inside.log")
    return inner, ours, socket.socket(fileno=descriptors[0])


def _sockets_folder(folder: Path, cleanup: ExitStack) -> Path:
    """A folder for unix sockets: in the farm's own, or, where that path is too long for one, a temporary one."""
    wanted = folder / "sockets"
    if len(os.fsencode(wanted)) + _LONGEST_SOCKET_NAME_BYTES <= MAX_SOCKET_PATH_BYTES:
        wanted.mkdir(mode=0o700, exist_ok=True)
        return wanted
    short = Path(tempfile.mkdtemp(prefix="bh-", dir=os.environ.get("XDG_RUNTIME_DIR")))
    cleanup.callback(shutil.rmtree, short, ignore_errors=True)
    return short


def _alone_in(folder: Path, cleanup: ExitStack) -> TextIO:
    """Make `folder`, and hold it for this process by the lock that is returned.

    Raises:
        LabError: another farm runs there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = cleanup.enter_context((folder / "farm.lock").open("w", encoding="utf-8"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise LabError(f"a farm is already running in {folder}: stop it first, or choose another --dir") from None
    return lock


def is_running(folder: Path) -> bool:
    """Whether a farm, or what is left of one that is just ending, holds `folder`."""
    try:
        with (folder / "farm.lock").open("r", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def run(options: argparse.Namespace, reporter: Reporter) -> int:
    """Run a farm to its end. Returns the exit code.

    Raises:
        LabError, OSError: it cannot start.
    """
    settings = mqtt_settings(options)
    with ExitStack() as cleanup:
        lock = _alone_in(options.dir, cleanup)
        plan = make_plan(options, _sockets_folder(options.dir.resolve(), cleanup), reporter)
        write_files(plan)
        reporter.stage("network", 0, 1, "making the private network")
        began = datetime.now(UTC)
        inner, control, listener = _start_inner(plan, lock)
        cleanup.callback((Path(plan.folder) / "farm.json").unlink, missing_ok=True)
        with control:
            return asyncio.run(Outside(plan, settings, reporter, inner, began).run(control, listener))


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: 0 after it was stopped, 1 when it could not run, 2 for wrong options."""
    options = _parser().parse_args(arguments)
    reporter = Reporter(sys.stdout)
    try:
        return run(options, reporter)
    except (LabError, OSError, subprocess.SubprocessError) as error:
        reporter.line({"error": str(error)})
    except KeyboardInterrupt:
        reporter.line({"error": "stopped before it was up"})
    return 1


if __name__ == "__main__":
    sys.exit(main())
