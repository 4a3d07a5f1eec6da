"""The kept lines of `boards` are at every moment what would be written anew."""

import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker import happenings as h
from broker.board_lines import BoardLines
from broker.requests import MAX_ANSWER_BYTES, AskBoards, response, what_fits
from tests.broker.conftest import World
from tests.broker.lease_orders import release, reserve
from wire.payloads import BoardInfo, encode
from wire.phases import Phase, Presence

NAMES = ("b1", "b2", "b3")


def fresh(world, question):
    """As it was written before lines were kept: every line anew, and all of it encoded at once."""
    lines = BoardLines(world.scheduler)
    names = [n for n in world.scheduler.farm.names() if question.after is None or n > question.after]
    shown = what_fits([lines._seen(name, world.now()).line() for name in names[: question.limit]])
    return response(question.tag, {"boards": shown, "more": len(shown) < len(names)})


class Quick(World):
    """Nobody carries out what the broker asks for: only its picture counts here."""

    def obey(self, action):
        if isinstance(action, h.Reply):
            self.replies.append(action)


def say_labels(world, board, n):
    labels = {"rack": n, "note": 'a "quote", ü and 😀', "share": n / 3, "wide": bool(n % 2)}
    world.tell(h.InfoSeen(board, BoardInfo(arch="arm64", compatible=["a,b", "c"][: n % 3], labels=labels)))


def say_agent(world, n):
    world.present["lab1"] = list(Presence)[n % len(Presence)]
    world.tell_agent()


def leave(world, board):
    world.tell(h.StateSeen(board, None))
    world.tell(h.InfoSeen(board, None))


HAPPENINGS = {
    "phase": lambda world, board, n: world.phase(board, list(Phase)[n % len(Phase)], "why" if n % 2 else None),
    "up": lambda world, board, _n: world.up(board),
    "labels": say_labels,
    "agent": lambda world, _board, n: say_agent(world, n),
    "gone": lambda world, board, _n: leave(world, board),
    "reserve": lambda world, board, n: reserve(world, f"person {n}", board, wait=bool(n % 2), for_s=60.0),
    "release": lambda world, board, _n: release(world, board),
    "submit": lambda world, _board, _n: world.submit(),
    "time": lambda world, _board, n: world.wait(n * 7.0),
    "time alone": lambda world, _board, n: setattr(world, "mono", world.mono + n),
    "line broke": lambda world, _board, _n: world.tell(h.Disconnected()),
    "line is back": lambda world, _board, _n: world.settle(),
}
STEPS = st.lists(
    st.tuples(st.sampled_from(sorted(HAPPENINGS)), st.sampled_from(NAMES), st.integers(0, 20)), max_size=25
)
QUESTIONS = st.builds(AskBoards, st.just("t-1"), st.integers(1, 4), st.none() | st.sampled_from(NAMES))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS, QUESTIONS)
def test_what_is_kept_is_what_would_be_written_anew(steps, question):
    world = Quick(boards=NAMES)
    lines = BoardLines(world.scheduler)
    for name in NAMES[:2]:
        world.up(name)
    for what, board, n in steps:
        HAPPENINGS[what](world, board, n)
        assert lines.answer(question, world.now()) == fresh(world, question), (what, board, n)
    world.db.close()


def test_only_what_changed_is_written_anew(monkeypatch):
    world = Quick(boards=NAMES)
    written = []
    encoded = encode
    monkeypatch.setattr("broker.board_lines.encode", lambda line: written.append(line.board) or encoded(line))
    lines = BoardLines(world.scheduler)
    question = AskBoards("t", 1000, None)
    lines.answer(question, world.now())
    lines.answer(question, world.now())
    assert written == list(NAMES)
    world.up("b2")
    reserve(world, "alice", "b2")
    told = json.loads(lines.answer(question, world.now()))
    assert written == [*NAMES, "b2"]
    assert [line.get("holder") for line in told["data"]["boards"]] == [None, "alice", None]
    leave(world, "b3")
    lines.answer(question, world.now())
    assert set(lines._kept) == {"b1", "b2"}


def test_a_farm_that_does_not_fit_is_told_in_pieces():
    names = [f"b{n:04}" for n in range(900)]
    world = Quick(boards=names, labels={name: {"note": "x" * 250} for name in names})
    lines, told, after, pieces = BoardLines(world.scheduler), [], None, 0
    while True:
        question = AskBoards("t", 1000, after)
        payload = lines.answer(question, world.now())
        assert len(payload) <= MAX_ANSWER_BYTES + 100
        assert payload == fresh(world, question)
        data = json.loads(payload)["data"]
        told += [line["board"] for line in data["boards"]]
        pieces += 1
        if not data["more"]:
            break
        after = told[-1]
    assert (told, pieces > 1) == (names, True)
