"""Secrets leave no console, wherever chunks end."""

from hypothesis import given
from hypothesis import strategies as st

from agent.console.redactor import KEY, MAX_VALUE, Redactor

SECRET = bytes(range(0x30, 0x3A)) * 6 + b"abcd"
TEXT = st.sampled_from(
    [b"", b"b", b"boardhand.", b"boardhand.secret", b"=", b" ", b"\r\n", b"\xff\0", b"login: ", b"quiet"]
)


def chunked(data, cuts):
    places = sorted({cut % (len(data) + 1) for cut in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@given(
    st.lists(st.one_of(TEXT, st.just(KEY + SECRET + b" ")), max_size=12), st.lists(st.integers(0, 5000), max_size=12)
)
def test_no_secret_comes_through_and_nothing_else_is_lost(pieces, cuts):
    data = b"".join(pieces)
    redactor = Redactor()
    out = b"".join(redactor.feed(chunk) for chunk in chunked(data, cuts))
    assert out == Redactor().feed(data), "how it is cut changes nothing"
    assert len(out) == len(data)
    assert SECRET not in out
    assert all(a == b or b == ord("*") for a, b in zip(data, out, strict=True))
    if SECRET not in data:
        hidden = sum(a != b for a, b in zip(data, out, strict=True))
        assert hidden == 0 or KEY in data


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
def test_garbage_is_data(noise, cuts):
    redactor = Redactor()
    assert b"".join(redactor.feed(chunk) for chunk in chunked(noise, cuts)) == noise


def test_byte_by_byte_nothing_is_held_back():
    redactor = Redactor()
    line = b"Kernel command line: root=/dev/nfs " + KEY + SECRET + b" quiet b"
    out = [redactor.feed(bytes([byte])) for byte in line]
    assert all(len(piece) == 1 for piece in out)
    assert b"".join(out) == line.replace(SECRET, b"*" * len(SECRET))


def test_a_secret_that_a_line_editor_has_broken():
    broken = SECRET[:20] + b"\r\n" + SECRET[20:]
    out = Redactor().feed(b"=> setenv bootargs " + KEY + broken + b" quiet\r\n")
    assert SECRET[20:] not in out
    assert SECRET[:20] not in out
    assert out.endswith(b"** quiet\r\n")


def test_what_follows_a_value_is_data_again():
    assert Redactor().feed(KEY + b"\r\nnext line") == KEY + b"\r\nnext line"
    assert Redactor().feed(KEY + SECRET + b"\r\nabcdef") == KEY + b"*" * 64 + b"\r\nabcdef"
    assert Redactor().feed(b'"' + KEY + SECRET + b'" ; boot') == b'"' + KEY + b"*" * 64 + b'" ; boot'
    noise = b"\x80" * (MAX_VALUE + 10)
    assert Redactor().feed(KEY + noise) == KEY + b"*" * MAX_VALUE + b"\x80" * 10


def test_two_in_one_line():
    line = KEY + SECRET + b" " + KEY + SECRET
    assert Redactor().feed(line) == KEY + b"*" * 64 + b" " + KEY + b"*" * 64


def test_a_flood_of_the_word_costs_no_more_than_its_length():
    flood = (KEY + b"\n") * 4000
    assert Redactor().feed(flood) == flood
