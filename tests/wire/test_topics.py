"""No id can address another topic, and what was made can be taken apart again."""

import inspect

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from wire.names import is_id, normal_mac
from wire.topics import BoardTopic, Topics

MAKERS = sorted(
    name
    for name, function in vars(Topics).items()
    if inspect.isfunction(function) and not name.startswith(("_", "every_", "parse_"))
)
FILTERS = sorted(name for name in vars(Topics) if name.startswith("every_"))
ids = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
prefixes = st.from_regex(r"[A-Za-z0-9_-]{1,9}(/[A-Za-z0-9_-]{1,9}){0,3}", fullmatch=True)
anything = st.text(max_size=12) | st.text(alphabet="a+#/$-\n\x00A", max_size=6)
BOARD_TAILS = {
    "board_state": "state",
    "board_info": "info",
    "telemetry": "telemetry",
    "board_self": "self",
    "lease": "lease",
    "work": "work",
    "work_result": "work/result",
    "power_set": "power/set",
    "power_result": "power/result",
}


def parameters(name: str) -> list[str]:
    return list(inspect.signature(getattr(Topics, name)).parameters)[1:]


def arguments(name: str, text: str) -> list[str]:
    """`text` for every parameter but a MAC address."""
    return ["52:54:00:12:34:56" if parameter == "mac" else text for parameter in parameters(name)]


def matches(pattern: str, topic: str) -> bool:
    """MQTT 3.1.1, 4.7: `+` stands for exactly one level."""
    left, right = pattern.split("/"), topic.split("/")
    return len(left) == len(right) and all(a in ("+", b) for a, b in zip(left, right, strict=True))


@pytest.mark.parametrize("name", MAKERS)
@given(prefix=prefixes, text=ids)
def test_every_topic_is_below_its_prefix_and_has_no_wildcard(name, prefix, text):
    made = getattr(Topics(prefix), name)(*arguments(name, text))
    assert made.startswith(f"{prefix}/")
    assert not set(made) & set("+#$\x00")
    assert "" not in made.split("/")
    assert len(made.encode()) < 1024


@pytest.mark.parametrize("name", [name for name in MAKERS if parameters(name) and parameters(name) != ["mac"]])
@given(text=anything, which=st.integers(0, 1))
@example(text="+", which=0)
@example(text="+", which=1)
@example(text="a/power/set", which=1)
@example(text="a\n", which=0)
@example(text="", which=1)
def test_what_is_no_id_makes_no_topic(name, text, which):
    assume(not is_id(text))
    given_here = arguments(name, "good-1")
    given_here[which % len(given_here)] = text
    with pytest.raises(ValueError, match="is not an id"):
        getattr(Topics(), name)(*given_here)


@pytest.mark.parametrize("name", MAKERS)
@given(first=ids, second=ids)
def test_two_ids_never_share_a_topic(name, first, second):
    assume(first != second)
    if parameters(name) and parameters(name) != ["mac"]:
        make = getattr(Topics(), name)
        assert make(*arguments(name, first)) != make(*arguments(name, second))


@given(text=ids)
def test_two_functions_never_share_a_topic(text):
    made = [getattr(Topics(), name)(*arguments(name, text)) for name in MAKERS]
    assert len(set(made)) == len(made)


@pytest.mark.parametrize(("name", "tail"), BOARD_TAILS.items())
@given(prefix=prefixes, board=ids)
def test_parse_board_inverts(name, tail, prefix, board):
    topics = Topics(prefix)
    made = getattr(topics, name)(board)
    assert topics.parse_board(made) == BoardTopic(board, tail)
    assert topics.parse_agent(made) is None
    assert matches(topics.every_board(tail), made)


@given(prefix=prefixes, one=ids, other=ids)
def test_topics_with_two_names_come_apart_too(prefix, one, other):
    topics = Topics(prefix)
    assert topics.parse_board(topics.alert(one, other)) == BoardTopic(one, f"alert/{other}")
    assert topics.parse_agent(topics.agent_state(one)) == BoardTopic(one, "state")
    assert topics.parse_agent(topics.agent_response(one, other)) == BoardTopic(one, f"response/{other}")
    assert topics.parse_verb(topics.agent_request(one, other), f"agent/{one}") == other
    assert topics.parse_verb(topics.broker_request(other), "broker") == other
    assert topics.parse_verb(topics.broker_response(other), "broker") is None
    assert topics.parse_verb(topics.agent_request(one, other), "broker") is None


@given(text=anything | st.builds("boardhand/board/{}/{}".format, anything, anything))
def test_only_valid_ids_come_out_of_a_topic(text):
    for parsed in (Topics().parse_board(text), Topics().parse_agent(text)):
        if parsed is not None:
            assert is_id(parsed.board)
            assert text.endswith(f"/{parsed.board}/{parsed.tail}")
    verb = Topics().parse_verb(text, "broker")
    assert verb is None or is_id(verb)


@pytest.mark.parametrize("topic", ["boardhand/board/b1", "boardhand/board//state", "other/board/b1/state", "", "/"])
def test_other_topics_are_nobodys(topic):
    assert Topics().parse_board(topic) is None


@given(mac=st.binary(min_size=6, max_size=6).map(lambda octets: bytes([octets[0] & 0xFE, *octets[1:]]).hex(":")))
def test_the_topic_of_a_registration_answer_names_the_mac(mac):
    level = Topics().register_answer(mac.upper()).removeprefix("boardhand/register/")
    assert normal_mac(level) == mac
    assert level == mac.replace(":", "-")


@pytest.mark.parametrize("mac", ["", "+", "52:54:00:12:34", "ff:ff:ff:ff:ff:ff", "52:54:00:12:34:56/x"])
def test_no_answer_goes_to_what_is_no_mac(mac):
    with pytest.raises(ValueError, match=r"MAC address|multicast"):
        Topics().register_answer(mac)


@given(prefix=prefixes, text=ids)
def test_filters_find_their_topics_and_no_others(prefix, text):
    topics = Topics(prefix)
    assert matches(topics.every_event(), topics.event(text))
    assert matches(topics.every_agent("state"), topics.agent_state(text))
    assert matches(topics.every_job_state(), topics.job_state(text))
    assert matches(topics.every_lease_state(), topics.lease_state(text))
    assert matches(topics.every_agent_request(text), topics.agent_request(text, text))
    assert matches(topics.every_broker_request(), topics.broker_request(text))
    assert not matches(topics.every_event(), topics.board_state(text))
    tested = [
        "every_agent",
        "every_agent_request",
        "every_board",
        "every_broker_request",
        "every_event",
        "every_job_state",
        "every_lease_state",
    ]
    assert tested == FILTERS
