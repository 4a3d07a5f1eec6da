"""The messages of a group, by LAVA's documentation, and against a model that knows nothing of how it is done."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.groups.rendezvous import MAX_MESSAGES, Call, CallError, Rendezvous, Sent, Verb, parse_call

ROLES = {"s1": "server", "c1": "client", "c2": "client"}


class Meeting:
    """Calls by hand: each has its own id."""

    def __init__(self, roles=None):
        self.made = Rendezvous(roles or ROLES)
        self.count = 0
        self.sent = []

    def call(self, board, text, name=None):
        self.count += 1
        call = parse_call(name or f"call-{self.count}", text)
        if call.verb in (Verb.SEND, Verb.SYNC) and self.made.add(Sent(board, call)):
            self.sent.append(Sent(board, call))
        return call

    def answer(self, board, text):
        return self.made.answer(board, self.call(board, text))


def test_wait_ends_when_any_other_board_has_sent():
    meeting = Meeting()
    assert meeting.answer("c1", "wait ready") is None
    assert meeting.answer("c1", "send ready\nport=1") == ""
    assert meeting.answer("c1", "wait ready") is None, "its own message is none of another's"
    meeting.answer("s1", "send ready\nip=10.0.0.1\nport=80=81")
    assert meeting.answer("c1", "wait ready") == "ip=10.0.0.1\nport=80=81\n"
    assert meeting.answer("c1", "wait ready") == "ip=10.0.0.1\nport=80=81\n", "it stays for the life of the group"
    assert meeting.answer("s1", "wait ready") == "port=1\n"


def test_wait_all_waits_for_all_others_or_for_a_role():
    meeting = Meeting()
    meeting.answer("c1", "send up\nn=1")
    assert meeting.answer("s1", "wait-all up") is None
    assert meeting.answer("s1", "wait-all up client") is None
    meeting.answer("c2", "send up\nn=2")
    assert meeting.answer("s1", "wait-all up") == "c1:n=1\nc2:n=2\n"
    assert meeting.answer("s1", "wait-all up client") == "c1:n=1\nc2:n=2\n"
    assert meeting.answer("c1", "wait-all up") is None, "the server has not sent it"
    with pytest.raises(CallError, match="no role 'clint'; the roles are server, client"):
        meeting.answer("s1", "wait-all up clint")


def test_sync_is_for_all_and_its_id_can_be_used_again():
    meeting = Meeting()
    calls = {board: meeting.call(board, "sync go") for board in ("s1", "c1")}
    assert meeting.made.answer("s1", calls["s1"]) is None
    calls["c2"] = meeting.call("c2", "sync go")
    assert [meeting.made.answer(board, call) for board, call in calls.items()] == ["", "", ""]
    assert meeting.answer("s1", "sync go") is None, "a second sync of that id waits for all again"
    assert meeting.answer("c1", "wait-all go server") == "", "a sync is a send, then a wait-all"


def test_what_can_never_come_is_said():
    meeting = Meeting()
    meeting.made.ended.add("c1")
    for text in ("wait-all up", "sync up", "wait-all up client"):
        with pytest.raises(CallError, match="up: c1 ended without sending it"):
            meeting.answer("s1", text)
    assert meeting.answer("s1", "wait up") is None
    meeting.made.ended.add("c2")
    with pytest.raises(CallError, match="nobody is left to send it"):
        meeting.answer("s1", "wait up")
    meeting = Meeting()
    meeting.answer("c1", "send bye\nx=1")
    meeting.made.ended.add("c1")
    assert meeting.answer("s1", "wait bye") == "x=1\n", "what it sent before its end counts"


@pytest.mark.parametrize("text", ["", "send", "shout x", "wait a b", "send a\nb", "send a\n=b", "wait " + "x" * 300])
def test_what_is_no_call_is_refused(text):
    with pytest.raises(CallError):
        parse_call("c", text)


def test_too_much_is_refused():
    meeting = Meeting()
    for n in range(34):
        meeting.answer("s1", f"send m{n}\nk={'x' * 30000}")
    with pytest.raises(CallError, match="no more is taken"):
        meeting.answer("s1", f"send last\nk={'x' * 30000}")
    meeting = Meeting()
    for n in range(MAX_MESSAGES):
        meeting.answer("s1", f"send m{n}")
    with pytest.raises(CallError, match="no more is taken"):
        meeting.answer("s1", "send last")


BOARDS, NAMES = st.sampled_from(sorted(ROLES)), st.sampled_from(["a", "b"])
ROLE = st.sampled_from([None, "server", "client"])
STEPS = st.lists(st.tuples(BOARDS, st.sampled_from(list(Verb)), NAMES, ROLE, st.integers(0, 9)), max_size=40)


@given(STEPS, st.lists(st.integers(0, 39), max_size=10))
def test_any_calls_agree_with_the_model_and_repetitions_and_a_restart_change_nothing(steps, repeated):
    meeting, sent = Meeting(), {}
    rounds = dict.fromkeys(((board, name) for board in ROLES for name in "ab"), 0)
    calls = []
    for n, (board, verb, name, role, value) in enumerate(steps):
        call = Call(f"c{n}", verb, name, role if verb is Verb.WAIT_ALL else None, (("v", str(value)),))
        if verb in (Verb.SEND, Verb.SYNC):
            assert meeting.made.add(Sent(board, call))
            meeting.sent.append(Sent(board, call))
            if verb is Verb.SYNC:
                rounds[board, name] += 1
                sent.setdefault((board, name), None)
            else:
                sent[board, name] = value
        calls.append((board, call))
        for again in repeated:
            if again < len(calls) and calls[again][1].verb in (Verb.SEND, Verb.SYNC):
                assert not meeting.made.add(Sent(*calls[again]))
        given_answer = meeting.made.answer(board, call)
        others = [other for other in ROLES if other != board]
        if verb is Verb.WAIT:
            assert (given_answer is not None) == any((other, name) in sent for other in others)
        elif verb is Verb.WAIT_ALL:
            wanted = [other for other in others if role is None or ROLES[other] == role]
            assert (given_answer is not None) == all((other, name) in sent for other in wanted)
            if given_answer is not None:
                told = {f"{o}:v={sent[o, name]}" for o in ROLES if sent.get((o, name)) is not None}
                assert set(given_answer.splitlines()) == told
        elif verb is Verb.SYNC:
            mine = rounds[board, name]
            assert (given_answer is not None) == all(rounds[other, name] >= mine for other in others)
    again = Rendezvous(ROLES)
    for one in meeting.sent:
        again.add(one)
    for board, call in calls:
        assert again.answer(board, call) == meeting.made.answer(board, call)
