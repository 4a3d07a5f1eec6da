"""Whether the host's firewall lets boards and people reach the daemons' ports.

A packet that begins a conversation is sent through the rules by thought. Rules that ask for more than protocol, port,
interface and state are not judged; where they decide, the doctor says that it does not know.
"""

import fnmatch
import os
import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cli.doctor.finding import Finding, unseen, well, wrong
from cli.doctor.firewall_rules import (
    ACCEPT,
    DROP,
    JUMP,
    RETURN,
    Chain,
    Chains,
    Rule,
    RulesError,
    from_iptables,
    from_nft,
)
from cli.doctor.wants import PortWant

_TIMEOUT_S = 10.0
_MAX_DEPTH = 16
_SBIN = ":/usr/sbin:/sbin"


class Fate(StrEnum):
    """What becomes of the packet."""

    IN = "in"
    OUT = "out"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of somebody who wants to reach a port."""

    protocol: str
    port: int
    interface: str


def check(wants: Sequence[PortWant]) -> list[Finding]:
    """A finding for each port that others than this host reach."""
    far = [want for want in wants if not want.near]
    if not far:
        return []
    rules = collect()
    if isinstance(rules, Finding):
        return [rules]
    return [judge(want, rules) for want in far]


def collect() -> Chains | Finding:
    """The rules of this host, or why they cannot be had."""
    if os.geteuid() != 0:
        return unseen("firewall", "rules", "only root may read them", "run it as root")
    chains: Chains = {}
    seen = False
    # iptables-save last: what iptables has made, it tells better than nft.
    tools = ["nft", *(["iptables-legacy-save"] if _has_legacy_tables() else []), "iptables-save"]
    try:
        for tool in tools:
            text = _output(tool, ["--json", "list", "ruleset"] if tool == "nft" else [])
            if text is not None:
                seen = True
                chains |= from_nft(text) if tool == "nft" else from_iptables(text, tool)
    except RulesError as error:
        return unseen("firewall", "rules", str(error))
    if not seen:
        return unseen("firewall", "rules", "neither nft nor iptables-save is installed", "apt-get install nftables")
    return chains


def _has_legacy_tables(names: Path = Path("/proc/net/ip_tables_names")) -> bool:
    """Where there are none, asking for them would load the kernel's module."""
    try:
        return bool(names.read_text(encoding="ascii").strip())
    except OSError:
        return False


def _output(tool: str, arguments: Sequence[str]) -> str | None:
    program = shutil.which(tool, path=os.environ.get("PATH", "") + _SBIN)
    if program is None:
        return None
    try:
        done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise RulesError(f"{tool} did not answer within {_TIMEOUT_S:g} s") from None
    if done.returncode:
        raise RulesError(f"{tool} says: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    return done.stdout


def judge(want: PortWant, chains: Chains) -> Finding:
    """What the rules do with a packet to this port."""
    subject = f"{want.protocol} {want.port} ({want.purpose})"
    packet = Packet(want.protocol, want.port, want.interface)
    unsure = None
    for chain in chains.values():
        if chain.policy is None or chain.family not in {"ip", "inet"}:
            continue
        fate = through(packet, chain, chains)
        if fate is Fate.OUT:
            return wrong("firewall", subject, f"{_named(chain)} drops it", _mend(want, chain))
        if fate is Fate.UNKNOWN:
            unsure = chain
    if unsure is not None:
        why = f"{_named(unsure)} decides by what is not judged here (addresses, sets, limits)"
        return unseen("firewall", subject, why, "nft list ruleset")
    return well("firewall", subject, "let in")


def through(packet: Packet, base: Chain, chains: Chains) -> Fate:
    """The packet's way through a chain at the hook `input`."""
    fate, maybe_in = _walk(packet, base, chains, 0)
    if fate is not None:
        return fate
    if base.policy == ACCEPT:
        return Fate.IN
    return Fate.UNKNOWN if maybe_in else Fate.OUT


def _walk(packet: Packet, chain: Chain, chains: Chains, depth: int) -> tuple[Fate | None, bool]:
    """What a rule decided, if one did; and whether one that we cannot judge may have let the packet in before."""
    maybe_in = False
    for rule in chain.rules:
        meets = _meets(rule, packet)
        if meets is False:
            continue
        verdict: Fate | None = None
        if rule.verdict == JUMP:
            below = chains.get((chain.family, chain.table, rule.target))
            if below is None or depth >= _MAX_DEPTH:
                return Fate.UNKNOWN, True
            verdict, inside = _walk(packet, below, chains, depth + 1)
            maybe_in = maybe_in or inside
        elif rule.verdict in {ACCEPT, DROP}:
            verdict = Fate.IN if rule.verdict == ACCEPT else Fate.OUT
        elif rule.verdict == RETURN and meets:
            break
        if meets is None:
            maybe_in = maybe_in or verdict in {Fate.IN, Fate.UNKNOWN}
        elif verdict is not None:
            return (Fate.UNKNOWN if verdict is Fate.OUT and maybe_in else verdict), maybe_in
    return None, maybe_in


def _meets(rule: Rule, packet: Packet) -> bool | None:
    """Whether the packet meets the rule's conditions; None: those that we know it does."""
    if (
        (rule.protocols is not None and packet.protocol not in rule.protocols)
        or (rule.ports is not None and not any(first <= packet.port <= last for first, last in rule.ports))
        or rule.new is False
        or (rule.interfaces is not None and not _may_enter(packet.interface, rule.interfaces))
    ):
        return False
    sure = not rule.unknown and (rule.interfaces is None or bool(packet.interface))
    return True if sure else None


def _may_enter(interface: str, named: Collection[str]) -> bool:
    """`interface` is empty where the port is served on all of them; then any but lo will do."""
    if not interface:
        return set(named) != {"lo"}
    return any(fnmatch.fnmatchcase(interface, name) for name in named)


def _named(chain: Chain) -> str:
    return f"chain {chain.family} {chain.table} {chain.name}"


def _mend(want: PortWant, chain: Chain) -> str:
    if chain.tool == "nft":
        interface = f'iifname "{want.interface}" ' if want.interface else ""
        rule = f"nft insert rule {chain.family} {chain.table} {chain.name} {interface}{want.protocol} dport {want.port}"
        return f"{rule} accept  # for good: in your firewall's settings"
    # nft knows nothing of the old tables, and what it puts into those of iptables iptables-save cannot print.
    interface = f"-i {want.interface} " if want.interface else ""
    rule = f"{chain.tool} -I {chain.name} {interface}-p {want.protocol} --dport {want.port} -j ACCEPT"
    return f"{rule}  # for good: in your firewall's settings"
