"""The broker as a process: MQTT link, store and scheduler wired together.

One worker takes what came in, lets the scheduler decide, commits, and only then sends. Many messages that came
together share one commit.
"""

import asyncio
import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from broker.answers import answer
from broker.board_lines import BoardLines
from broker.board_webhooks import BoardWebhooks
from broker.collector import collect, while_loading
from broker.complaints import Complaints
from broker.happenings import (
    Action,
    Announce,
    Disconnected,
    Happening,
    Moment,
    Note,
    Reply,
    SaveArtifact,
    Saved,
    SaveJob,
    Settled,
    Submit,
    Tick,
    TimelineEntry,
)
from broker.health.happenings import ForgetBoard
from broker.inbox import Asked, Complaint, Found, Heard, Refused, read_message, subscriptions
from broker.intake import Intake
from broker.jobs.artifact_store import ArtifactStore
from broker.jobs.notify import Notifier, not_allowed, read_secret
from broker.jobs.store import KEPT_ANSWERS, Answer, JobStore
from broker.jobs.timeline import line_of
from broker.leases.happenings import Reserve
from broker.outbox import Outgoing, clearing, message_for, presence
from broker.requests import Order, Question, response
from broker.sending import Sender
from broker.settings import BrokerSettings
from broker.store.committing import Committer
from broker.taking_up import take_up
from daemon.foreground import DaemonError
from daemon.mqtt_link import LinkError, Message, MqttLink, Will
from daemon.state_folder import held
from wire.payloads import ErrorInfo, Event, JobSummary, encode
from wire.phases import ErrorKind, Presence
from wire.topics import Topics

log = logging.getLogger(__name__)

# Messages that came together are committed together; more than this would let the first of them wait.
MOST_AT_ONCE = 256
# Farms of thousands send this many at a reconnect; a flood beyond it is dropped and counted. What is dropped is
# repeated by its sender: outcomes by boards, requests by people, state at the next reconnect.
MOST_WAITING = 50_000
# Retained messages of a farm that keeps talking never stop; then what came so far must do.
SETTLE_MAX_S = 15.0
# After a reconnect, job states so old are told again: longer than our restart takes, shorter than a nuisance.
TELL_AGAIN_S = 600.0
MOST_TOLD_AGAIN = 1000
PRUNE_EVERY_S = 600.0
MAX_CLIENT_ID = 64


class BrokerError(DaemonError):
    """The broker cannot run; the message says why and what to do."""


def _moment() -> Moment:
    return Moment(time.monotonic(), datetime.now(UTC))


class Broker:
    """One broker. `run` serves until it is told to stop."""

    def __init__(self, settings: BrokerSettings, clock: Callable[[], Moment] = _moment) -> None:
        self._settings = settings
        self._clock = clock
        self._topics = Topics(settings.mqtt.prefix)
        self._inbox = Intake(MOST_WAITING)
        self._kept: deque[Message | Happening] = deque()
        """Came while the store could not be written; before what is in the inbox."""
        self._dropped = 0
        self._last_retained = 0.0
        self._complaints = Complaints()
        self._sender = Sender()
        self._webhooks = BoardWebhooks([], None)
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
            await self.lead(await JobStore.open(self._settings.broker.state_dir), stop)

    async def lead(self, store: JobStore, stop: asyncio.Event) -> None:
        """Serve on this store, and close it: as `run`, where the caller holds the state folder.

        Raises:
            broker.store.sql.LeadershipLostError: another broker leads from now on.
        """
        self._store = store
        try:
            await self._open_artifacts()
            await self._serve(stop)
        finally:
            await store.close()

    async def _open_artifacts(self) -> None:
        table = self._settings.broker
        self._artifacts = ArtifactStore(
            table.artifacts_dir or table.state_dir / "artifacts", table.keep_artifacts_mb << 20
        )
        secret: bytes | None = None
        try:
            await asyncio.to_thread(self._artifacts.open)
            if table.webhook_secret_file is not None:
                secret = await asyncio.to_thread(read_secret, table.webhook_secret_file)
            self._webhooks = await asyncio.to_thread(BoardWebhooks, table.webhook, secret)
        except OSError as error:
            raise BrokerError(f"{error.filename}: {error.strerror}; this user must be able to use it") from error
        except ValueError as error:
            raise BrokerError(f"webhook_secret_file: {error}") from error
        self._committer = Committer(self._store, self._artifacts, table.state_dir)
        self._notifier = Notifier(self._store, self._tell_notice, table.webhooks, secret)

    async def _serve(self, stop: asyncio.Event) -> None:
        with while_loading():
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
            asyncio.create_task(self._committer.watch_room(), name="broker-room"),
            asyncio.create_task(self._notifier.run(), name="broker-notify"),
            asyncio.create_task(self._webhooks.run(), name="broker-webhooks"),
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
            await self._sender.acknowledged()  # by then each has its answer, or is known to be lost

    async def _recover(self) -> None:
        self._scheduler, found = await take_up(self._store, self._settings.broker.policy(), self._clock())
        self._lines = BoardLines(self._scheduler)
        self._session = found.session
        for known in found.answers:
            self._answers[(known.verb, known.tag)] = known.payload

    def _presence(self, state: Presence) -> bytes:
        return presence(state, self._session, self._since)

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
        heard = subscriptions(self._topics)
        await self._link.listen_to(heard)
        await self._link.publish(self._topics.broker_state(), self._presence(Presence.ONLINE), retain=True)
        began = self._last_retained = time.monotonic()
        quiet_s = self._settings.broker.settle_s
        while time.monotonic() - began < SETTLE_MAX_S:
            wait_s = self._last_retained + quiet_s - time.monotonic()
            if wait_s <= 0:
                # From now on it would bring nothing but the echo of our own words, one message for each lease.
                await self._link.listen_to([topic for topic in heard if topic != self._topics.every_board("lease")])
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
            await self._committer.forget(self._settings.broker.keep_jobs)
            await asyncio.sleep(PRUNE_EVERY_S)
            collect()

    async def _work(self) -> None:
        while True:
            batch = [self._kept.popleft() if self._kept else await self._inbox.get()]
            while len(batch) < MOST_AT_ONCE and self._kept:
                batch.append(self._kept.popleft())
            batch += self._inbox.more(MOST_AT_ONCE - len(batch))
            await self._carry_out(batch)
            if self._dropped:
                log.error("%d messages were dropped: more came than could be taken in", self._dropped)
                self._dropped = 0

    async def _carry_out(self, batch: Sequence[Message | Happening]) -> None:
        actions: list[Action] = []
        outgoing: list[Outgoing] = []
        questions: list[tuple[str, Question]] = []
        for item in batch:
            found = self._read(item) if isinstance(item, Message) else item
            match found:
                case None:
                    continue
                case Complaint(_, _, topic, payload):
                    self._complaints.tell(found)
                    if topic is not None:
                        outgoing.append(Outgoing(topic, payload))
                case Refused(verb, error):
                    topic = self._topics.broker_response(verb)
                    outgoing.append(Outgoing(topic, response(error.transaction, {}, error.info)))
                case Asked(verb, request):
                    if isinstance(request, Order):
                        actions += self._take_order(verb, request, outgoing)
                    else:
                        questions.append((verb, request))
                case Heard(event):
                    actions += self._heard(event)
                case Settled():
                    actions += self._scheduler.handle(found, self._clock())
                    actions += await self._what_was_missed()
                case _:
                    actions += self._scheduler.handle(found, self._clock(), more=True)
        # Once for all that came together.
        actions += self._scheduler.look_around(self._clock())
        await self._commit_and_send(actions, outgoing)
        for verb, question in questions:
            payload = await answer(question, self._lines, self._store, self._artifacts, self._clock())
            await self._sender.send(self._link, [Outgoing(self._topics.broker_response(verb), payload)])

    async def _what_was_missed(self) -> list[Action]:
        """Job states again: one that was committed just before a kill -9, or while the line was broken, was never told,
        and somebody may wait for it. Readers see some twice."""
        since = self._clock().after(-TELL_AGAIN_S)
        found = await self._committer.jobs_to_tell(since, MOST_TOLD_AGAIN)
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

    def _take_order(self, verb: str, order: Order, outgoing: list[Outgoing]) -> list[Action]:
        key = (verb, order.tag)
        if key in self._answers:
            known = self._answers[key]
            if known is not None:
                outgoing.append(Outgoing(self._topics.broker_response(verb), known))
            return []
        if isinstance(order, Submit | Reserve) and (error := self._why_not(order)) is not None:
            outgoing.append(Outgoing(self._topics.broker_response(verb), response(order.tag, {}, error)))
            return []
        self._answers[key] = None
        while len(self._answers) > KEPT_ANSWERS:
            self._answers.popitem(last=False)
        return self._scheduler.handle(replace(order, tag=f"{verb} {order.tag}"), self._clock(), more=True)

    def _why_not(self, order: Submit | Reserve) -> ErrorInfo | None:
        """Why a job, or a wish for a board, that is in order cannot be taken here and now."""
        if (no_room := self._committer.no_room) is not None:
            return ErrorInfo(kind=ErrorKind.BUSY, message=no_room[:4096])
        notify = order.spec.notify if isinstance(order, Submit) else None
        if notify is None or notify.webhook is None:
            return None
        why = not_allowed(notify.webhook, self._settings.broker.webhooks)
        if why is None:
            return None
        return ErrorInfo(kind=ErrorKind.NOT_ALLOWED, message=f"notify.webhook: {why}", key="data.yaml:notify.webhook")

    def _heard(self, event: Event) -> list[Action]:
        """What an agent tells of a board goes into the timeline of the job that has it."""
        self._webhooks.heard(event)
        held = self._scheduler.ledger.held.get(event.board)
        line = line_of(event) if held is not None else None
        return [TimelineEntry(held.job.number, held.job.attempt, event.at, line)] if held and line else []

    async def _refuse_waiting(self) -> None:
        """While the store cannot be written: new jobs and leases are refused, everything else waits its turn."""
        refused = []
        while not self._inbox.empty():
            item = self._inbox.get_nowait()
            found = self._read(item) if isinstance(item, Message) else item
            match found:
                case Asked(verb, (Submit() | Reserve()) as order) if (verb, order.tag) not in self._answers:
                    told = ErrorInfo(kind=ErrorKind.BUSY, message=(self._committer.no_room or "")[:4096])
                    refused.append(Outgoing(self._topics.broker_response(verb), response(order.tag, {}, told)))
                case Tick():
                    continue
                case _ if len(self._kept) < MOST_WAITING:
                    self._kept.append(item)
                case _:
                    self._dropped += 1
        await self._sender.send(self._link, refused)
        await self._sender.acknowledged()

    async def _commit_and_send(self, actions: Sequence[Action], outgoing: list[Outgoing]) -> None:
        saved: list[Saved] = []
        pieces: list[SaveArtifact] = []
        answers: list[Answer] = []
        for action in actions:
            match action:
                case _ if isinstance(action, Saved):
                    saved.append(action)
                case SaveArtifact():
                    pieces.append(action)
                case Reply():
                    outgoing.append(self._reply(action, answers))
                case ForgetBoard(board):
                    outgoing += clearing(self._topics, board)
                case Note(text):
                    log.warning("%s", text)
                case _:
                    message = message_for(self._topics, action)
                    if message is not None:
                        outgoing.append(message)
        # Now, so that nothing is waited for between the commit, which sees that we lead, and our words.
        await self._sender.acknowledged()
        # What could not be committed is not said; the next start goes on from what was.
        await self._committer.commit(saved, pieces, answers, self._refuse_waiting, speaks=bool(outgoing))
        if any(isinstance(item, SaveJob) and item.job.state.ended and item.job.spec.notify for item in saved):
            self._notifier.look()
        self._webhooks.told(actions, self._clock().wall)
        await self._sender.send(self._link, outgoing)

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

    async def _tell_notice(self, name: str, summary: JobSummary) -> bool:
        try:
            await self._link.publish(self._topics.notify(name), encode(summary))
        except LinkError:
            return False
        return True
