"""`boardhand events`: what happens on the farm, live, doubles dropped and gaps named."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from cli.event_order import EventOrder, Verdict
from cli.exits import CliError, Exit
from cli.plain_text import shown
from cli.session import Received, Session
from cli.target import Target, check_id
from wire.payloads import Event, PayloadError, decode

RECONNECT_FIRST_S = 0.5
RECONNECT_MOST_S = 10.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One event that is not a double, and what is to be said before it."""

    event: Event
    verdict: Verdict

    def notes(self) -> list[str]:
        board, seq, verdict = self.event.board, self.event.seq, self.verdict
        found: list[str] = []
        if verdict.missing:
            plural = "event" if verdict.missing == 1 else "events"
            found.append(f"{board}: {verdict.missing} {plural} missing before seq {seq}")
        if verdict.restarted:
            found.append(f"{board}: agent {self.event.agent} counts anew from seq {seq}; its state folder was lost")
        if verdict.late:
            found.append(f"{board}: seq {seq} came late")
        return found

    def line(self) -> str:
        event = self.event
        details = " ".join(f"{shown(key, 40)}={shown(_flat(value), 120)}" for key, value in event.details.items())
        at = event.at.isoformat(timespec="milliseconds")
        return f"{at} {event.board} #{event.seq} {event.type} {details}".rstrip()


def _flat(value: object) -> object:
    return value if isinstance(value, (str, int, float, bool)) else json.dumps(value)


class EventReader:
    """MQTT messages in, events out. `unreadable` counts payloads that were none."""

    def __init__(self, prefix: str) -> None:
        self._head = f"{prefix}/event/"
        self._order = EventOrder()
        self.unreadable = 0

    def take(self, message: Received) -> Seen | None:
        """The event of a message; None for a double, another topic, or a payload that is no event."""
        if not message.topic.startswith(self._head):
            return None
        try:
            event = decode(Event, message.payload)
        except PayloadError as error:
            self.unreadable += 1
            print(f"boardhand: unreadable event on {shown(message.topic)}: {shown(error)}", file=sys.stderr)
            return None
        if event.board != message.topic[len(self._head) :]:
            self.unreadable += 1
            print(f"boardhand: event of {event.board} on {shown(message.topic)}: not believed", file=sys.stderr)
            return None
        verdict = self._order.take(event.board, event.agent, event.session, event.seq)
        return Seen(event, verdict) if verdict.new else None


def messages(
    target: Target, topics: tuple[str, ...], deadline_s: float | None, *, tick_s: float | None = None
) -> Iterator[Received | None]:
    """Messages of `topics` until `deadline_s` (monotonic; None is for ever), and None after each `tick_s` of silence.
    A lost server is waited for, and said.

    Raises:
        CliError: the first connection fails; later ones are tried again.
    """
    connected_once = False
    pause_s = RECONNECT_FIRST_S
    while True:
        try:
            with Session(target) as session:
                session.subscribe(*topics)
                if connected_once:
                    print("boardhand: connected again", file=sys.stderr)
                connected_once, pause_s = True, RECONNECT_FIRST_S
                yield from _until(session, deadline_s, tick_s)
                return
        except CliError as error:
            if not connected_once or error.code is not Exit.UNREACHABLE:
                raise
            if deadline_s is not None and time.monotonic() + pause_s >= deadline_s:
                return
            print(f"boardhand: {error.message}; trying again in {pause_s:g} s", file=sys.stderr)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, RECONNECT_MOST_S)


def _until(session: Session, deadline_s: float | None, tick_s: float | None) -> Iterator[Received | None]:
    while deadline_s is None or time.monotonic() < deadline_s:
        waits = [tick_s] if tick_s is not None else []
        if deadline_s is not None:
            waits.append(max(0.0, deadline_s - time.monotonic()))
        message = session.receive(min(waits) if waits else None)
        if message is not None or tick_s is not None:
            yield message


def run(target: Target, board: str | None, *, as_json: bool, count: int | None, for_s: float | None) -> int:
    """Print events until `count` have come, `for_s` have passed, or Ctrl-C.

    Returns NO_ANSWER when a count was asked for and not reached in time.
    """
    topic = f"{target.prefix}/event/{check_id('board', board) if board else '+'}"
    reader = EventReader(target.prefix)
    deadline_s = None if for_s is None else time.monotonic() + for_s
    seen_count = 0
    for message in messages(target, (topic,), deadline_s):
        seen = reader.take(message) if message is not None else None
        if seen is None:
            continue
        _show(seen, as_json=as_json)
        seen_count += 1
        if count is not None and seen_count >= count:
            return Exit.OK
    if count is not None:
        raise CliError(Exit.NO_ANSWER, f"{seen_count} of {count} events came in {for_s:g} s")
    return Exit.OK


def _show(seen: Seen, *, as_json: bool) -> None:
    if as_json:
        verdict, event = seen.verdict, seen.event
        if verdict.missing:
            gap = {"board": event.board, "missing": verdict.missing, "before_seq": event.seq}
            print(json.dumps({"gap": gap}), flush=True)
        print(event.model_dump_json(exclude_none=True), flush=True)
        return
    for note in seen.notes():
        print(f"-- {note}", flush=True)
    print(seen.line(), flush=True)
