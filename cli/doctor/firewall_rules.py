"""Firewall rules as `nft --json list ruleset` (libnftables-json(5)) and `iptables-save` print them, as far as they
decide about a new packet to a port of this host. What else a rule asks for is noted as a condition that we do not know.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

ACCEPT, DROP, JUMP, RETURN, NOTHING = "accept", "drop", "jump", "return", ""
_DROPS = {"drop", "reject"}
_TARGETS = {"ACCEPT": ACCEPT, "DROP": DROP, "REJECT": DROP, "RETURN": RETURN}
_NO_VERDICT = {"LOG", "NFLOG", "MARK", "CONNMARK", "TRACE", "AUDIT", "SET", "CT", "TCPMSS"}


class RulesError(Exception):
    """The text is not what we know; says what it is."""


@dataclass(slots=True)
class Rule:
    """One rule. What is None is not asked for; `unknown`: it asks for something else as well.

    Attributes:
        ports: ranges of destination ports, both ends inclusive.
        new: whether a packet that begins a conversation meets its condition on the state.
        target: the chain of a jump.
    """

    protocols: frozenset[str] | None = None
    ports: tuple[tuple[int, int], ...] | None = None
    interfaces: frozenset[str] | None = None
    new: bool | None = None
    unknown: bool = False
    verdict: str = NOTHING
    target: str = ""


@dataclass(slots=True)
class Chain:
    """A chain. `policy` is set for chains at the hook `input`; `tool` is the program that changes it."""

    name: str
    family: str = "ip"
    table: str = "filter"
    policy: str | None = None
    rules: list[Rule] = field(default_factory=list)
    tool: str = "nft"


Chains = dict[tuple[str, str, str], Chain]
"""By family, table and name."""


def from_nft(text: str) -> Chains:
    """The chains of a ruleset.

    Raises:
        RulesError: it is no such JSON.
    """
    try:
        entries = json.loads(text)["nftables"]
        chains: Chains = {}
        for entry in entries:
            if "chain" in entry:
                found = entry["chain"]
                policy = found.get("policy", ACCEPT) if found.get("hook") == "input" else None
                key = (found["family"], found["table"], found["name"])
                chains[key] = Chain(found["name"], found["family"], found["table"], policy)
        for entry in entries:
            if "rule" in entry:
                found = entry["rule"]
                key = (found["family"], found["table"], found["chain"])
                chains[key].rules += _nft_rules(found["expr"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RulesError(f"nft's JSON has another form ({type(error).__name__}: {error})") from None
    return chains


def _nft_rules(expressions: Sequence[dict[str, Any]]) -> list[Rule]:
    """One rule, or one for each entry of its map of verdicts."""
    rule = Rule()
    for expression in expressions:
        ((name, body),) = expression.items()
        if name == "match":
            _nft_match(rule, body)
        elif name == "vmap":
            return _nft_map(rule, body)
        elif name not in {"counter", "log", "comment"}:
            _nft_verdict(rule, name, body)
    return [rule]


def _nft_verdict(rule: Rule, name: str, body: Any) -> None:
    if name in {ACCEPT, RETURN, *_DROPS}:
        rule.verdict = DROP if name in _DROPS else name
    elif name in {"jump", "goto"}:
        rule.verdict, rule.target = JUMP, body["target"]
    else:
        rule.unknown = True


def _nft_map(rule: Rule, body: dict[str, Any]) -> list[Rule]:
    """`udp dport vmap { 69 : accept, 53 : drop }`. Of a map with a name it is not told here what is in it."""
    entries = body["data"].get("set") if isinstance(body["data"], dict) else None
    if not isinstance(entries, list):
        return [replace(rule, unknown=True, verdict=ACCEPT)]
    found = []
    for value, verdict in entries:
        one = replace(rule)
        _nft_match(one, {"op": "==", "left": body["key"], "right": value})
        ((name, inside),) = verdict.items()
        _nft_verdict(one, name, inside)
        found.append(one)
    return found


def _nft_match(rule: Rule, body: dict[str, Any]) -> None:
    left, right, plain = body["left"], body["right"], body.get("op") in {"==", "in"}
    meta = left.get("meta", {}).get("key") if isinstance(left, dict) else None
    payload = left.get("payload", {}) if isinstance(left, dict) else {}
    values = _values(right)
    if not plain or values is None:
        rule.unknown = True
    elif payload.get("field") == "dport":
        there = frozenset({"tcp", "udp"} if payload["protocol"] == "th" else {payload["protocol"]})
        rule.protocols = there if rule.protocols is None else rule.protocols & there
        rule.ports = tuple(_port_range(value) for value in values)
    elif meta in {"l4proto", "protocol"} or payload.get("field") in {"protocol", "nexthdr"}:
        rule.protocols = frozenset(map(str, values))
    elif meta in {"iifname", "iif"}:
        rule.interfaces = frozenset(map(str, values))
    elif "ct" in left and left["ct"].get("key") == "state":
        rule.new = "new" in values
    else:
        rule.unknown = True


def _values(right: Any) -> list[Any] | None:
    """The alternatives of a right side; None for what we do not know, as a named set."""
    if isinstance(right, dict):
        return right["set"] if isinstance(right.get("set"), list) else [right] if "range" in right else None
    if isinstance(right, str) and right.startswith("@"):
        return None
    return right if isinstance(right, list) else [right]


def _port_range(value: Any) -> tuple[int, int]:
    if isinstance(value, dict) and "range" in value:
        first, last = value["range"]
        return int(first), int(last)
    return int(value), int(value)


# --- iptables --------------------------------------------------------------------------------------------------


def from_iptables(text: str, tool: str = "iptables-save") -> Chains:
    """The chains of table `filter`. `tool` made the text: the tables of iptables-legacy are others.

    Raises:
        RulesError: a line is of no form that iptables-save writes.
    """
    chains: Chains = {}
    own = "filter-legacy" if "legacy" in tool else "filter"
    table = ""
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        if table != "filter":
            continue
        words = _words(line)
        if line.startswith(":") and len(words) > 1:
            name = words[0][1:]
            at_input = _TARGETS.get(words[1], ACCEPT) if name == "INPUT" else None
            chains["ip", own, name] = Chain(name, "ip", own, at_input, tool=tool.removesuffix("-save"))
        elif words[:1] == ["-A"] and len(words) > 1:
            chain = chains.get(("ip", own, words[1]))
            if chain is None:
                raise RulesError(f"{tool}: chain {words[1]} is used before it is declared")
            chain.rules.append(_iptables_rule(words[2:]))
    return chains


def _words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError as error:
        raise RulesError(f"iptables-save: {line!r}: {error}") from None


def _iptables_rule(words: Sequence[str]) -> Rule:
    rule = Rule()
    for option, value, negated in _options(words):
        if negated:
            rule.unknown = True
        elif option in {"-p", "--protocol"}:
            rule.protocols = frozenset({value})
        elif option in {"-i", "--in-interface"}:
            rule.interfaces = frozenset({value.replace("+", "*")})
        elif option in {"--dport", "--dports"}:
            rule.ports = tuple(_span(part) for part in value.split(","))
        elif option in {"--ctstate", "--state"}:
            rule.new = "NEW" in value.split(",")
        elif option in {"-j", "-g"}:
            rule.verdict = _TARGETS.get(value, NOTHING if value in _NO_VERDICT else JUMP)
            rule.target = value if rule.verdict == JUMP else ""
        elif option not in {"-m", "--comment", "--reject-with", "--log-prefix", "--log-level"}:
            rule.unknown = True
    return rule


def _options(words: Sequence[str]) -> Iterator[tuple[str, str, bool]]:
    """(option, value, negated) in turn; an option without a value has an empty one."""
    position, negated = 0, False
    while position < len(words):
        word = words[position]
        if word == "!":
            negated, position = True, position + 1
            continue
        follows = words[position + 1] if position + 1 < len(words) else ""
        takes = bool(follows) and not (follows.startswith("-") or follows == "!")
        yield word, follows if takes else "", negated
        position, negated = position + (2 if takes else 1), False


def _span(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    try:
        return int(first or 0), int(last or first or 65535)
    except ValueError:
        raise RulesError(f"iptables-save: {text!r} is no port") from None
