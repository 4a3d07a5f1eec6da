"""What is different between two settings: applied to the old ones it gives the new ones, whatever they are."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent.settings import AgentSettings
from agent.settings_diff import LIVE, NAMED_TABLES, RESTART, Change, apply, diff, touched

NAMES = st.sampled_from(["pi", "bone", "jetson", "zero"])
BOARDS = st.fixed_dictionaries(
    {"feed": st.lists(st.sampled_from(["rack:1", "rack:2", "desk:a"]), min_size=1, max_size=2, unique=True)},
    optional={
        "boot_timeout_s": st.integers(5, 9).map(float),
        "never_off": st.booleans(),
        "labels": st.dictionaries(st.sampled_from(["usb", "arch"]), st.booleans()),
        "console": st.sampled_from(["/dev/ttyUSB0", {"device": "/dev/ttyUSB1", "speed": 9600}]),
        "macs": st.just(["52:54:00:00:00:01"]),
        "watts_idle": st.integers(0, 5).map(float),
    },
)
CONTROLLERS = st.sampled_from(
    [
        {"driver": "command", "on": ["a"], "off": ["b"], "state": ["c"]},
        {"driver": "command", "on": ["a"], "off": ["b"], "state": ["d"]},
        {"driver": "snmp", "host": "192.0.2.7", "community_env": "COMMUNITY"},
    ]
)
FILES = st.fixed_dictionaries(
    {"agent": st.fixed_dictionaries({"name": st.just("lab"), "state_dir": st.just("/s")}, optional={
        "read_back_s": st.integers(1, 3).map(float), "meter_every_s": st.sampled_from([0.0, 5.0])})},
    optional={
        "mqtt": st.fixed_dictionaries({}, optional={"prefix": st.sampled_from(["a", "b"])}),
        "boards": st.dictionaries(NAMES, BOARDS, max_size=3),
        "controllers": st.dictionaries(st.sampled_from(["rack", "desk"]), CONTROLLERS),
        "circuits": st.dictionaries(st.just("wall"), st.just({"inrush_spacing_s": 1.0})),
        "hooks": st.just([{"at": "after-job", "run": ["/bin/true"]}]),
    },
)  # fmt: skip


def made(tables: dict[str, Any]) -> AgentSettings:
    return AgentSettings(**tables)


@settings(max_examples=50, deadline=None)
@given(FILES, FILES)
def test_what_is_different_applied_to_the_old_gives_the_new(one: dict[str, Any], other: dict[str, Any]) -> None:
    old, new = made(one), made(other)
    changes = diff(old, new)
    assert apply(old, changes) == new
    assert (changes == []) == (old == new)
    assert diff(new, new) == []
    # Half of it is in between: what is left is the other half.
    live = [change for change in changes if change.restart is None]
    late = [change for change in changes if change.restart is not None]
    between = apply(old, live)
    assert [change.key for change in diff(between, new)] == [change.key for change in late]
    assert set(touched(changes, "boards")) == {
        name for name in old.boards | new.boards if old.boards.get(name) != new.boards.get(name)
    }


class Edits(RuleBasedStateMachine):
    """A file that somebody edits for a day, and an agent that reloads now and then, in part or whole."""

    def __init__(self) -> None:
        super().__init__()
        self.file = made({"agent": {"name": "lab", "state_dir": "/s"}})
        self.running = self.file

    @rule(tables=FILES)
    def write(self, tables: dict[str, Any]) -> None:
        self.file = made(tables)

    @rule(name=NAMES, board=BOARDS)
    def add(self, name: str, board: dict[str, Any]) -> None:
        boards = {
            **self.file.boards,
            **made({"agent": {"name": "l", "state_dir": "/"}, "boards": {name: board}}).boards,
        }
        self.file = self.file.model_copy(update={"boards": boards})

    @precondition(lambda self: self.file.boards)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        gone = data.draw(st.sampled_from(sorted(self.file.boards)))
        boards = {name: board for name, board in self.file.boards.items() if name != gone}
        self.file = self.file.model_copy(update={"boards": boards})

    @rule()
    def reload_in_part(self) -> None:
        self.running = apply(self.running, [c for c in diff(self.running, self.file) if c.restart is None])
        assert self.running.boards == self.file.boards
        assert self.running.controllers == self.file.controllers

    @rule()
    def restart(self) -> None:
        self.running = apply(self.running, diff(self.running, self.file))
        assert self.running == self.file

    @invariant()
    def the_old_ones_are_not_touched(self) -> None:
        before = self.running.model_dump()
        apply(self.running, diff(self.running, self.file))
        assert self.running.model_dump() == before


TestEdits = Edits.TestCase
TestEdits.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)


def test_every_table_of_the_settings_is_named_once(tmp_path: Path) -> None:
    """Who adds a table says whether it can be taken up live."""
    whole = {path[0] for path in RESTART if len(path) == 1}
    live = {"hooks"}
    assert whole | live | set(NAMED_TABLES) | {"agent"} == set(AgentSettings.model_fields)
    for path in (*RESTART, *LIVE):
        model: Any = AgentSettings
        if path[0] == "netboot":
            continue
        for part in path:
            assert part in model.model_fields
            model = model.model_fields[part].annotation


@pytest.mark.parametrize(
    ("key", "live"),
    [
        (("boards", "pi", "feed"), True),
        (("agent", "read_back_s"), True),
        (("agent", "state_dir"), False),
        (("mqtt", "prefix"), False),
        (("netboot", "joining"), True),
        (("netboot", "interface"), False),
        (("netboot",), False),
    ],
)
def test_what_a_running_agent_takes_up(key: tuple[str, ...], *, live: bool) -> None:
    assert (Change(key, 1, 2).restart is None) is live
