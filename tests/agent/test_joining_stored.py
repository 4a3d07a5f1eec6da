import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import joined_boards
from agent.settings import load
from daemon.settings_file import SettingsError

KEY = st.text(min_size=1, max_size=12)
SCALAR = st.one_of(st.booleans(), st.integers(-(2**60), 2**60), st.floats(allow_nan=False), st.text(max_size=30))
VALUE = st.one_of(SCALAR, st.lists(SCALAR, max_size=4), st.dictionaries(KEY, SCALAR, max_size=4))
BOARD = {"feed": ["rack:9"], "macs": ["52:54:00:00:00:09"], "trust_mac": True}


@given(st.dictionaries(KEY, st.dictionaries(KEY, VALUE, max_size=5), max_size=4))
def test_what_is_written_is_read(tables: dict) -> None:
    assert tomllib.loads(joined_boards.as_toml(tables)).get("boards", {}) == tables


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    path = tmp_path / "agent.toml"
    path.write_text(
        f'[agent]\nname = "lab"\nstate_dir = "{tmp_path}/state"\n'
        '[controllers.rack]\ndriver = "command"\non = ["on"]\noff = ["off"]\nstate = ["state"]\n'
        '[boards.pi]\nfeed = ["rack:1"]\nmacs = ["52:54:00:00:00:01"]\n'
    )
    return path


def test_joined_boards_stand_beside_the_others(settings: Path) -> None:
    joined_boards.write(settings.parent / "state", {"new": BOARD, "pi": {"feed": ["rack:7"]}})
    found = load(settings)
    assert sorted(found.boards) == ["new", "pi"]
    assert found.boards["new"].feed == ["rack:9"]
    assert found.boards["pi"].feed == ["rack:1"]  # a person's word goes first
    assert sorted(path.name for path in (settings.parent / "state").iterdir()) == ["joined.toml"]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"feed": ["rack:1"]}, "outlet rack:1 already feeds board pi"),
        ({"feed": ["gone:1"]}, "there is no controller 'gone'"),
        ({"macs": ["52:54:00:00:00:01"]}, "is already the MAC of board pi"),
        ({"feed": []}, "feed: List should have at least 1 item"),
        ({"colour": "red"}, "colour: Extra inputs are not permitted"),
        ({"profile": "p"}, "there is no profile 'p'"),
    ],
)
def test_one_that_does_not_fit_any_more_is_left_out_alone(settings: Path, caplog, changes: dict, why: str) -> None:
    good = {**BOARD, "feed": ["rack:8"], "macs": ["52:54:00:00:00:08"]}
    joined_boards.write(settings.parent / "state", {"bad": {**BOARD, **changes}, "good": good})
    assert sorted(load(settings).boards) == ["good", "pi"]
    assert "board bad is left out: " in caplog.text
    assert why in caplog.text


@pytest.mark.parametrize("text", ["[boards", "[agent]\nname='x'\n", "boards = 1\n", "[boards]\nx = 1\n", "\udcff"])
def test_a_broken_file_is_named(settings: Path, text: str) -> None:
    path = settings.parent / "state" / "joined.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingsError, match=r"joined\.toml: .*take it out"):
        load(settings)


def test_a_name_that_is_none_is_left_out(settings: Path, caplog) -> None:
    joined_boards.write(settings.parent / "state", {"No Name": BOARD})
    assert list(load(settings).boards) == ["pi"]
    assert "'No Name' is not a name" in caplog.text


def test_what_is_stored_stays_when_it_cannot_be_stored_anew(settings: Path, monkeypatch) -> None:
    state = settings.parent / "state"
    joined_boards.write(state, {"new": BOARD})

    def full(_number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(joined_boards.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        joined_boards.write(state, {})
    assert joined_boards.read(state) == {"new": BOARD}
