"""The targets of `make fuzz` in small: they take their seeds, what is near them, and what the fuzzer once found."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.dhcp_packet import MessageType
from tests.fuzz.netboot_targets import TARGETS, joined, pieces, seeds
from tests.netboot.dhcp_lab import MAC, message

FOUND = [
    # A client id that fills a frame: an answer that repeats it cannot be written, which once ended in a traceback.
    ("dhcp", joined(message(MessageType.DISCOVER, MAC, options=((61, b"x" * 1230),)))),
]


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name):
    for seed in seeds(name):
        TARGETS[name](seed)


@pytest.mark.parametrize(("name", "data"), FOUND)
def test_what_was_found(name, data):
    TARGETS[name](data)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60)
@given(data=st.data())
def test_near_the_seeds(name, data):
    parts = list(pieces(data.draw(st.sampled_from(seeds(name)))))
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    chance.shuffle(parts)
    changed = []
    for part in parts:
        octets = bytearray(part)
        for _ in range(chance.randrange(4)):
            if octets:
                octets[chance.randrange(len(octets))] = chance.randrange(256)
        changed.append(bytes(octets[: chance.randrange(len(octets) + 1)] if chance.randrange(3) == 0 else octets))
    TARGETS[name](joined(*changed))


@given(st.lists(st.binary(max_size=300)))
def test_pieces_are_what_was_joined(parts):
    assert list(pieces(joined(*parts))) == parts
