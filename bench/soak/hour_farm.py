"""The farm of an hour as processes: Mosquitto, broker, and virtual boards with an agent; and what people ask them."""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.soak.hour_plan import Hour, job_yaml
from cli import private_mosquitto
from daemon.mqtt_link import Message, MqttLink
from daemon.mqtt_settings import MqttSettings

ROOT = Path(__file__).resolve().parents[2]
START_S, STOP_S = 300.0, 60.0
"""A kernel may have to be downloaded first; the farm's own limit for stopping is 25 s."""
TOPICS = ("board/+/state", "board/+/lease", "board/+/work/result", "job/+/state", "broker/state", "broker/response/#")
METER_EVERY_S = 1


class FailedError(Exception):
    """A promise that was not kept."""


def toml(name: str, table: dict[str, Any]) -> str:
    """A table, and its arrays of tables after it. JSON's values are TOML's, but for tables in line."""
    plain = {key: value for key, value in table.items() if not isinstance(value, (dict, list))}
    lines = [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in plain.items())]
    for key, rows in table.items():
        for row in rows if isinstance(rows, list) else []:
            lines.append(f"[[{name}.{key}]]")
            for inner, value in row.items():
                inline = (
                    ", ".join(f"{k} = {json.dumps(v)}" for k, v in value.items()) if isinstance(value, dict) else ""
                )
                lines.append(f"{inner} = {{ {inline} }}" if inline else f"{inner} = {json.dumps(value)}")
    return "\n".join(lines) + "\n"


@asynccontextmanager
async def process(folder: Path, name: str, command: list[str]) -> AsyncIterator[subprocess.Popen[bytes]]:
    """A program of the farm, its output in `folder`; ended kindly, and with SIGKILL where that takes too long."""
    with (folder / f"{name}.log").open("wb") as log:
        running = subprocess.Popen(  # noqa: ASYNC220  # starting takes milliseconds
            command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
    try:
        yield running
    finally:
        running.send_signal(signal.SIGTERM)
        try:
            await asyncio.to_thread(running.wait, STOP_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


class HourFarm:
    """The running farm. `hear` gets every message of `TOPICS`."""

    def __init__(self, folder: Path, hour: Hour, hear: Callable[[str, bytes, float], None]) -> None:
        self.folder = folder
        self.hour = hour
        self.port = private_mosquitto.free_port()
        self._hear = hear
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._broker_online = asyncio.Event()
        self._numbers = itertools.count(1)
        self.link = MqttLink(
            MqttSettings(url=self.url), "hour", will=None, subscriptions=[f"boardhand/{tail}" for tail in TOPICS],
            on_message=self._heard, on_connect=_nothing,
        )  # fmt: skip

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"

    @property
    def broker_settings(self) -> Path:
        return self.folder / "broker.toml"

    def _heard(self, message: Message) -> None:
        if "/response/" in message.topic:
            said = json.loads(message.payload)
            waits = self._answers.get(said.get("transaction"))
            if waits is not None and not waits.done():
                waits.set_result(said)
        elif message.topic == "boardhand/broker/state":
            if b'"online"' in message.payload:
                self._broker_online.set()
        else:
            self._hear(message.topic, message.payload, time.monotonic())

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Start everything; up when broker and agent are online."""
        size, folder = self.hour.size, self.folder
        table = {"state_dir": str(folder / "broker"), "wake_timeout_s": 300, **self.hour.policy()}
        self.broker_settings.write_text(toml("broker", table) + toml("mqtt", {"url": self.url}))
        more = {"agent": {"meter_every_s": METER_EVERY_S}, "boards": self.hour.board_settings()}
        (folder / "more.json").write_text(json.dumps(more))
        farm = [sys.executable, "-m", "virtual_lab.farm", "--dir", str(folder / "farm"), "--mqtt", self.url]
        farm += ["--boards", str(size.qemu), "--light", str(size.light), "--pdu"]
        farm += ["--light-boot-s", str(size.light_boot_s), "--more-settings", str(folder / "more.json")]
        broker = [sys.executable, "-m", "broker", "--settings", str(self.broker_settings)]
        server = private_mosquitto.prepare(folder / "mosquitto", folder / "mosquitto-own.log", self.port)
        async with process(folder, "mosquitto", server):
            await self.link.start()
            try:
                await self.link.wait_connected(30)
                async with process(folder, "broker", broker), process(folder, "farm", farm) as running:
                    async with asyncio.timeout(START_S):
                        await self._broker_online.wait()
                        await self._farm_is_up(running)
                    yield
            finally:
                await self.link.stop()

    async def _farm_is_up(self, running: subprocess.Popen[bytes]) -> None:
        while True:
            said = (self.folder / "farm.log").read_text()
            if '{"ready": true}' in said:
                return
            if running.poll() is not None:
                raise FailedError(f"the farm did not start: {said[-800:]}")
            await asyncio.sleep(0.1)

    async def ask(self, verb: str, data: dict[str, Any]) -> dict[str, Any]:
        """Ask the broker; again and again, as the same transaction is done once.

        Raises:
            FailedError: it says no.
        """
        transaction = f"hour-{next(self._numbers)}"
        waits = self._answers[transaction] = asyncio.get_running_loop().create_future()
        payload = json.dumps({"transaction": transaction, "data": data}).encode()
        while not waits.done():
            with contextlib.suppress(OSError):
                await self.link.publish(f"boardhand/broker/request/{verb}", payload)
            await asyncio.wait([waits], timeout=10)
        answer = self._answers.pop(transaction).result()
        if not answer["ok"]:
            raise FailedError(f"{verb}: {answer['error']}")
        return dict(answer["data"])

    async def submit_all(self, begun: float) -> None:
        """Hand in every job at its time. `begun` is the loop's time at which the hour began."""
        async with asyncio.TaskGroup() as group:
            for job in self.hour.jobs:
                await asyncio.sleep(max(0.0, begun + job.at_s - time.monotonic()))
                data = {"yaml": json.dumps(job_yaml(job)), "submitter": job.submitter}
                group.create_task(self.ask("submit", data), name=job.name)

    async def energy(self, since: datetime) -> dict[str, dict[str, Any]]:
        """What `boardhand energy --json` says, by board."""
        command = [sys.executable, "-m", "cli", "energy", "--since", since.isoformat(), "--json", "--mqtt", self.url]
        asked = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT
        )
        out, error = await asked.communicate()
        if asked.returncode:
            raise FailedError(f"boardhand energy ended with {asked.returncode}: {error.decode()[-500:]}")
        return {board["board"]: board for board in json.loads(out)["boards"]}


async def _nothing() -> None:
    """Subscriptions are enough."""
