"""The MQTT codec in client.py: whole, byte by byte, and fed with garbage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from board.client import (
    CONNACK,
    MAX_PACKET_BYTES,
    PINGRESP,
    PUBACK,
    PUBLISH,
    SUBACK,
    MqttError,
    PacketReader,
    encode_connect,
    encode_puback,
    encode_publish,
    encode_subscribe,
)

topics = st.text(st.characters(exclude_characters="\0+#", exclude_categories=["Cs"]), min_size=1, max_size=60)


def as_tuple(packet):
    return packet.kind, packet.packet_id, packet.codes, packet.topic, packet.payload, packet.qos, packet.retain


# (name, bytes of a server, kind, packet id)
TABLE = [
    ("connack", b"\x20\x02\x01\x00", CONNACK, 0),
    ("connack refused", b"\x20\x02\x00\x05", CONNACK, 0),
    ("puback", b"\x40\x02\x12\x34", PUBACK, 0x1234),
    ("suback", b"\x90\x04\x00\x07\x01\x80", SUBACK, 7),
    ("pingresp", b"\xd0\x00", PINGRESP, 0),
    ("publish qos 0", b"\x30\x05\x00\x01t\x00\xff", PUBLISH, 0),
    ("publish qos 1 retained, dup", b"\x3b\x06\x00\x01t\x00\x09p", PUBLISH, 9),
    ("publish without payload", b"\x30\x03\x00\x01t", PUBLISH, 0),
    ("publish with a two-byte length", b"\x30\xcb\x01\x00\x01t" + b"x" * 200, PUBLISH, 0),
]


@pytest.mark.parametrize(("name", "raw", "kind", "number"), TABLE)
def test_packets_whole_byte_by_byte_and_with_more_behind_them(name, raw, kind, number):
    whole, slow, more = PacketReader(), PacketReader(), PacketReader()
    whole.feed(raw)
    packet = whole.next()
    assert packet is not None and (packet.kind, packet.packet_id) == (kind, number)
    assert whole.next() is None
    for byte in raw[:-1]:
        slow.feed(bytes([byte]))
        assert slow.next() is None
    slow.feed(raw[-1:])
    late = slow.next()
    assert late is not None and as_tuple(late) == as_tuple(packet)
    more.feed(raw + b"\xd0\x00")
    first, second = more.next(), more.next()
    assert first is not None and as_tuple(first) == as_tuple(packet)
    assert second is not None and second.kind == PINGRESP


HOSTILE = [
    ("five length bytes", b"\x30\xff\xff\xff\xff\x01"),
    ("far too long", b"\x30\xff\xff\xff\x7f"),
    ("no type 0", b"\x00\x00"),
    ("no type 15", b"\xf0\x00"),
    ("a CONNECT from a server", b"\x10\x00"),
    ("reserved flags", b"\x21\x02\x00\x00"),
    ("connack with flags", b"\x20\x02\x02\x00"),
    ("short connack", b"\x20\x01\x00"),
    ("long puback", b"\x40\x03\x00\x01\x00"),
    ("suback without codes", b"\x90\x02\x00\x01"),
    ("pingresp with a body", b"\xd0\x01\x00"),
    ("qos 2", b"\x34\x06\x00\x01t\x00\x09p"),
    ("qos 3", b"\x36\x06\x00\x01t\x00\x09p"),
    ("packet id 0", b"\x32\x05\x00\x01t\x00\x00"),
    ("empty publish", b"\x30\x00"),
    ("empty topic", b"\x30\x03\x00\x00x"),
    ("topic longer than the packet", b"\x30\x03\x00\x09t"),
    ("no packet id", b"\x32\x03\x00\x01t"),
    ("topic not UTF-8", b"\x30\x04\x00\x02\xff\xfe"),
    ("topic with a wildcard", b"\x30\x03\x00\x01#"),
    ("topic with NUL", b"\x30\x03\x00\x01\x00"),
]


@pytest.mark.parametrize(("name", "raw"), HOSTILE)
def test_hostile_bytes_raise(name, raw):
    reader = PacketReader()
    reader.feed(raw)
    with pytest.raises(MqttError, match="the server sent"):
        reader.next()


@given(st.binary(max_size=300))
def test_any_bytes_are_packets_or_an_error_or_too_few(raw):
    reader = PacketReader()
    reader.feed(raw)
    try:
        while reader.next() is not None:
            pass
    except MqttError:
        pass


@given(topics, st.binary(max_size=400), st.booleans(), st.integers(0, 65535), st.lists(st.integers(1, 40), max_size=12))
def test_a_publish_comes_back_in_any_pieces(topic, payload, retain, number, cuts):
    raw = encode_publish(topic, payload, qos=1 if number else 0, retain=retain, packet_id=number)
    reader, packet = PacketReader(), None
    for size in [*cuts, len(raw)]:
        assert packet is None or not raw
        reader.feed(raw[:size])
        raw = raw[size:]
        packet = packet or reader.next()
    assert packet is not None
    found = (packet.topic, packet.payload, packet.retain, packet.packet_id)
    assert found == (topic, payload, retain, number)


@pytest.mark.parametrize("size", [0, 1, 120, 122, 123, 16378, 16379, 16380, 200_000])
def test_remaining_length_at_its_steps(size):
    reader = PacketReader()
    reader.feed(encode_publish("t", b"x" * size, qos=1, retain=False, packet_id=1))
    packet = reader.next()
    assert packet is not None and len(packet.payload) == size and reader.next() is None


def test_the_encoders_against_the_specification():
    # OASIS MQTT 3.1.1: figures 3.2 to 3.6 for the layout, flags by hand
    will = ("w", b"gone")
    assert encode_connect("id", keepalive_s=10, will=will, username="u", password=b"p") == (
        b"\x10\x1d\x00\x04MQTT\x04\xee\x00\x0a\x00\x02id\x00\x01w\x00\x04gone\x00\x01u\x00\x01p"
    )
    assert encode_connect("id", keepalive_s=10, clean=False) == b"\x10\x0e\x00\x04MQTT\x04\x00\x00\x0a\x00\x02id"
    assert encode_subscribe(["a/b", "c"], 10) == b"\x82\x0c\x00\x0a\x00\x03a/b\x01\x00\x01c\x01"
    assert encode_puback(0x0102) == b"\x40\x02\x01\x02"


@pytest.mark.parametrize("topic", ["", "a/+", "#", "a\0b", "x" * 70_000])
def test_topics_that_cannot_be_published_to(topic):
    with pytest.raises(MqttError):
        encode_publish(topic, b"", qos=0, retain=False)


def test_what_cannot_be_sent_is_refused():
    with pytest.raises(MqttError, match="bytes"):
        encode_publish("t", b"x" * MAX_PACKET_BYTES, qos=0, retain=False)
    with pytest.raises(MqttError, match="will"):
        encode_connect("id", keepalive_s=1, will=("t", b"x" * 70_000))
    with pytest.raises(MqttError, match="user name"):
        encode_connect("id", keepalive_s=1, password=b"p")
