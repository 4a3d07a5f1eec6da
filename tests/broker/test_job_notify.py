"""Somebody is told of a job's end: a real HTTP server that misbehaves, and the store behind."""

import asyncio
import contextlib
import hashlib
import hmac
import http.server
import json
import threading
import time
from datetime import UTC, datetime

import pytest

from broker.happenings import SaveJob
from broker.jobs import notify
from broker.jobs.life import Job, JobEvent
from broker.jobs.notify import NoticeError, Notifier, call, not_allowed, read_secret
from broker.jobs.spec import parse_job
from broker.jobs.store import JobStore

SECRET = b"not on the command line"


class Hook:
    """An HTTP server; `answers` are the states that it gives, the last one for ever."""

    def __init__(self):
        self.answers, self.heard, self.slow_s = [200], [], 0.0
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                hook.heard.append((self.path, dict(self.headers), body))
                time.sleep(hook.slow_s)
                status = hook.answers.pop(0) if len(hook.answers) > 1 else hook.answers[0]
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.send_response(status)
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_):
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/hooks/ci?x=1"

    def end(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def hook():
    made = Hook()
    yield made
    made.end()


@pytest.fixture
async def store(tmp_path):
    made = await JobStore.open(tmp_path)
    yield made
    await made.close()


async def ended(store, number, *, to="mqtt: ci", on="[passed, failed]"):
    job = Job(number, parse_job(f"name: t\nsteps: [x]\nnotify: {{{to}, on: {on}}}"), datetime.now(UTC))
    for event in (JobEvent.OFFER, JobEvent.ACCEPT, JobEvent.PASS):
        job.step(event)
    job.ended = datetime.now(UTC)
    await store.commit([SaveJob(job)], [])
    return job


@contextlib.asynccontextmanager
async def running(notifier):
    task = asyncio.create_task(notifier.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition):
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110  # the store has no event for it
            await asyncio.sleep(0.02)


async def test_a_signed_webhook_and_a_topic(store, hook):
    said = []

    async def publish(name, summary):
        said.append((name, summary.state))
        return True

    await ended(store, 1, to=f"mqtt: ci, webhook: '{hook.url}'")
    await ended(store, 2, on="[failed]")
    async with running(Notifier(store, publish, [hook.url.rsplit("/", 1)[0] + "/"], SECRET)):
        await until(lambda: told(store))
    assert said == [("ci", "passed")]
    ((path, headers, body),) = hook.heard
    assert path == "/hooks/ci?x=1" and json.loads(body)["job"] == "job-1"
    assert headers["X-Boardhand-Signature"] == "sha256=" + hmac.new(SECRET, body, hashlib.sha256).hexdigest()
    assert headers["Content-Type"] == "application/json" and headers["X-Boardhand-Delivery"].startswith("job-1-")


async def told(store):
    return not await store.results.notices(10)


async def test_what_fails_is_tried_again_also_by_the_next_broker(store, hook, monkeypatch):
    monkeypatch.setattr(notify, "AGAIN_S", (0.05,))
    hook.answers = [503, 429, 200]
    await ended(store, 1, to=f"webhook: '{hook.url}'")
    prefixes = [hook.url.rsplit("/", 1)[0] + "/"]

    async def once():
        return len(hook.heard) >= 1

    async with running(Notifier(store, None, prefixes, None)):
        await until(once)
    async with running(Notifier(store, None, prefixes, None)):
        await until(lambda: told(store))
    assert len(hook.heard) >= 3
    assert len({headers["X-Boardhand-Delivery"] for _, headers, _ in hook.heard}) == 1
    assert "X-Boardhand-Signature" not in hook.heard[0][1]


@pytest.mark.parametrize("status", [301, 302, 400, 404, 410])
async def test_what_will_never_be_taken_is_given_up_and_said(store, hook, status):
    hook.answers = [status]
    await ended(store, 1, to=f"webhook: '{hook.url}'")
    async with running(Notifier(store, None, [hook.url.rsplit("/", 1)[0] + "/"], None)):
        await until(lambda: told(store))
    assert len(hook.heard) == 1
    assert f"answered {status}" in await store.results.notice_problem(1)


async def test_settings_that_no_longer_allow_it_win(store, hook):
    await ended(store, 1, to=f"webhook: '{hook.url}'")
    async with running(Notifier(store, None, [], None)):
        await until(lambda: told(store))
    assert hook.heard == [] and "webhooks in its settings is empty" in await store.results.notice_problem(1)


async def test_a_server_that_never_answers_holds_up_nobody(store, hook, monkeypatch):
    monkeypatch.setattr(notify, "TIMEOUT_S", 1.0)
    hook.slow_s = 2.0
    with pytest.raises(NoticeError, match="timed out"):
        await asyncio.to_thread(call, hook.url, b"{}", "d", None)
    turns = 0
    asked = asyncio.create_task(asyncio.to_thread(call, hook.url, b"{}", "d", None))
    while not asked.done():
        await asyncio.sleep(0.005)
        turns += 1
    assert isinstance(asked.exception(), NoticeError) and turns > 3


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://ci.example.org/hooks/1", True),
        ("https://ci.example.org/other", False),
        ("https://ci.example.org.evil.net/hooks/1", False),
        ("https://ci.example.org/hooks/../other", False),
        ("https://ci.example.org/hooks/%2E%2e/other", False),
        ("https://user@ci.example.org/hooks/1", False),
        ("http://ci.example.org/hooks/1", False),
        ("http://169.254.169.254/latest", False),
    ],
)
def test_which_webhooks_are_allowed(url, allowed):
    assert (not_allowed(url, ["https://ci.example.org/hooks/"]) is None) is allowed


def test_the_secret_is_read_from_a_file(tmp_path):
    file = tmp_path / "secret"
    file.write_bytes(b" " + SECRET + b"\n")
    assert read_secret(file) == SECRET
    file.write_bytes(b"\n")
    with pytest.raises(ValueError, match="empty"):
        read_secret(file)
