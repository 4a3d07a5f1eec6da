"""The broker as a process: MQTT link, store and scheduler wired together.

One worker takes what came in, lets the scheduler decide, commits, and only then sends. Many messages that came
together share one commit.
"""

import asyncio
import logging
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

from broker.answers import answer
from broker.happenings import (
    Action,
    Announce,
    Cancel,
    Disconnected,
    Happening,
    Moment,
    Note,
    PowerAsked,
    Reply,
    SaveAttempt,
    Saved,
    SaveJob,
    SaveLog,
    SaveToken,
    Settled,
    Submit,
    Tick,
)
from broker.inbox import Asked, Complaint, Found, Refused, read_message, subscriptions
from broker.job_store import KEPT_ANSWERS, Answer, JobStore
from broker.outbox import Outgoing, message_for
from broker.requests import AskBoards, AskJob, AskJobs, AskLogs, Order, Question, RequestError, response
from broker.scheduler import Scheduler
from broker.settings import BrokerSettings
from daemon.foreground import DaemonError
from daemon.mqtt_link import LinkError, Message, MqttLink, PublishRefusedError, Will
from daemon.state_folder import held
from wire.payloads import BrokerState, encode
from wire.phases import Presence
from wire.topics import Topics

log = logging.getLogger(__name__)

# Messages that came together are committed together; more than this would let the first of them wait.
MOST_AT_ONCE = 256
# Farms of thousands send this many at a reconnect; a flood beyond it is dropped and counted. What is dropped is
# repeated by its sender: outcomes by boards, requests by people, state at the next reconnect.
MOST_WAITING = 50_000
# Retained messages of a farm that keeps talking never stop; then what came so far must do.
SETTLE_MAX_S = 15.0
COMPLAIN_AGAIN_S = 60.0
MOST_COMPLAINTS = 1000
# After a reconnect, job states so old are told again: longer than our restart takes, shorter than a nuisance.
TELL_AGAIN_S = 600.0
MOST_TOLD_AGAIN = 1000
PRUNE_EVERY_S = 600.0
MAX_CLIENT_ID = 64


class BrokerError(DaemonError):
    """The broker cannot run; the message says why and what to do."""


def _moment() -> Moment:
    return Moment(time.monotonic(), datetime.now(UTC))


def _version() -> str:
    try:
        return version("boardhand")
    except PackageNotFoundError:
        return "unknown"


class Broker:
    """One broker. `run` serves until it is told to stop."""

    def __init__(self, settings: BrokerSettings, clock: Callable[[], Moment] = _moment) -> None:
        self._settings = settings
        self._clock = clock
        self._topics = Topics(settings.mqtt.prefix)
        self._inbox: asyncio.Queue[Message | Happening] = asyncio.Queue(MOST_WAITING)
        self._dropped = 0
        self._last_retained = 0.0
        self._complained: dict[str, float] = {}
        self._answers: OrderedDict[tuple[str, str], bytes | None] = OrderedDict()
        """Orders by verb and transaction: what was answered, None while it is under way."""
        self._since = clock().wall
        self._session = 0
        self._was_connected = False

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then say offline and end. Leases stay as they are for the next start.

        Raises:
            BrokerError: the store cannot be written.
            DaemonError: another broker uses the same state folder, or it cannot be made.
            daemon.store.StoreError: the store cannot be used.
        """
        with held(self._settings.broker.state_dir, "broker"):
            self._store = await JobStore.open(self._settings.broker.state_dir)
            try:
                await self._serve(stop)
            finally:
                await self._store.close()

    async def _serve(self, stop: asyncio.Event) -> None:
        await self._recover()
        self._link = MqttLink(
            self._settings.mqtt,
            f"{self._settings.mqtt.prefix}-broker-{self._settings.broker.name}".replace("/", "-")[-MAX_CLIENT_ID:],
            will=Will(self._topics.broker_state(), self._presence(Presence.LOST)),
            subscriptions=subscriptions(self._topics),
            on_message=self._received,
            on_connect=self._connected,
            on_disconnect=self._disconnected,
        )
        tasks = [
            asyncio.create_task(self._work(), name="broker-work"),
            asyncio.create_task(self._tick(), name="broker-tick"),
            asyncio.create_task(self._prune(), name="broker-prune"),
            asyncio.create_task(stop.wait(), name="broker-stop"),
        ]
        await self._link.start()
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            offline = Message(self._topics.broker_state(), self._presence(Presence.OFFLINE), retain=True)
            await self._link.stop([offline])

    async def _recover(self) -> None:
        found = await self._store.recover()
        self._session = found.session
        self._scheduler = Scheduler(self._settings.broker.policy(), found.session)
        self._scheduler.restore(
            found.jobs, found.tokens, found.outcomes, found.holders, found.next_number, self._clock()
        )
        for known in found.answers:
            self._answers[(known.verb, known.tag)] = known.payload
        log.info("session %d: %d jobs taken up", found.session, len(found.jobs))

    def _presence(self, state: Presence) -> bytes:
        said = BrokerState(state=state, session=self._session, since=self._since, version=_version())
        return encode(said)

    # --- from the link ---------------------------------------------------------------------------------------

    def _put(self, item: Message | Happening) -> None:
        try:
            self._inbox.put_nowait(item)
        except asyncio.QueueFull:
            self._dropped += 1

    def _received(self, message: Message) -> None:
        if message.retain:
            self._last_retained = time.monotonic()
        self._put(message)

    async def _connected(self) -> None:
        self._was_connected = True
        await self._link.publish(self._topics.broker_state(), self._presence(Presence.ONLINE), retain=True)
        began = self._last_retained = time.monotonic()
        quiet_s = self._settings.broker.settle_s
        while time.monotonic() - began < SETTLE_MAX_S:
            wait_s = self._last_retained + quiet_s - time.monotonic()
            if wait_s <= 0:
                break
            await asyncio.sleep(wait_s)
        await self._inbox.put(Settled())

    def _disconnected(self, reason: str) -> None:
        if self._was_connected:
            log.warning("lost the MQTT server: %s", reason)
        self._was_connected = False
        self._put(Disconnected())

    # --- the worker ------------------------------------------------------------------------------------------

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._settings.broker.tick_s)
            await self._inbox.put(Tick())

    async def _prune(self) -> None:
        while True:
            await self._store.forget_jobs(self._settings.broker.keep_jobs)
            await asyncio.sleep(PRUNE_EVERY_S)

    async def _work(self) -> None:
        while True:
            batch = [await self._inbox.get()]
            while len(batch) < MOST_AT_ONCE and not self._inbox.empty():
                batch.append(self._inbox.get_nowait())
            await self._carry_out(batch)
            if self._dropped:
                log.error("%d messages were dropped: more came than could be taken in", self._dropped)
                self._dropped = 0

    async def _carry_out(self, batch: Sequence[Message | Happening]) -> None:
        actions: list[Action] = []
        outgoing: list[Outgoing] = []
        questions: list[tuple[str, Question]] = []
        for n, item in enumerate(batch, 1):
            found = self._read(item) if isinstance(item, Message) else item
            more = n < len(batch)
            match found:
                case None:
                    continue
                case Complaint():
                    self._complain(found, outgoing)
                case Refused(verb, error):
                    topic = self._topics.broker_response(verb)
                    outgoing.append(Outgoing(topic, response(error.transaction, {}, error.info)))
                case Asked(verb, Submit() | Cancel() | PowerAsked() as order):
                    actions += self._take_order(verb, order, outgoing)
                case Asked(verb, AskJobs() | AskJob() | AskLogs() | AskBoards() as question):
                    questions.append((verb, question))
                case Asked():
                    raise AssertionError(f"a request of no known kind: {found}")  # a defect of ours
                case Settled():
                    actions += self._scheduler.handle(found, self._clock())
                    actions += await self._what_was_missed()
                case _:
                    actions += self._scheduler.handle(found, self._clock(), more=more)
        await self._commit_and_send(actions, outgoing)
        for verb, question in questions:
            await self._send([await self._answer(verb, question)])

    async def _what_was_missed(self) -> list[Action]:
        """Job states again: one that was committed just before a kill -9, or while the line was broken, was never told,
        and somebody may wait for it. Readers see some twice."""
        since = self._clock().after(-TELL_AGAIN_S)
        found = await self._store.jobs_to_tell(since, MOST_TOLD_AGAIN)
        live = self._scheduler.ledger.jobs
        # A job that is open in the store and no longer here ended in this very batch, which tells it itself.
        return [Announce(live.get(job.id, job).summary()) for job in found if job.state.ended or job.id in live]

    def _read(self, message: Message) -> Found:
        now = self._clock().wall
        try:
            return read_message(self._topics, message.topic, message.payload, retain=message.retain, now=now)
        except Exception:
            # Nothing received may stop the broker. Reading changes nothing, so the fault, which is ours, costs this one
            # message and is shown whole.
            log.exception("%s: a message could not be read because of a defect of the broker", message.topic)
            return None

    def _complain(self, complaint: Complaint, outgoing: list[Outgoing]) -> None:
        if complaint.topic is not None:
            outgoing.append(Outgoing(complaint.topic, complaint.payload))
        # Whoever sends rubbish sends much of it: the log gets one line per topic and minute.
        now = time.monotonic()
        if now - self._complained.get(complaint.about, -COMPLAIN_AGAIN_S) < COMPLAIN_AGAIN_S:
            return
        if len(self._complained) >= MOST_COMPLAINTS:
            self._complained.clear()
        self._complained[complaint.about] = now
        log.warning("%s: cannot be read: %s", complaint.about, complaint.problem)

    def _take_order(self, verb: str, order: Order, outgoing: list[Outgoing]) -> list[Action]:
        key = (verb, order.tag)
        if key in self._answers:
            known = self._answers[key]
            if known is not None:
                outgoing.append(Outgoing(self._topics.broker_response(verb), known))
            return []
        self._answers[key] = None
        while len(self._answers) > KEPT_ANSWERS:
            self._answers.popitem(last=False)
        return self._scheduler.handle(replace(order, tag=f"{verb} {order.tag}"), self._clock())

    async def _commit_and_send(self, actions: Sequence[Action], outgoing: list[Outgoing]) -> None:
        saved: list[Saved] = []
        answers: list[Answer] = []
        for action in actions:
            match action:
                case SaveJob() | SaveToken() | SaveAttempt() | SaveLog():
                    saved.append(action)
                case Reply():
                    outgoing.append(self._reply(action, answers))
                case Note(text):
                    log.warning("%s", text)
                case _:
                    message = message_for(self._topics, action)
                    if message is not None:
                        outgoing.append(message)
        if saved or answers:
            try:
                await self._store.commit(saved, answers)
            except sqlite3.Error as error:
                # What could not be committed is not said; the next start goes on from what was.
                where = self._settings.broker.state_dir
                raise BrokerError(f"{where}: cannot be written: {error}; make room there and start again") from error
        await self._send(outgoing)

    def _reply(self, reply: Reply, answers: list[Answer]) -> Outgoing:
        verb, _, transaction = reply.tag.partition(" ")
        payload = response(transaction, reply.data, reply.error)
        if reply.error is None:
            self._answers[(verb, transaction)] = payload
            answers.append(Answer(verb, transaction, payload))
        else:
            # Nothing was done, so the same request may be tried again.
            self._answers.pop((verb, transaction), None)
        return Outgoing(self._topics.broker_response(verb), payload)

    async def _answer(self, verb: str, question: Question) -> Outgoing:
        try:
            payload = response(question.tag, await answer(question, self._scheduler, self._store, self._clock()))
        except RequestError as error:
            payload = response(error.transaction, {}, error.info)
        return Outgoing(self._topics.broker_response(verb), payload)

    async def _send(self, outgoing: Sequence[Outgoing]) -> None:
        """Hand all messages to the server in their order, then wait for its acknowledgements together."""
        if not outgoing or not self._link.connected:
            # Nothing is lost: leases and offers are said again when settled, the rest is asked for again.
            return
        sent = [asyncio.create_task(self._publish(message), name="broker-publish") for message in outgoing]
        await asyncio.gather(*sent)

    async def _publish(self, message: Outgoing) -> None:
        try:
            await self._link.publish(message.topic, message.payload, retain=message.retain)
        except PublishRefusedError as error:
            log.error("%s: %s", message.topic, error)  # noqa: TRY400  # a traceback says nothing more here
        except LinkError as error:
            log.info("not sent, the connection went away: %s", error)
