import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.pdu_listener.words import MAX_LINE_BYTES, Asked, LineAssembler, Verb, WordsError, parse_line, parse_query

WORD = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)
DELAYS = st.one_of(st.none(), st.integers(0, 600), st.floats(0, 600).map(lambda value: round(value, 3)))


@given(st.sampled_from(Verb), WORD, WORD, DELAYS.filter(lambda value: value is None or value >= 0.001 or value == 0))
def test_what_a_client_says_is_what_is_understood(verb, hostname, port, delay):
    asked = Asked(verb, hostname, port, delay_s=delay)
    line = f"{hostname} {port} {verb}" + ("" if delay is None else f" {delay}")
    assert parse_line(line.encode()) == asked
    query = [("hostname", hostname), ("port", port)] + ([] if delay is None else [("delay", str(delay))])
    if verb is Verb.STATE:
        asked = Asked(verb, hostname, port)
    assert parse_query(verb, query) == asked


@given(st.binary(max_size=2000))
def test_no_bytes_do_more_than_be_refused(data):
    try:
        asked = parse_line(data)
    except WordsError:
        return
    assert asked.hostname and asked.port and len(data.split()) in {3, 4}


@given(st.lists(st.tuples(st.sampled_from(["hostname", "port", "alias", "delay", "x"]), st.text(max_size=300))))
def test_no_query_does_more_than_be_refused(query):
    try:
        asked = parse_query(Verb.REBOOT, query)
    except WordsError:
        return
    assert bool(asked.alias) != bool(asked.hostname and asked.port)


@given(WORD, st.data())
def test_a_line_is_the_same_in_whatever_pieces_it_comes(hostname, data):
    whole = f"{hostname} 4 reboot 10\r\n".encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, len(whole) - 1))))
    assembler = LineAssembler()
    lines = [assembler.feed(whole[a:b]) for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert lines == [None] * len(cuts) + [whole.strip()]


def test_a_line_without_newline_ends_with_the_input():
    assembler = LineAssembler()
    assert not assembler.may_be_whole
    assert assembler.feed(b"pdu05 4") is None
    assert not assembler.may_be_whole
    assert assembler.feed(b" on") is None
    assert assembler.may_be_whole
    assert assembler.ended() == b"pdu05 4 on"


def test_what_comes_after_the_line_is_passed_over():
    assert LineAssembler().feed(b"pdu05 4 on\npdu05 5 off\n") == b"pdu05 4 on"


@pytest.mark.parametrize("byte", [b"x", b" ", b"\0"])
def test_a_line_without_end_is_refused(byte):
    assembler = LineAssembler()
    for _ in range(MAX_LINE_BYTES):
        assert assembler.feed(byte) is None
    with pytest.raises(WordsError, match="longer than 1024"):
        assembler.feed(byte)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"", "0 words"),
        (b"pdu 1", "2 words"),
        (b"pdu 1 on 5 6", "5 words"),
        (b"pdu 1 On", "'On' is not"),
        (b"GET / HTTP/1.1", "is not on, off"),
        (b"pdu 1 reboot abc", "'abc' is not a number"),
        (b"pdu 1 reboot -1", "'-1'"),
        (b"pdu 1 reboot 1e9", "'1e9'"),
        (b"pdu 1 reboot nan", "'nan'"),
        (b"pdu 1 reboot 601", "from 0 to 600"),
        (b"p\x00u 1 on", "no name"),
        (b"\xff\xfe 1 on", "not ASCII"),
        (b"p" * 254 + b" 1 on", "no name"),
    ],
)
def test_a_wrong_line_is_refused_with_what_is_wrong(line, problem):
    with pytest.raises(WordsError, match=problem):
        parse_line(line)


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ({}, "hostname is missing"),
        ({"hostname": "pdu"}, "port is missing"),
        ({"hostname": "pdu", "port": ""}, "port '' is no name"),
        ({"hostname": "pdu 1", "port": "1"}, "hostname 'pdu 1' is no name"),
        ({"alias": "x", "port": "1"}, "alias together"),
        ({"alias": ""}, "alias '' is no name"),
        ({"hostname": "pdu", "port": "1", "delay": "abc"}, "delay 'abc'"),
        ({"hostname": "pdu", "port": "1", "delay": ""}, "delay ''"),
        ({"hostname": "pdu", "port": "1", "delay": "٣"}, "delay '٣'"),
    ],
)
def test_a_wrong_query_is_refused_with_what_is_wrong(query, problem):
    with pytest.raises(WordsError, match=problem):
        parse_query(Verb.REBOOT, query.items())


def test_a_key_that_stands_twice_is_refused():
    with pytest.raises(WordsError, match="port stands twice"):
        parse_query(Verb.OFF, [("hostname", "pdu"), ("port", "1"), ("port", "2")])
