"""What things on the farm may be called: ids, MAC addresses and the topic prefix. Without pydantic, so that a command
line need not import it to say a topic; `wire.names` has them as types.

Ids become MQTT topic levels, file names and host names, so one pattern serves all three: RFC 1123 host label
letters, at most 63 of them, none of MQTT's `+ # / $`.
"""

import re

ID_PATTERN = r"^[a-z0-9][a-z0-9-]{0,62}$"
# Servers that are clusters map '.' ' ' '*' and '>' to things of their own (facts: NATS, RabbitMQ), so none of them.
PREFIX_PATTERN = r"^[A-Za-z0-9_-]{1,63}(/[A-Za-z0-9_-]{1,63}){0,3}$"
MAC_OCTETS = 6

_ID = re.compile(ID_PATTERN)
_HEX_PAIRS = re.compile(r"^[0-9a-f]{2}([:-]?[0-9a-f]{2}){5}$")


def is_id(text: str) -> bool:
    """Whether `text` may name a board, an agent, a controller or a job."""
    return _ID.fullmatch(text) is not None


def normal_mac(text: str) -> str:
    """A MAC address as `52:54:00:12:34:56`, from any of the usual spellings.

    Raises:
        ValueError: `text` is not six octets, or the address is a multicast one, which no board can have as its own.
    """
    folded = text.strip().lower()
    if _HEX_PAIRS.fullmatch(folded) is None:
        raise ValueError(f"{text!r} is not a MAC address: write six pairs of hexadecimal digits, as 52:54:00:12:34:56")
    digits = re.sub(r"[:-]", "", folded)
    if int(digits[:2], 16) & 1:
        raise ValueError(f"{text!r} is a multicast address: no board can have it as its own")
    return ":".join(digits[i : i + 2] for i in range(0, 2 * MAC_OCTETS, 2))


def mac_topic_level(mac: str) -> str:
    """A MAC address as a topic level, `52-54-00-12-34-56`: ':' is not portable in topics.

    Raises:
        ValueError: as `normal_mac`.
    """
    return normal_mac(mac).replace(":", "-")
