"""Webhooks of boards' events, against a real HTTP server: filters, signatures, a server that fails, one that hangs."""

import asyncio
import hashlib
import hmac
import json
import logging
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError

from broker.board_webhooks import MAX_WAITING, BoardWebhooks, WebhookTable
from broker.happenings import ClearLease
from broker.health.happenings import TellAlert
from wire.payloads import Alert, Event
from wire.phases import EventType

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Receiver:
    """An HTTP server of somebody else's; `answers` are its first status codes, 204 comes after them."""

    def __init__(self):
        self.got, self.answers = [], []
        self.open = threading.Event()
        self.open.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.open.wait(60)
                status = receiver.answers.pop(0) if receiver.answers else 204
                receiver.got.append((status, self.path, dict(self.headers), body))
                self.send_response(status)
                if status in {301, 302}:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server.server_port}/hook?farm=1"

    def close(self):
        self.open.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(60)

    async def until(self, count):
        async with asyncio.timeout(60):
            while len(self.got) < count:  # noqa: ASYNC110  # a thread fills it
                await asyncio.sleep(0.01)
        return [json.loads(body) for _, _, _, body in self.got]


@pytest.fixture
def receiver():
    made = Receiver()
    yield made
    made.close()


def event(seq, kind=EventType.PHASE, board="b1"):
    return Event(type=kind, at=NOW, board=board, agent="lab1", session=1, seq=seq, details={"phase": "ready"})


class Running:
    """Webhooks under way for as long as the block lasts."""

    def __init__(self, tables, secret=None, again_s=(0.05,)):
        self.hooks = BoardWebhooks(tables, secret, again_s)

    async def __aenter__(self):
        self.task = asyncio.create_task(self.hooks.run())
        return self.hooks

    async def __aexit__(self, *_):
        assert not self.task.done()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def test_events_come_in_their_order_signed_and_named(receiver):
    async with Running([WebhookTable(url=receiver.url)], b"secret") as hooks:
        for seq in range(1, 21):
            hooks.heard(event(seq))
        bodies = await receiver.until(20)
    assert [body["seq"] for body in bodies] == list(range(1, 21))
    _, path, headers, body = receiver.got[0]
    assert path == "/hook?farm=1"
    assert headers["X-Boardhand-Event"] == "phase"
    assert headers["X-Boardhand-Delivery"] == "lab1-b1-1"
    assert headers["X-Boardhand-Signature"] == "sha256=" + hmac.new(b"secret", body, hashlib.sha256).hexdigest()


async def test_each_gets_only_what_it_asked_for(receiver, tmp_path):
    own = tmp_path / "secret"
    own.write_text("own\n")
    table = WebhookTable(url=receiver.url, events=["alert", "health"], boards=["b2"], secret_file=own)
    alert = TellAlert("b2", Alert(what="failed", since=NOW, do="mend it"))
    async with Running([table], b"secret") as hooks:
        hooks.heard(event(1, EventType.ALERT, "b1"))
        hooks.heard(event(1, EventType.PHASE, "b2"))
        hooks.heard(event(2, EventType.ALERT, "b2"))
        hooks.told([ClearLease("b2"), TellAlert("b1", None), alert, TellAlert("b2", None)], NOW)
        bodies = await receiver.until(3)
    assert [(body["type"], body["board"]) for body in bodies] == [("alert", "b2"), ("health", "b2"), ("health", "b2")]
    assert [body["alert"] and body["alert"]["what"] for body in bodies[1:]] == ["failed", None]
    _, _, headers, body = receiver.got[0]
    assert headers["X-Boardhand-Signature"] == "sha256=" + hmac.new(b"own", body, hashlib.sha256).hexdigest()


async def test_a_server_that_fails_is_tried_again_with_the_same_delivery(receiver, caplog):
    receiver.answers = [500, 503, 429]
    async with Running([WebhookTable(url=receiver.url)]) as hooks:
        hooks.heard(event(1))
        hooks.heard(event(2))
        bodies = await receiver.until(5)
    assert [body["seq"] for body in bodies] == [1, 1, 1, 1, 2]
    assert len({headers["X-Boardhand-Delivery"] for _, _, headers, _ in receiver.got[:4]}) == 1
    assert "X-Boardhand-Signature" not in receiver.got[0][2]
    assert sum("not told yet" in record.message for record in caplog.records) == 3


@pytest.mark.parametrize(("answers", "tries"), [([404], 1), ([302], 1), ([500] * 20, 6)])
async def test_what_is_never_taken_is_given_up_and_the_next_goes_on(receiver, caplog, answers, tries):
    receiver.answers = list(answers)
    async with Running([WebhookTable(url=receiver.url)]) as hooks:
        hooks.heard(event(1))
        await receiver.until(tries)
        receiver.answers = []
        hooks.heard(event(2))
        bodies = await receiver.until(tries + 1)
    assert [body["seq"] for body in bodies] == [1] * tries + [2]
    assert any("was not told:" in record.message for record in caplog.records)


async def test_a_server_that_hangs_costs_its_own_oldest_events_only(receiver, caplog):
    other = Receiver()
    caplog.set_level(logging.WARNING)
    try:
        receiver.open.clear()
        async with Running([WebhookTable(url=receiver.url), WebhookTable(url=other.url, boards=["b2"])]) as hooks:
            hooks.heard(event(1))
            await asyncio.sleep(0)  # its worker has taken the first
            for seq in range(2, MAX_WAITING + 101):
                hooks.heard(event(seq))
            hooks.heard(event(1, board="b2"))
            assert [body["board"] for body in await other.until(1)] == ["b2"]
            assert receiver.got == []
            receiver.open.set()
            bodies = await receiver.until(50)
    finally:
        other.close()
    told = [body["seq"] for body in bodies]
    assert told == sorted(told)
    assert told[1] > 100  # the oldest that waited are gone
    assert sum("the oldest are dropped" in record.message for record in caplog.records) == 1


async def test_a_server_that_is_not_there_stops_nothing(caplog):
    closed = Receiver()
    url = closed.url
    closed.close()
    async with Running([WebhookTable(url=url)]) as hooks:
        hooks.heard(event(1))
        async with asyncio.timeout(60):
            while not any("was not told:" in r.message for r in caplog.records):  # noqa: ASYNC110  # no event to wait for
                await asyncio.sleep(0.01)


async def test_without_webhooks_nothing_waits():
    async with Running([]) as hooks:
        hooks.heard(event(1))
        hooks.told([TellAlert("b1", None)], NOW)
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://user:secret@host/x"},
        {"url": "ftp://host/x"},
        {"url": "http://host"},
        {"url": "http://host/x", "events": ["phases"]},
        {"url": "http://host/x", "event": ["phase"]},
    ],
)
def test_wrong_tables_are_refused(wrong):
    with pytest.raises(ValidationError):
        WebhookTable(**wrong)


def test_an_empty_secret_is_refused(tmp_path):
    empty = tmp_path / "secret"
    empty.write_text("\n")
    with pytest.raises(ValueError, match="is empty"):
        BoardWebhooks([WebhookTable(url="http://host/x", secret_file=empty)], None)
