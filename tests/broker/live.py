"""A real MQTT server, the real broker as a process, and boards and agents that speak the contract."""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from daemon.mqtt_link import MqttLink, NotConnectedError
from daemon.mqtt_settings import MqttSettings
from tests.free_ports import free_port
from wire.payloads import (
    AgentState,
    BoardInfo,
    BoardSelf,
    BoardState,
    JobSummary,
    PowerResult,
    Request,
    Response,
    StepResult,
    WorkAccept,
    WorkAck,
    WorkAsk,
    WorkLog,
    WorkMessage,
    WorkOffer,
    WorkOutcome,
    WorkStop,
    decode,
    encode,
    parse_power_command,
)
from wire.phases import Outcome, Phase, Power, PowerAction, Presence, Purpose
from wire.topics import Topics

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0
"""Costs nothing when all is well."""


class Server:
    """mosquitto on loopback. Like most in the field it keeps nothing over a restart."""

    def __init__(self, folder):
        self.port = free_port()
        self.config = folder / "mosquitto.conf"
        self.config.write_text(f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self.process = None

    async def start(self):
        self.process = subprocess.Popen(
            ["mosquitto", "-c", str(self.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                    return
                await asyncio.sleep(0.02)

    def stop(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait(timeout=60)
            self.process = None


class BrokerProcess:
    def __init__(self, folder, port, **table):
        quick = {"settle_s": 0.2, "tick_s": 0.1, "offer_timeout_s": 6, "power_timeout_s": 20, "min_on_s": 0}
        quick |= {"lost_grace_s": 8, "absent_grace_s": 3, "bench_s": 1, "wake_timeout_s": 60}
        lines = [f"{key} = {value}" for key, value in {**quick, **table}.items()]
        self.settings = folder / "broker.toml"
        self.settings.write_text(
            f'[broker]\nstate_dir = "{folder / "state"}"\n'
            + "\n".join(lines)
            + f'\n[mqtt]\nurl = "mqtt://127.0.0.1:{port}"\n[agent]\nname = "not-ours"\n'
        )
        self.log = folder / "broker.log"
        self.process = None

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "broker", "--settings", str(self.settings)],
                cwd=ROOT,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONWARNINGS": "default"},
            )

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        self.process = None
        return code

    def cleanup(self):
        if self.process is not None:
            self.kill()


class Board:
    def __init__(self, name):
        self.name = name
        self.phase, self.online, self.boots, self.seq = Phase.SLEEPING, False, 0, 0
        self.work = None
        self.runs = []  # (job, token) each time steps were really run
        self.task = None
        self.stopped = asyncio.Event()
        self.unacknowledged = None

    @property
    def boot_id(self):
        return f"{self.name}-{self.boots}"


class LiveFarm:
    """Agent lab1 and its boards, and a person who asks. `hold` names points where boards wait until released."""

    def __init__(self, port, names=("b1", "b2")):
        self.topics = Topics()
        self.boards = {name: Board(name) for name in names}
        self.heard = []  # (topic, payload, retain)
        self.news = asyncio.Condition()
        self.hold = set()
        self.tasks = set()
        self.transactions = itertools.count(1)
        t = self.topics
        self.link = MqttLink(
            MqttSettings(url=f"mqtt://127.0.0.1:{port}"),
            "farm-double",
            will=None,
            subscriptions=[
                *(t.every_board(tail) for tail in ("work", "work/answer", "power/set", "lease")),
                t.every_job_state(),
                f"{t.prefix}/broker/#",
            ],
            on_message=self.on_message,
            on_connect=self.say_all,
        )

    async def __aenter__(self):
        await self.link.start()
        await self.link.wait_connected(PATIENCE_S)
        return self

    async def __aexit__(self, *_):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.link.stop()

    def later(self, work):
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # --- saying

    async def say(self, topic, payload, *, retain=False):
        """As boards and agents do: again and again until the server has it."""
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await self.link.publish(topic, payload, retain=retain)
                except NotConnectedError:
                    await asyncio.sleep(0.05)
                else:
                    return

    async def say_all(self):
        said = AgentState(state=Presence.ONLINE, session=1, since=datetime.now(UTC))
        await self.link.publish(self.topics.agent_state("lab1"), encode(said), retain=True)
        for board in self.boards.values():
            await self.link.publish(self.topics.board_info(board.name), encode(BoardInfo(arch="arm64")), retain=True)
            await self.say_self(board)
            await self.say_state(board)

    async def say_state(self, board, phase=None, reason=None):
        board.phase = phase or board.phase
        board.seq += 1
        power = Power.OFF if board.phase in {Phase.OFF, Phase.SLEEPING} else Power.ON
        said = BoardState(
            power=power,
            phase=board.phase,
            reason=reason,
            since=datetime.now(UTC),
            agent="lab1",
            session=1,
            seq=board.seq,
        )
        await self.say(self.topics.board_state(board.name), encode(said), retain=True)

    async def say_self(self, board):
        state = Presence.ONLINE if board.online else Presence.OFFLINE
        said = BoardSelf(state=state, boot_id=board.boot_id, work=board.work[0] if board.work else None)
        await self.say(self.topics.board_self(board.name), encode(said), retain=True)

    async def report(self, name, report):
        await self.say(self.topics.work_result(name), encode(report))

    # --- hearing

    def on_message(self, message):
        self.heard.append((message.topic, message.payload, message.retain))
        self.later(self.react(message.topic, message.payload))

    async def tell_waiters(self):
        async with self.news:
            self.news.notify_all()

    async def react(self, topic, payload):
        await self.tell_waiters()
        await self.obey(topic, payload)
        # What came of it is waited for as well, and no further message may follow.
        await self.tell_waiters()

    async def obey(self, topic, payload):
        found = self.topics.parse_board(topic)
        if found is None or found.board not in self.boards:
            return
        board = self.boards[found.board]
        if found.tail == "power/set":
            await self.power(board, parse_power_command(payload))
        elif found.tail == "work":
            match decode(WorkMessage, payload):
                case WorkOffer() as offer:
                    await self.take(board, offer)
                case WorkAck() as ack if board.unacknowledged is not None:
                    if (ack.job, ack.token) == board.work:
                        board.unacknowledged.set()
                case WorkStop() as stop if board.work == (stop.job, stop.token):
                    board.stopped.set()

    async def power(self, board, command):
        if "power" in self.hold:
            return
        if command.power is PowerAction.ON:
            await self.say_state(board, Phase.STARTING)
        result = PowerResult(id=command.id, ok=True, power=Power.ON, took_ms=1)
        await self.link.publish(self.topics.power_result(board.name), encode(result))
        if command.power is PowerAction.ON:
            await self.boot(board)
        else:
            board.online = False
            await self.say_self(board)
            asleep = command.purpose is Purpose.SLEEP
            await self.say_state(board, Phase.SLEEPING if asleep else Phase.OFF)

    async def boot(self, board):
        board.boots += 1
        board.online, board.work = True, None
        await self.say_self(board)
        await self.say_state(board, Phase.READY)
        await self.report(board.name, WorkAsk(boot_id=board.boot_id))

    async def take(self, board, offer):
        if "accept" in self.hold:
            return
        accept = WorkAccept(job=offer.job, token=offer.token, boot_id=board.boot_id)
        if board.work == (offer.job, offer.token):
            await self.report(board.name, accept)
            return
        board.work = (offer.job, offer.token)
        board.stopped = asyncio.Event()
        board.task = asyncio.create_task(self.run(board, offer, accept))
        self.tasks.add(board.task)

    async def run(self, board, offer, accept):
        await self.report(board.name, accept)
        await self.say_self(board)
        await self.say_state(board, Phase.BUSY)
        board.runs.append((offer.job, offer.token))
        await self.tell_waiters()
        for seq, step in enumerate(offer.steps):
            log = WorkLog(job=offer.job, token=offer.token, seq=seq, text=f"$ {step.run}\n", step=step.name)
            await self.report(board.name, log)
            await self.report(board.name, log)  # QoS 1: it may come twice
        # `hold` is a plain set that tests change as they like.
        while "run" in self.hold and not board.stopped.is_set():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        failed = any(step.run == "false" for step in offer.steps)
        outcome = WorkOutcome(
            job=offer.job,
            token=offer.token,
            outcome=Outcome.ERROR if board.stopped.is_set() else Outcome.FAILED if failed else Outcome.PASSED,
            steps=[StepResult(name=step.name, exit_code=int(failed)) for step in offer.steps],
            log_chunks=len(offer.steps),
        )
        board.unacknowledged = asyncio.Event()
        while not board.unacknowledged.is_set():
            await self.report(board.name, outcome)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(board.unacknowledged.wait(), 0.5)
        board.work = None
        await self.say_self(board)
        await self.say_state(board, Phase.READY)
        await self.report(board.name, WorkAsk(boot_id=board.boot_id))

    # --- asking

    async def until(self, what, condition, timeout_s=PATIENCE_S):
        async with self.news:
            try:
                async with asyncio.timeout(timeout_s):
                    while not (found := condition()):
                        await self.news.wait()
            except TimeoutError:
                tail = "\n".join(f"{t} {p[:200]!r}" for t, p, _ in self.heard[-25:])
                raise AssertionError(f"waited in vain for {what}; last heard:\n{tail}") from None
            return found

    def payloads(self, topic):
        return [payload for heard, payload, _ in list(self.heard) if heard == topic]

    async def broker_state(self, state, session=None):
        def said():
            for payload in reversed(self.payloads(self.topics.broker_state())):
                return f'"state":"{state}"'.encode() in payload and (
                    session is None or f'"session":{session},'.encode() in payload
                )
            return False

        await self.until(f"broker {state}", said)

    async def ask_raw(self, verb, payload, transaction, **publish):
        topic = self.topics.broker_response(verb)
        before = len(self.payloads(topic))
        await self.link.publish(self.topics.broker_request(verb), payload, **publish)

        def answered():
            answers = [decode(Response, p) for p in self.payloads(topic)[before:]]
            return next((a for a in answers if a.transaction == transaction), None)

        return await self.until(f"answer to {verb}", answered)

    async def ask(self, verb, data=None, transaction=None, expires=None):
        transaction = transaction or f"test-{next(self.transactions)}"
        request = Request(transaction=transaction, data=data or {}, expires=expires)
        return await self.ask_raw(verb, encode(request), transaction)

    async def submit(self, yaml="name: t\nboard: b1\nsteps: [make]\n", transaction=None):
        answer = await self.ask("submit", {"yaml": yaml}, transaction)
        assert answer.ok, answer.error
        return answer.data["job"]

    def summaries(self, job):
        return [decode(JobSummary, p) for p in self.payloads(self.topics.job_state(job))]

    async def job_is(self, job, state):
        return await self.until(
            f"{job} {state}", lambda: next((s for s in reversed(self.summaries(job)) if s.state == state), None)
        )
