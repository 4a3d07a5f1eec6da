"""Learnt boards in settings: what a person wrote stays, a second run adds nothing, and contradictions are told."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.discovery.board_text import LearntBoard, board_additions, board_name, with_boards
from agent.discovery.toml_places import CannotInsertError

MAC = "02:00:00:00:00:01"
FULL = {"feed": ["rack:3"], "macs": [MAC], "console": "/dev/ttyUSB0", "watts_idle": 2.5, "watts_busy": 4}
LEARNT = LearntBoard(FULL, ("Learnt: mac … came 3 of 3 times.", "It was up 12.3 s after its power came."))
HEAD = '# mine\n[agent]\nname = "attic"  # upstairs\nstate_dir = "state"\n'


def added(text, *boards, taken=()):
    """The text with the boards in it, and what was said of it."""
    additions = board_additions(tomllib.loads(text), boards, taken)
    return (text if additions.empty else with_boards(text, additions)), additions


def is_there_in_order(old, new):
    rest = iter(new)
    return all(char in rest for char in old)


def test_a_new_board_stands_behind_the_others_with_its_remarks():
    text = HEAD + '\n[boards.one]\nfeed = ["rack:1"]\n\n# plugs of the kitchen\n[controllers.rack]\ndriver = "snmp"\n'
    new, additions = added(text, LEARNT)
    assert list(additions.fresh) == ["board-rack-3"]
    stanza = (
        "\n# Learnt: mac … came 3 of 3 times.\n# It was up 12.3 s after its power came.\n[boards.board-rack-3]\n"
        'feed = ["rack:3"]\nmacs = ["02:00:00:00:00:01"]\nconsole = "/dev/ttyUSB0"\nwatts_idle = 2.5\nwatts_busy = 4\n'
    )
    assert new == text.replace('feed = ["rack:1"]\n', 'feed = ["rack:1"]\n' + stanza)
    assert added(new, LEARNT)[0] == new, "a second run adds nothing"
    assert added(new, LEARNT)[1].same == ("board-rack-3",)


def test_a_board_that_is_there_gets_only_what_it_lacks():
    text = (
        HEAD
        + '[boards.one]\nfeed = [\n  "rack:3",  # left\n]\nwatts_idle = 9.0 # by hand\n\n'
        + '# next\n[boards.two]\nfeed = ["rack:4"]\n'
    )
    new, additions = added(text, LEARNT)
    assert tuple(additions.lacking["one"].keys) == ("macs", "console", "watts_busy")
    assert additions.fresh == {}
    keys = 'macs = ["02:00:00:00:00:01"]\nconsole = "/dev/ttyUSB0"\nwatts_busy = 4\n'
    remarks = "# Learnt: mac … came 3 of 3 times.\n# It was up 12.3 s after its power came.\n"
    assert new == text.replace("# by hand\n", f"# by hand\n{remarks}{keys}")
    assert tomllib.loads(new)["boards"]["one"]["watts_idle"] == 9.0
    assert added(new, LEARNT)[1].empty


def test_a_console_that_is_a_table_is_one():
    text = (
        HEAD
        + '[boards.one]\nfeed = ["rack:3"]\nmacs = []\nwatts_idle = 1\nwatts_busy = 1\n'
        + '[boards.one.console]\ndevice = "/dev/ttyUSB0"\n'
    )
    new, additions = added(text, LEARNT)
    assert new == text
    assert additions.notes == (f"boards.one.macs stays as it is; {MAC} was heard as well",)


def test_a_board_without_feed_is_known_by_its_mac_or_console():
    for key in ('macs = ["02-00-00-00-00-01"]', 'console = "/dev/ttyUSB0"'):
        new, additions = added(HEAD + f"[boards.one]\n{key}\n", LEARNT)
        assert tomllib.loads(new)["boards"]["one"]["feed"] == ["rack:3"]
        assert not additions.fresh


@pytest.mark.parametrize(
    ("table", "note"),
    [
        (f'feed = ["rack:7"]\nmacs = ["{MAC}"]', f"rack:3: left out, its MAC address {MAC} is of one on rack:7"),
        ('feed = ["rack:7"]\nconsole = "/dev/ttyUSB0"', "its console /dev/ttyUSB0 is of one on rack:7"),
        ('feed = ["rack:3", "rack:4"]', "boards.one.feed has one of its outlets"),
        ('feed = [{ outlet = "rack:3", settle_s = 1 }, "hub:1"]', "boards.one.feed has one of its outlets"),
    ],
)
def test_where_the_file_says_something_else_it_stays_and_that_is_told(table, note):
    text = HEAD + f"[boards.one]\n{table}\n"
    new, additions = added(text, LEARNT)
    assert new == text
    assert note in additions.notes[0]


def test_another_console_is_told_and_stays():
    text = HEAD + '[boards.one]\nfeed = ["rack:3"]\nconsole = "/dev/ttyS7"\n'
    new, additions = added(text, LEARNT)
    assert tomllib.loads(new)["boards"]["one"]["console"] == "/dev/ttyS7"
    assert additions.notes == ("boards.one.console stays /dev/ttyS7; its words came by /dev/ttyUSB0",)


def test_names_are_ids_and_no_name_is_given_twice():
    assert board_name(["Rack_PDU:A/7"], []) == "board-rack-pdu-a-7"
    assert len(board_name(["x" * 80 + ":1"], [])) <= 53
    twin = LearntBoard({"feed": ["rack_:3"]})
    _, additions = added(HEAD, LEARNT, twin, taken={"board-rack-3"})
    assert list(additions.fresh) == ["board-rack-3-2", "board-rack-3-3"]


@pytest.mark.parametrize("text", ["boards = 3\n", "boards = {}\n", "[[boards]]\n"])
def test_what_has_no_place_is_refused(text):
    with pytest.raises(CannotInsertError):
        added(text, LEARNT)


def test_keys_of_an_inline_board_are_refused():
    with pytest.raises(CannotInsertError, match=r"\[boards.one\]"):
        added('boards = { one = { feed = ["rack:3"] } }\n', LEARNT)


def test_line_ends_are_those_of_the_file():
    text = (HEAD + '[boards.one]\nfeed = ["rack:3"]').replace("\n", "\r\n")
    new, _ = added(text, LEARNT, LearntBoard({"feed": ["rack:9"]}))
    assert "\n" not in new.replace("\r\n", "")
    assert new.startswith(text)


def test_a_remark_cannot_be_ended_by_a_device():
    new, _ = added(HEAD, LearntBoard({"feed": ["a:1"]}, ('x\n[controllers.evil]\ndriver="command"\r\x1b[2J',)))
    assert set(tomllib.loads(new)) == {"agent", "boards"}
    assert "\x1b" not in new


PIECES = st.sampled_from(
    [
        "# a remark\n",
        "\n",
        "   \n",
        '[boards.one]\nfeed = ["rack:1"]  # [boards.x]\n',
        '[ boards . \'two\' ]\nfeed = [ \'rack:2\', ] # left\nnote = """\n[boards.three]\n[boards.two]\n"""\n\n',
        '[boards.three]\nfeed = [\n  "rack:3",\n  # [boards.four]\n]\nlimit = nan',
        '\n[boards.four.console]\ndevice = "/dev/null"\n',
        '[boards.five]\nfeed = ["rack:5"]\nmacs = ["02:00:00:00:00:05"] # its\n[boards.five.labels]\nx = "y"\n',
        '[controllers.rack]\ndriver = "snmp"  # the left one\n',
        "[[hooks]]\nmatrix = [\n  [1, 2], # [boards.y]\n]\n",
        "[mqtt]\r\nurl = 'mqtt://h'\r\n",
        "[boards]\n",
        "[extra]\nboards = { a = 1 }\n[last]",
    ]
)
BOARDS = st.lists(
    st.builds(
        lambda number, keys, remark: LearntBoard({"feed": [f"rack:{number}"], **keys}, (remark,)),
        st.integers(1, 7),
        st.fixed_dictionaries({}, optional={
            "macs": st.just([MAC]), "console": st.just("/dev/ttyUSB0"), "watts_idle": st.floats(0, 99),
        }),
        st.text(max_size=30),
    ),
    max_size=4,
    unique_by=lambda board: board.title,
)  # fmt: skip


def is_toml(text):
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return False
    return True


@given(st.lists(PIECES, max_size=8).map("".join).filter(is_toml), BOARDS)
def test_what_a_person_wrote_stays_and_the_rest_is_what_was_added(text, boards):
    old = tomllib.loads(text)
    new, additions = added(text, *boards)
    assert is_there_in_order(text, new)
    for line in text.splitlines():
        assert line in new, "no line is broken"
    read = tomllib.loads(new)
    there = old.get("boards", {})
    for name, board in additions.fresh.items():
        assert read["boards"][name] == board.keys
    for name, table in there.items():
        more = dict(additions.lacking[name].keys) if name in additions.lacking else {}
        assert _words(read["boards"][name]) == _words(table | more)
    assert set(read) - {"boards"} == set(old) - {"boards"}
    again, second = added(new, *boards)
    assert second.empty
    assert again == new


def _words(table):
    """Compared as words, so that nan is itself."""
    return sorted(map(repr, table.items()))
