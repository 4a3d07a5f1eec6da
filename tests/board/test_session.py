"""The board's decisions, without any I/O: the tables, the sequences, and any order of events."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from board import client
from board.client import LINK, WORK, Received, Session, Settings, SettingsError, back_off, transition

MAC = "52:54:00:77:00:01"
LINK_STATES = ["down", "registering", "refused", "online", "leaving"]
WORK_STATES = ["idle", "running", "stopping", "dropping", "collecting", "done"]


class Me:
    """An identity that was not read from anywhere."""

    boot_id, mac, macs, kernel, arch, serial, uuid = "boot", MAC, [MAC], "6.1", "aarch64", "", ""
    compatible = ("board",)
    memory_mb, os, inventory = 512, "Test", {}

    def uptime_s(self):
        return 1.5


class Bench:
    """A session and what came out of it."""

    def __init__(self, cmdline="boardhand.board=b1 boardhand.secret=" + "ab" * 32):
        self.session = Session(Settings(f"boardhand.mqtt=h:1883 {cmdline}"), Me())
        self.now = 100.0

    def said(self):
        """Takes all that is to be published, as (tail, payload)."""
        found = []
        while (message := self.session.outgoing()) is not None:
            self.session.sent()
            payload = json.loads(json.dumps(message.payload))
            found.append((message.topic.removeprefix("boardhand/").removeprefix("board/b1/"), payload))
        return found

    def kinds(self):
        return [payload.get("kind") or payload.get("state") or tail for tail, payload in self.said()]

    def acts(self):
        return [(a.kind, a.detail) for a in self.session.take_actions() if a.kind != "say"]

    def hear(self, tail, payload, *, retain=False):
        body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.session.message(Received(f"boardhand/{tail}", body, retain), self.now)

    def answer(self, **more):
        self.hear("register/52-54-00-77-00-01", {"ok": True, "boot_id": "boot", **more})

    def work(self, kind, **more):
        self.hear("board/b1/work", {"kind": kind, "job": "j", "token": 1, **more})

    def offer(self, count=1, **more):
        self.work("offer", steps=[{"name": f"s{i}", "run": "x"} for i in range(count)], **more)

    def later(self, seconds):
        self.now += seconds
        self.session.tick(self.now)

    def up(self):
        self.session.connected("10.0.0.2", self.now)
        self.said()
        self.answer()
        assert self.acts() == [("reconnect", "")] and self.session.link == "down"
        self.session.connected("10.0.0.2", self.now)
        assert self.kinds() == ["online", "ask"]
        return self


@pytest.mark.parametrize(("table", "states"), [(LINK, LINK_STATES), (WORK, WORK_STATES)])
def test_every_pair_of_state_and_event_has_its_row(table, states):
    events = {event for _, event in table}
    for state in states:
        for event in events:
            what, following = transition(table, state, event)
            assert following in states
            assert not what or callable(getattr(Session, f"_do_{what}"))
    assert {state for state, _ in table} <= {*states, "*"}


def test_a_pair_that_the_table_does_not_know_is_named():
    with pytest.raises(LookupError, match="no transition from idle on surprise"):
        transition(WORK, "idle", "surprise")


def test_every_state_can_be_reached():
    for table, start, states in ((LINK, "down", LINK_STATES), (WORK, "idle", WORK_STATES)):
        events, reached, todo = {event for _, event in table}, {start}, [start]
        while todo:
            state = todo.pop()
            new = {transition(table, state, event)[1] for event in events} - reached
            reached |= new
            todo.extend(new)
        assert reached == set(states)


def test_asks_again_while_idle_and_not_while_working():
    bench = Bench().up()
    bench.later(client.ASK_AGAIN_S - 1)
    assert bench.kinds() == []
    bench.later(1)
    assert bench.kinds() == ["ask"]
    bench.offer()
    assert bench.kinds() == ["accept", "online"] and bench.acts() == [("start", "first")]
    assert bench.session.deadline() is None
    bench.later(1000)
    assert bench.kinds() == []


def test_a_refused_board_tries_again_slowly():
    bench = Bench()
    bench.session.connected("10.0.0.2", bench.now)
    assert bench.kinds() == ["register"]
    bench.hear("register/52-54-00-77-00-01", {"ok": False, "boot_id": "boot"})
    bench.later(client.REFUSED_AGAIN_S - 1)
    assert bench.kinds() == []
    bench.later(1)
    assert bench.kinds() == ["register"]


def test_a_second_connection_goes_on_without_waiting_for_the_agent():
    bench = Bench().up()
    bench.offer()
    bench.said()
    bench.session.output(b"one", bench.now)
    bench.later(client.LOG_DELAY_S)
    bench.session.disconnected(bench.now)
    bench.session.output(b"two", bench.now)
    bench.later(client.LOG_DELAY_S)
    bench.session.step_ended(0, "", 1.0, bench.now)
    assert bench.session.outgoing() is None
    bench.session.connected("10.0.0.2", bench.now)
    said = bench.said()
    assert [payload.get("kind", "self") for _, payload in said] == ["self", "log", "log", "outcome"]
    assert [payload["text"] for _, payload in said[1:3]] == ["one", "two"]


def test_logs_are_bounded_and_the_loss_is_told():
    bench = Bench().up()
    bench.offer()
    bench.said()
    bench.session.disconnected(bench.now)
    for _ in range(client.MAX_LOG_BACKLOG + 7):
        bench.session.output(b"x" * client.LOG_CHUNK_CHARS, bench.now)
    bench.session.step_ended(0, "", 1.0, bench.now)
    bench.session.connected("10.0.0.2", bench.now)
    logs = [payload for _, payload in bench.said() if payload.get("kind") == "log"]
    assert [log["seq"] for log in logs] == list(range(client.MAX_LOG_BACKLOG + 1))
    assert f"{7 * client.LOG_CHUNK_CHARS} characters of output lost" in logs[-1]["text"]


def test_characters_cut_by_the_pipe_are_joined():
    bench = Bench().up()
    bench.offer()
    bench.said()
    for byte in "ä€😀".encode() + b"\xf0\x9f":
        bench.session.output(bytes([byte]), bench.now)
    bench.session.step_ended(0, "", 1.0, bench.now)
    assert [p["text"] for _, p in bench.said() if p.get("kind") == "log"] == ["ä€😀\ufffd"]


def test_a_board_that_is_given_a_name_comes_back_with_a_will():
    bench = Bench("")
    assert bench.session.will() is None and bench.session.client_id() == "bh-mac-525400770001"
    assert len(bench.session.subscriptions()) == 1
    bench.session.connected("10.0.0.2", bench.now)
    assert "proof" not in bench.said()[0][1]
    bench.answer(board="b1")
    assert bench.acts() == [("reconnect", "")] and bench.session.link == "down"
    topic, payload = bench.session.will()
    assert topic == "boardhand/board/b1/self" and json.loads(payload) == {"state": "offline", "boot_id": "boot"}
    assert len(bench.session.client_id()) <= 64 and len(bench.session.subscriptions()) == 3


def test_only_sixteen_outcomes_are_remembered():
    bench = Bench().up()
    for token in range(1, 20):
        bench.offer(token=token)
        bench.session.step_ended(0, "", 1.0, bench.now)
        bench.work("ack", token=token)
    bench.acts()
    bench.offer(token=19)
    assert bench.acts() == []
    assert len(bench.session._finished) == client.REMEMBERED_OUTCOMES


events = st.one_of(
    st.just(("connected",)), st.just(("disconnected",)), st.just(("answer", True)), st.just(("answer", False)),
    st.tuples(st.just("offer"), st.integers(1, 2), st.integers(1, 2)),
    st.tuples(st.just("ack"), st.integers(1, 2), st.booleans()),
    st.tuples(st.just("stop"), st.integers(1, 2)),
    st.tuples(st.just("output"), st.binary(max_size=20)),
    st.tuples(st.just("ended"), st.sampled_from([0, 1, None])),
    st.tuples(st.just("later"), st.floats(0, 70)),
    st.tuples(st.just("send"), st.integers(0, 9)),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(events, max_size=40))
def test_in_any_order_of_events_no_job_runs_twice_and_the_log_has_no_gap(story):  # noqa: PLR0912  # one per event
    bench, running, connected = Bench(), 0, False
    started, seqs, outcomes = [], {}, {}
    for event in story:
        name, *values = event
        if name == "connected" and not connected:
            connected = True
            bench.session.connected("a", bench.now)
        elif name == "disconnected":
            connected = False
            bench.session.disconnected(bench.now)
        elif name == "answer" and connected:
            bench.answer(ok=values[0])
        elif name == "offer" and connected:
            bench.offer(values[1], token=values[0])
        elif name == "ack" and connected:
            bench.work("ack", token=values[0], ok=values[1])
        elif name == "stop" and connected:
            bench.work("stop", token=values[0])
        elif name == "output" and running:
            bench.session.output(values[0], bench.now)
        elif name == "ended" and running:
            running -= 1
            bench.session.step_ended(values[0], "" if values[0] is not None else "killed", 0.1, bench.now)
        elif name == "later":
            bench.later(values[0])
        elif name == "send" and connected:
            for _ in range(values[0]):
                message = bench.session.outgoing()
                if message is None:
                    break
                bench.session.sent()
                payload = message.payload
                if payload.get("kind") == "log":
                    assert payload["seq"] == seqs.get(payload["token"], -1) + 1
                    seqs[payload["token"]] = payload["seq"]
                elif payload.get("kind") == "outcome":
                    assert outcomes.setdefault(payload["token"], payload["outcome"]) == payload["outcome"]
        for action in bench.session.take_actions():
            if action.kind == "start":
                running += 1
                started.append((bench.session._job.key, action.step["name"]))
            connected = connected and action.kind != "reconnect"
        assert running <= 1
        assert (running == 1) == (bench.session.work in {"running", "stopping", "dropping"})
    assert len(started) == len(set(started))


known_keys = st.sampled_from(["kind", "job", "token", "steps", "env", "name", "run", "ok", "boot_id", "board"])
leaves = st.none() | st.booleans() | st.integers() | st.sampled_from(["offer", "stop", "ack", "boot"]) | st.floats()
objects = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(known_keys, inner))
payloads = st.binary(max_size=80) | objects.map(lambda value: json.dumps(value).encode())


@settings(max_examples=300)
@given(payloads, st.booleans(), st.sampled_from(["board/b1/work", "register/52-54-00-77-00-01"]))
def test_no_message_can_break_it(payload, retain, topic):
    bench = Bench().up()
    bench.hear(topic, payload, retain=retain)
    bench.said()


@pytest.mark.parametrize(
    ("cmdline", "key"),
    [("quiet", "boardhand.mqtt"), ("boardhand.mqtt=h", "boardhand.mqtt"), ("boardhand.mqtt=h:0", "boardhand.mqtt"),
     ("boardhand.mqtt=h:99999", "boardhand.mqtt"), ("boardhand.mqtt=h:1 boardhand.secret=AB", "boardhand.secret")],
)  # fmt: skip
def test_settings_that_are_wrong_name_the_key(cmdline, key):
    with pytest.raises(SettingsError, match=key):
        Settings(cmdline)


def test_settings():
    found = Settings("ro boardhand.mqtt=[fd00::1]:1883 boardhand.board=b BOOTIF=01-52-54-00-AB-00-01 console=ttyS0\n")
    assert (found.host, found.port, found.board, found.prefix) == ("fd00::1", 1883, "b", "boardhand")
    assert found.boot_interface == "52:54:00:ab:00:01" and found.secret is None and found.agent is None


def test_back_off_grows_to_its_bound_and_keeps_boards_apart():
    assert [back_off(n, 1.0) for n in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert back_off(5000, 0.0) == 15


def test_a_board_without_a_network_interface_says_so():
    class Nobody(Me):
        mac = ""

    with pytest.raises(SettingsError, match="no network interface"):
        Session(Settings("boardhand.mqtt=h:1"), Nobody())
