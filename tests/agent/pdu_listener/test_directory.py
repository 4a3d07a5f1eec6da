import pytest

from agent.pdu_listener.directory import Directory, Target, UnknownNameError
from agent.pdu_listener.words import Asked, Verb
from agent.power.feed import OutletRef


@pytest.fixture
def directory(fake):
    return Directory(fake.CONTROLLERS, fake.FEEDS, fake.ALIASES)


@pytest.mark.parametrize(
    ("asked", "ref", "board"),
    [
        (("pdu-a", "3"), "pdu-a:3", "pi"),
        (("pdu05.lab.example", "3"), "pdu-a:3", "pi"),
        (("PDU05.LAB.example.", "03"), "pdu-a:3", "pi"),
        (("pdu-a", "9"), "pdu-a:9", None),
        (("pdu-a", "4"), "pdu-a:4", "bone"),
        (("twin-2", "1"), "twin-2:1", None),
        (("pdu-a", "0"), "pdu-a:0", None),
        (("pdu-a", "gi1/0/5.2"), "pdu-a:gi1/0/5.2", None),
    ],
)
def test_hostname_and_port_name_an_outlet_or_its_board(directory, asked, ref, board):
    assert directory.find(Asked(Verb.ON, *asked)) == Target(OutletRef.parse(ref), board)


@pytest.mark.parametrize(
    ("alias", "ref", "board"),
    [
        ("pi", "pdu-a:3", "pi"),
        ("bone", "rack:1", "bone"),
        ("DUT.1", "pdu-a:3", "pi"),
        ("fan", "pdu-a:7", None),
        ("right", "rack:shared", "right"),
    ],
)
def test_an_alias_names_a_board_or_an_outlet(directory, alias, ref, board):
    assert directory.find(Asked(Verb.ON, alias=alias)) == Target(OutletRef.parse(ref), board)


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        (Asked(Verb.ON, "pdu-b", "1"), "no controller is named 'pdu-b'.*known are: 192.0.2.7, pdu-a"),
        (Asked(Verb.ON, "192.0.2.7", "1"), "the host of twin-1, twin-2"),
        (Asked(Verb.ON, "rack", "shared"), "rack:shared feeds left, right: name the board"),
        (Asked(Verb.ON, alias="nobody"), "no alias and no board is named 'nobody'"),
        (Asked(Verb.ON, alias="broken"), "alias 'broken'"),
        (Asked(Verb.ON, "rack", "--help"), "'--help' is no plain outlet name"),
        (Asked(Verb.ON, "rack", "1/../2"), "is no plain outlet name"),
        (Asked(Verb.ON, "rack", "1?x=2"), "is no plain outlet name"),
    ],
)
def test_an_unknown_or_doubtful_name_is_said_to_be_so(directory, asked, problem):
    with pytest.raises(UnknownNameError, match=problem):
        directory.find(asked)
