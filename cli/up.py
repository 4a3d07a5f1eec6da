"""`boardhand up`: MQTT server, broker and boards on one machine, started, kept running, and stopped."""

import asyncio
import json
import os
import signal
import threading
import time
from argparse import Namespace
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from cli import board_listener, private_mosquitto, up_page, up_plan
from cli.boards import collect
from cli.children import Children, Program
from cli.command_line import as_json, target_of
from cli.exits import CliError, Exit, usage
from cli.farm_file import FarmFileError
from cli.farm_publish import FarmFile
from cli.farm_view import FarmView
from cli.plain_text import shown
from cli.session import Session
from cli.target import DEFAULT_PREFIX, ENVIRONMENT, Target
from cli.up_report import Report, make
from wire.payloads import BrokerState, PayloadError, decode
from wire.phases import Presence
from wire.topics import Topics

T = TypeVar("T")
BROKER_START_DEADLINE_S = 60.0  # it needs 1 s; a loaded machine ten
FARM_START_DEADLINE_S = 1800.0  # the first start downloads a kernel, over whatever line there is
PROBE_EVERY_S = 0.1
PRESENCE_S = 0.5  # retained state follows the SUBACK at once
LOG_TAIL_LINES = 5


class _StoppedError(Exception):
    """Somebody asked us to stop."""


def run(args: Namespace) -> int:
    """Start everything and stay until SIGTERM or Ctrl-C (exit 0), or the end of the demo.

    Raises:
        CliError: something cannot be started or kept running; everything has been stopped again by then.
    """
    if args.boards < 0 or args.light < 0 or args.boards + args.light < 1:
        raise usage(f"--boards {args.boards} --light {args.light} is no farm", "give one board or more, or --no-farm")
    if args.settings is not None and not args.settings.is_file():
        raise usage(f"settings file {args.settings} is not there, or is no file", "mend --settings")
    if args.demo and (args.no_farm or args.settings is not None):
        raise usage("--demo needs the virtual farm", "leave --no-farm and --settings away")
    folders = up_plan.Folders(up_plan.state_folder(args.state_dir, os.environ))
    with up_plan.locked(folders):
        report = make(as_json=as_json(args))
        try:
            return asyncio.run(_Up(args, folders, report).run())
        finally:
            report.close()


class _Up:
    """One run of `boardhand up`."""

    def __init__(self, args: Namespace, folders: up_plan.Folders, report: Report) -> None:
        self._args = args
        self._folders = folders
        self._report = report
        self._stop = asyncio.Event()
        self._interrupted = False
        self._farm_ready = asyncio.Event()
        self._farm_error = ""
        self._environment = up_plan.children_environment(os.environ)

    async def run(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._asked_to_stop, number)
        self._children = Children(self._report.say)
        runner = asyncio.create_task(self._children.run(), name="children")
        address = FarmFile(os.environ)
        try:
            return await self._serve(address)
        except _StoppedError:
            return Exit.INTERRUPTED if self._interrupted and self._args.demo else Exit.OK
        finally:
            address.remove()
            if self._children.pids():
                self._report.say("stopping: " + ", ".join(self._children.pids()))
            await self._children.stop()
            await runner

    def _asked_to_stop(self, number: int) -> None:
        self._interrupted = number == signal.SIGINT
        self._stop.set()

    async def _serve(self, address: FarmFile) -> int:
        target = await self._server()
        self._page = None if self._args.no_page else up_page.prepare(self._folders.broker, self._args.page_port)
        self._publish_address(address, target)
        self._add_broker(target)
        self._add_boards(target)
        await self._or_end(self._broker_online(target))
        if not self._args.no_farm and self._args.settings is None:
            await self._or_end(self._farm_answers())
            await self._or_end(self._boards_announced(target))
        self._report.ready(
            {
                "mqtt": target.url,
                "prefix": target.prefix,
                "state_dir": str(self._folders.root),
                "pids": self._children.pids(),
                **({} if self._page is None else {"page": self._page.url, "page_token": str(self._page.token)}),
            }
        )
        if self._args.demo:
            return await self._or_end(self._demo(target))
        await self._or_end(asyncio.Event().wait())
        return Exit.OK

    async def _or_end(self, work: Coroutine[Any, Any, T]) -> T:
        """`work`, unless we are asked to stop or a child cannot be kept alive before it is done."""
        task = asyncio.ensure_future(work)
        stop = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({task, stop, self._children.gave_up}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            if stop.done():
                raise _StoppedError
            raise self._failure(self._children.gave_up.result())
        finally:
            for each in (task, stop):
                each.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    def _failure(self, name: str) -> CliError:
        log = self._folders.log(name)
        why = self._farm_error if name == "farm" and self._farm_error else _tail(log)
        return CliError(Exit.FAILED, f"{name} cannot be kept running: {shown(why or 'it said nothing')}", f"see {log}")

    # --- MQTT server ---

    async def _server(self) -> Target:
        if getattr(self._args, "mqtt", None) or os.environ.get(ENVIRONMENT["mqtt"]):
            target = target_of(self._args)
            await asyncio.to_thread(_probe, target)
            await asyncio.to_thread(_must_be_free, target)
            self._report.say(f"using the MQTT server at {target.url}")
            return target
        return await self._private_server()

    async def _private_server(self) -> Target:
        wanted: int | None = self._args.port
        if wanted is not None and private_mosquitto.is_taken(wanted):
            raise usage(f"port {wanted} of {private_mosquitto.HOST} is taken", "choose another --port")
        port = wanted or private_mosquitto.free_port()
        log = self._folders.log("mosquitto")
        prefix = getattr(self._args, "prefix", None) or os.environ.get(ENVIRONMENT["prefix"]) or DEFAULT_PREFIX
        settings = self._args.settings
        boards = None if settings is None else board_listener.wanted(settings, prefix)
        command = private_mosquitto.prepare(self._folders.mosquitto, log, port, boards)
        target = Target(f"mqtt://{private_mosquitto.HOST}:{port}", prefix, "boardhand up")
        self._children.add(Program(up_plan.MOSQUITTO, command, log, self._environment))
        await self._or_end(_answers(target, private_mosquitto.START_DEADLINE_S, f"see {log}"))
        await asyncio.to_thread(_mark_lost, target)
        also = "" if boards is None else f", and for boards at {boards.host}:{boards.port}"
        self._report.say(f"MQTT server: private Mosquitto at {target.url}{also}")
        return target

    def _publish_address(self, address: FarmFile, target: Target) -> None:
        try:
            address.write(target.url, target.prefix, str(self._folders.root))
        except (FarmFileError, OSError) as error:
            # The farm works all the same; only finding it by itself does not.
            self._report.say(f"note: {error}; other commands need --mqtt {target.url}")

    # --- daemons ---

    def _idle_s(self) -> float | None:
        given: float | None = self._args.idle_s
        return up_plan.DEMO_IDLE_S if given is None and self._args.demo else given

    def _add_broker(self, target: Target) -> None:
        settings = self._folders.broker / "broker.toml"
        text = up_plan.broker_settings(target, self._folders, self._page, idle_s=self._idle_s())
        settings.write_text(text, encoding="utf-8")
        log = self._folders.log("broker")
        self._children.add(Program(up_plan.BROKER, up_plan.broker_command(settings), log, self._environment))

    def _add_boards(self, target: Target) -> None:
        args = self._args
        if args.settings is not None:
            environment = self._environment | up_plan.agent_overrides(target)
            command = up_plan.agent_command(args.settings.absolute())
            self._children.add(Program(up_plan.REAL_AGENT, command, self._folders.log("agent"), environment))
        elif not args.no_farm:
            command = up_plan.farm_command(target, self._folders, args.boards, args.light)
            log = self._folders.log("farm")
            self._children.add(Program(up_plan.FARM, command, log, self._environment, on_line=self._farm_line))

    def _farm_line(self, line: bytes) -> None:
        said = _object(line)
        if not said:
            self._report.say(f"farm: {line.decode(errors='backslashreplace')}")
        elif said.get("ready") is True:
            self._farm_ready.set()
        elif "error" in said:
            self._farm_error = str(said["error"])
            self._report.say(f"farm: {self._farm_error}")
        else:
            done, of = (value if isinstance(value, (int, float)) else 0 for value in (said.get("done"), said.get("of")))
            self._report.stage(str(said.get("stage", "farm")), done, of, str(said.get("text", "")))

    async def _broker_online(self, target: Target) -> None:
        deadline_s = time.monotonic() + BROKER_START_DEADLINE_S
        while time.monotonic() < deadline_s:
            if await asyncio.to_thread(_broker_is_online, target):
                self._report.say("work broker: online")
                return
            await asyncio.sleep(PROBE_EVERY_S)
        raise CliError(
            Exit.FAILED,
            f"the broker is not online after {BROKER_START_DEADLINE_S:g} s",
            f"see {self._folders.log('broker')}",
        )

    async def _farm_answers(self) -> None:
        try:
            async with asyncio.timeout(FARM_START_DEADLINE_S):
                await self._farm_ready.wait()
        except TimeoutError:
            raise CliError(
                Exit.FAILED, f"the virtual farm is not ready after {FARM_START_DEADLINE_S:g} s",
                f"see {self._folders.log('farm')}",
            ) from None  # fmt: skip

    async def _boards_announced(self, target: Target) -> None:
        """Whoever is told that the farm is ready finds its boards: the agent may still be on its way to the server."""
        deadline_s = time.monotonic() + FARM_START_DEADLINE_S
        while await asyncio.to_thread(_boards_told, target) < self._args.boards + self._args.light:
            if time.monotonic() > deadline_s:
                why = f"agent {up_plan.AGENT} has not announced its boards after {FARM_START_DEADLINE_S:g} s"
                raise CliError(Exit.FAILED, why, f"see {self._folders.log('farm')}")
            await asyncio.sleep(PROBE_EVERY_S)

    async def _demo(self, target: Target) -> int:
        from cli.demo import Demo

        cancelled = threading.Event()
        boards, limit_s = self._args.boards + self._args.light, self._args.demo_deadline_s
        demo = Demo(
            target,
            boards,
            self._report,
            cancelled,
            agent=up_plan.AGENT,
            has_shell=self._args.light == 0,
            deadline_s=limit_s,
        )
        try:
            return await asyncio.to_thread(demo.run)
        except CliError as error:
            raise CliError(error.code, error.message, error.advice or f"logs are in {self._folders.root}") from error
        finally:
            cancelled.set()


def _probe(target: Target) -> None:
    with Session(target):
        pass


def _must_be_free(target: Target) -> None:
    """Two brokers or agents of one name would throw each other off the server without end.

    Raises:
        CliError: one of those that we would start is online there already.
    """
    topics = Topics(target.prefix)
    names = {topics.broker_state(): "a work broker", topics.agent_state(up_plan.AGENT): f"an agent {up_plan.AGENT}"}
    with Session(target) as session:
        session.subscribe(*names)
        while (message := session.receive(PRESENCE_S)) is not None:
            said = _object(message.payload)
            if said.get("state") == Presence.ONLINE and message.topic in names:
                raise CliError(
                    Exit.FAILED,
                    f"{names[message.topic]} is online at {target.url} under '{target.prefix}' already",
                    "stop it, or choose another --prefix",
                )


def _mark_lost(target: Target) -> None:
    """Say `lost` for everybody who is retained as online. Our server has just started and none of them is connected;
    a kill -9 of the whole farm, or a power cut, left their words behind, and no will comes for them any more."""
    topics = Topics(target.prefix)
    with Session(target) as session:
        session.subscribe(topics.broker_state(), topics.every_agent("state"))
        while (message := session.receive(PRESENCE_S)) is not None:
            said = _object(message.payload)
            if message.retain and said.get("state") == Presence.ONLINE:
                lost = json.dumps(said | {"state": Presence.LOST}).encode()
                session.publish(message.topic, lost, wait=True, retain=True)


def _object(payload: bytes) -> dict[str, Any]:
    try:
        said = json.loads(payload)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


async def _answers(target: Target, deadline_s: float, advice: str) -> None:
    """Wait until the server takes connections."""
    ends_s = time.monotonic() + deadline_s
    while True:
        try:
            await asyncio.to_thread(_probe, target)
        except CliError as error:
            if time.monotonic() >= ends_s:
                raise CliError(Exit.FAILED, f"{error.message}, after {deadline_s:g} s", advice) from error
            await asyncio.sleep(PROBE_EVERY_S)
        else:
            return


def _broker_is_online(target: Target) -> bool:
    topic = Topics(target.prefix).broker_state()
    try:
        with Session(target) as session:
            session.subscribe(topic)
            message = session.receive(0.5)
            return message is not None and decode(BrokerState, message.payload).state is Presence.ONLINE
    except (CliError, PayloadError):
        return False  # asked again until the deadline, which then says so


def _boards_told(target: Target) -> int:
    """How many boards of agents that are online the server knows."""
    view = FarmView(target.prefix)
    try:
        with Session(target) as session:
            collect(session, view)
    except CliError:
        return 0  # asked again until the deadline, which then says so
    return sum(row.power != "" and row.agent_state == "online" for row in view.rows())


def _tail(log: Path) -> str:
    """The last lines of a log, as one."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8192))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return " / ".join(line.strip() for line in lines[-LOG_TAIL_LINES:] if line.strip())
