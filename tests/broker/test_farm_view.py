from datetime import UTC, datetime

from broker.farm_view import FarmView
from wire.payloads import AgentState, BoardInfo, BoardSelf, BoardState
from wire.phases import Phase, Power, Presence

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


def agent(state="online", session=5):
    return AgentState(state=Presence(state), session=session, since=SINCE)


def state(session=5, seq=1, phase="ready", agent="lab1"):
    return BoardState(power=Power.ON, phase=Phase(phase), since=SINCE, agent=agent, session=session, seq=seq)


def said(state="online", boot="x", work=None):
    return BoardSelf(state=Presence(state), boot_id=boot, work=work)


def view():
    farm = FarmView()
    assert farm.agent_seen("lab1", agent())
    assert farm.state_seen("b1", state())
    assert farm.self_seen("b1", said())
    return farm


def test_ready_needs_agent_state_and_self():
    assert view().board("b1").ready
    for spoil in (
        lambda f: f.agent_seen("lab1", agent("lost")),
        lambda f: f.agent_seen("lab1", None),
        lambda f: f.state_seen("b1", None),
        lambda f: f.self_seen("b1", said("offline")),
        lambda f: f.self_seen("b1", said(work="job-1")),
        lambda f: f.state_seen("b1", state(phase="busy", seq=2)),
    ):
        farm = view()
        assert spoil(farm)
        assert not farm.board("b1").ready


def test_agent_lost_means_power_unknown_until_it_is_back():
    farm = view()
    farm.agent_seen("lab1", agent("lost"))
    assert farm.board("b1").power is Power.UNKNOWN
    assert farm.board("b1").out_of_service == "its agent lab1 is away"
    farm.agent_seen("lab1", agent(session=6))
    assert farm.board("b1").power is Power.UNKNOWN  # session 5 said it was on
    assert "not yet said" in farm.board("b1").out_of_service
    farm.state_seen("b1", state(session=6, seq=1))
    assert farm.board("b1").power is Power.ON


def test_will_of_an_older_session_is_ignored():
    farm = view()
    assert not farm.agent_seen("lab1", agent("lost", session=4))
    assert farm.board("b1").ready
    assert farm.agent_seen("lab1", agent("offline", session=5))
    assert farm.agent_seen("lab1", agent("online", session=1))  # its state folder was lost


def test_older_board_states_are_ignored():
    farm = view()
    farm.state_seen("b1", state(seq=7))
    assert not farm.state_seen("b1", state(seq=6, phase="fault"))
    assert not farm.state_seen("b1", state(session=4, seq=9, phase="fault"))
    assert farm.state_seen("b1", state(seq=7, phase="busy"))
    assert farm.state_seen("b1", state(session=1, seq=1, agent="lab2"))  # moved to another host
    assert farm.board("b1").agent == "lab2"


def test_will_of_an_older_boot_is_ignored():
    farm = view()
    farm.self_seen("b1", said(boot="y"))
    assert not farm.self_seen("b1", said("offline", boot="x"))
    assert farm.board("b1").online


def test_labels_and_names():
    farm = view()
    farm.info_seen("b1", BoardInfo(arch="arm64", memory_mb=2048, compatible=["a", "b"], labels={"lab": "x"}, image="i"))
    labels = farm.board("b1").labels
    assert labels == {"arch": "arm64", "memory_mb": 2048, "compatible": ("a", "b"), "lab": "x", "image": "i"}
    farm.self_seen("stranger", said())
    assert farm.names() == ["b1"]
    farm.info_seen("b1", None)
    farm.state_seen("b1", None)
    assert farm.names() == []
    assert farm.board("nobody").out_of_service is not None


def test_forget_presence_keeps_who_is_known():
    farm = view()
    farm.forget_presence()
    assert farm.names() == ["b1"]
    assert not farm.board("b1").online
    assert farm.board("b1").power is Power.UNKNOWN


def test_inventing_boards_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr("broker.farm_view.MAX_BOARDS", 2)
    farm = FarmView()
    assert [farm.info_seen(f"b{n}", BoardInfo()) for n in range(4)] == [True, True, False, False]
    assert [farm.self_seen(f"c{n}", said()) for n in range(2)] == [False, False]
    assert [farm.state_seen(f"c{n}", state()) for n in range(2)] == [False, False]
    assert [farm.agent_seen(f"a{n}", agent()) for n in range(3)] == [True, True, False]
