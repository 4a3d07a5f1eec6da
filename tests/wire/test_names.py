import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from wire.names import Id, Mac, Prefix, is_id, mac_topic_level, normal_mac

own_addresses = st.binary(min_size=6, max_size=6).map(lambda octets: bytes([octets[0] & 0xFE, *octets[1:]]))


def taken(kind, text: str) -> bool:
    try:
        TypeAdapter(kind).validate_python(text)
    except ValidationError:
        return False
    return True


@given(st.text(max_size=70) | st.text(alphabet="ab0-\n", max_size=70))
@example("a" * 63)
@example("a" * 64)
@example("-a")
@example("a\n")
@example("é")
@example("٣")
def test_ids_are_the_same_to_both_engines(text):
    """pydantic checks with Rust's regular expressions, `is_id` with Python's, where `$` also fits before a newline."""
    allowed = (
        1 <= len(text) <= 63
        and not text.startswith("-")
        and all(c in "abcdefghijklmnopqrstuvwxyz0123456789-" for c in text)
    )
    assert is_id(text) == taken(Id, text) == allowed


@given(own_addresses, st.sampled_from([":", "-", ""]), st.booleans())
def test_every_spelling_of_an_address_is_one_address(octets, separator, upper):
    written = separator.join(f"{octet:02x}" for octet in octets)
    normal = normal_mac(f" {written.upper() if upper else written}\n")
    assert normal == octets.hex(":")
    assert normal_mac(normal) == normal
    assert mac_topic_level(written) == octets.hex("-")


@given(st.text(max_size=24) | st.text(alphabet="0123456789abcdefg:-", max_size=20))
@example("52:54:00:12:34:5٣")
@example("52:54:00:12:34:56:78")
def test_what_is_no_address_is_refused_or_six_octets(text):
    try:
        normal = normal_mac(text)
    except ValueError as error:
        assert repr(text) in str(error)  # noqa: PT017  # the other branch is as good
        assert not taken(Mac, text)
    else:
        assert re.fullmatch("[0-9a-f]{2}(:[0-9a-f]{2}){5}", normal)


@pytest.mark.parametrize("group", ["01:00:5e:00:00:01", "ff:ff:ff:ff:ff:ff", "33-33-00-00-00-01"])
def test_a_group_address_is_nobodys_own(group):
    with pytest.raises(ValueError, match="multicast"):
        normal_mac(group)


@pytest.mark.parametrize("prefix", ["boardhand", "lab/shelf-2", "A_b", "a/b/c/d", "x" * 63])
def test_prefixes(prefix):
    assert taken(Prefix, prefix)


@pytest.mark.parametrize(
    "prefix", ["", "/", "a/", "/a", "a//b", "+", "a/#", "$SYS", "a b", "a.b", "a/b/c/d/e", "x" * 64, "a\n"]
)
def test_what_is_no_prefix(prefix):
    assert not taken(Prefix, prefix)
