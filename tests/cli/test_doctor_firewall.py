"""The way of a packet through rules as nftables 1.0.6 and iptables 1.8.9 printed them."""

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.doctor import firewall
from cli.doctor.finding import Verdict
from cli.doctor.firewall import Fate, Packet
from cli.doctor.firewall_rules import RulesError, from_iptables, from_nft
from cli.doctor.wants import PortWant

HERE = Path(__file__).parent
NFT = from_nft((HERE / "doctor_nft.json").read_text())
IPTABLES = from_iptables((HERE / "doctor_iptables.txt").read_text())
BASE = {"nft": NFT["inet", "filter", "input"], "iptables": IPTABLES["ip", "filter", "INPUT"]}


@pytest.mark.parametrize(
    ("protocol", "port", "interface", "nft", "iptables"),
    [
        ("udp", 69, "eth1", Fate.IN, Fate.IN),
        ("udp", 69, "eth2", Fate.OUT, Fate.OUT),
        ("udp", 68, "eth1", Fate.OUT, Fate.IN),
        ("tcp", 69, "eth1", Fate.OUT, Fate.OUT),
        ("udp", 4011, "eth1", Fate.IN, Fate.OUT),  # by way of the chain pxe
        ("udp", 4011, "eth9", Fate.OUT, Fate.OUT),  # which returns for this one
        ("tcp", 8001, "eth1", Fate.IN, Fate.IN),
        ("tcp", 2049, "eth1", Fate.UNKNOWN, Fate.IN),  # for some addresses only
        ("tcp", 8070, "", Fate.OUT, Fate.UNKNOWN),
        ("tcp", 22, "eth0", Fate.IN, Fate.OUT),
        ("tcp", 22, "", Fate.UNKNOWN, Fate.OUT),  # on one of all interfaces
    ],
)
def test_the_way_of_a_packet(protocol, port, interface, nft, iptables):
    packet = Packet(protocol, port, interface)
    assert firewall.through(packet, BASE["nft"], NFT) is nft
    assert firewall.through(packet, BASE["iptables"], IPTABLES) is iptables


@pytest.mark.parametrize(
    ("want", "verdict", "says"),
    [
        (PortWant("udp", "10.77.0.1", 69, "TFTP", "k", interface="eth1"), Verdict.OK, "let in"),
        (PortWant("udp", "10.77.0.1", 69, "TFTP", "k", interface="eth2"), Verdict.WRONG, "chain inet filter input"),
        (PortWant("tcp", "0.0.0.0", 2049, "NFS", "k", interface="eth1"), Verdict.UNSEEN, "not judged"),
    ],
)
def test_what_is_said(want, verdict, says):
    found = firewall.judge(want, NFT)
    assert (found.verdict, says in found.what) == (verdict, True)
    if verdict is Verdict.WRONG:
        assert found.mend.startswith('nft insert rule inet filter input iifname "eth2" udp dport 69 accept')


def test_without_rules_everything_comes_in():
    want = PortWant("udp", "0.0.0.0", 67, "DHCP", "k")
    assert firewall.judge(want, from_nft('{"nftables": [{"metainfo": {}}]}')).verdict is Verdict.OK


def ruleset(*rules, policy="drop"):
    chain = {"family": "inet", "table": "t", "name": "input", "hook": "input", "policy": policy}
    where = {"family": "inet", "table": "t", "chain": "input"}
    entries = [{"chain": chain}, {"chain": {"family": "inet", "table": "t", "name": "lan"}}]
    entries += [{"rule": {**where, "expr": expr}} for expr in rules]
    lan = {"match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 69}}
    entries.append({"rule": {**where, "chain": "lan", "expr": [lan, {"accept": None}]}})
    return from_nft(json.dumps({"nftables": entries}))


def vmap(key, *entries):
    data = {"set": [[value, {verdict: target}] for value, verdict, target in entries]} if entries else "@named"
    return {"vmap": {"key": key, "data": data}}


STATE = vmap({"ct": {"key": "state"}}, ("established", "accept", None), ("invalid", "drop", None))
UDP_PORTS = vmap({"payload": {"protocol": "udp", "field": "dport"}}, (69, "accept", None), (53, "drop", None))
BY_INTERFACE = vmap({"meta": {"key": "iifname"}}, ("lo", "accept", None), ("eth1", "jump", {"target": "lan"}))
UDP = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "udp"}}
EITHER = {"match": {"op": "==", "left": {"payload": {"protocol": "th", "field": "dport"}}, "right": 8070}}


@pytest.mark.parametrize(
    ("rules", "packet", "fate"),
    [
        ([[STATE]], Packet("udp", 69, "eth1"), Fate.OUT),  # the policy: a new packet is in none of its entries
        ([[STATE], [UDP_PORTS]], Packet("udp", 69, "eth1"), Fate.IN),
        ([[UDP_PORTS]], Packet("udp", 53, "eth1"), Fate.OUT),
        ([[UDP_PORTS]], Packet("tcp", 69, "eth1"), Fate.OUT),
        ([[BY_INTERFACE]], Packet("udp", 69, "eth1"), Fate.IN),
        ([[BY_INTERFACE]], Packet("udp", 69, "eth2"), Fate.OUT),
        ([[vmap({"payload": {"protocol": "udp", "field": "dport"}})]], Packet("udp", 69, ""), Fate.UNKNOWN),
        ([[UDP, EITHER, {"accept": None}]], Packet("udp", 8070, ""), Fate.IN),
        ([[UDP, EITHER, {"accept": None}]], Packet("tcp", 8070, ""), Fate.OUT),
    ],
)
def test_a_map_of_verdicts_is_as_many_rules(rules, packet, fate):
    chains = ruleset(*rules)
    assert firewall.through(packet, chains["inet", "t", "input"], chains) is fate


@pytest.mark.parametrize(
    ("tool", "mend"),
    [
        ("iptables-save", "iptables -I INPUT -i eth1 -p udp --dport 69 -j ACCEPT  # for good"),
        ("iptables-legacy-save", "iptables-legacy -I INPUT -i eth1 -p udp --dport 69 -j ACCEPT  # for good"),
    ],
)
def test_what_iptables_has_made_iptables_mends(tool, mend):
    chains = from_iptables("*filter\n:INPUT DROP [0:0]\nCOMMIT\n", tool)
    found = firewall.judge(PortWant("udp", "10.77.0.1", 69, "TFTP", "k", interface="eth1"), chains)
    assert found.mend.startswith(mend)


def test_ports_of_this_host_alone_are_no_matter_of_the_firewall():
    assert firewall.check([PortWant("tcp", "127.0.0.1", 8070, "page", "k")]) == []


@pytest.mark.parametrize("text", ["", "[]", '{"nftables": 5}', '{"nftables": [{"rule": {}}]}', "{"])
def test_another_form_is_said(text):
    with pytest.raises(RulesError):
        from_nft(text)


def test_a_loop_of_chains_ends():
    loop = "*filter\n:INPUT DROP [0:0]\n:a - [0:0]\n:b - [0:0]\n-A INPUT -j a\n-A a -j b\n-A b -j a\nCOMMIT\n"
    chains = from_iptables(loop)
    assert firewall.through(Packet("udp", 1, ""), chains["ip", "filter", "INPUT"], chains) is Fate.UNKNOWN


@given(
    st.lists(st.sampled_from(["-A", "INPUT", ":INPUT", "*filter", "-p", "udp", "!", "--dport", "7", '"', "-j", "\n"]))
)
def test_lines_of_chance_are_read_or_refused(words):
    with contextlib.suppress(RulesError):
        from_iptables(" ".join(words).replace("\n ", "\n"))


def test_this_hosts_rules_are_had_or_it_is_said_why():
    found = firewall.collect()
    assert isinstance(found, dict) or found.verdict is Verdict.UNSEEN
