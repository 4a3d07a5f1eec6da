"""Names of boards in a real Knot DNS: put there, kept, taken away, and never taken from somebody else."""

import asyncio
import socket
from ipaddress import ip_address

import dns.tsig
import pytest

from netboot import dns_updates
from netboot.dns_exchange import exchange
from netboot.dns_records import ADVICE, Trouble, ZoneSettings
from netboot.dns_updates import DnsServer, DnsUpdates, KeyFileError, load_key, parse_key
from tests import stalls
from tests.netboot.knot_server import OTHER_SECRET, SECRET, Disk, Knot

DEADLINE_S = 60.0
ZONE, REVERSE, REVERSE6 = "boards.test", "77.10.in-addr.arpa", "8.b.d.0.1.0.0.2.ip6.arpa"
MARK = '"boardhand board=b1 agent=desk"'


def addresses(**boards):
    return {board: [ip_address(text) for text in texts] for board, texts in boards.items()}


@pytest.fixture(scope="module")
def shared_knot(tmp_path_factory):
    knot = Knot(tmp_path_factory.mktemp("knot"), {ZONE: "", REVERSE: "", REVERSE6: "", "closed.test": ""})
    knot.start()
    yield knot
    knot.stop()


@pytest.fixture
def knot(shared_knot):
    """Empty again after each test, by somebody else's hand."""
    yield shared_knot
    for board in ("b1", "b2"):
        shared_knot.update(ZONE, f"del {board}.{ZONE}.")
    for owner in ("11.0", "12.0"):
        shared_knot.update(REVERSE, f"del {owner}.{REVERSE}.")


class Owner:
    """An agent's part: a state that survives, and troubles that were told."""

    def __init__(self, knot, disk=None, **changes):
        options = {"agent": "desk", "zone": ZONE, "reverse_zones": (REVERSE, REVERSE6), "ttl_s": 120} | changes
        key_file = options.pop("key_file", None) or knot.key_file()
        server = DnsServer(options.pop("host", "127.0.0.1"), key_file, port=options.pop("port", knot.port))
        self.disk = disk or Disk()
        self.told = asyncio.Queue()
        self.updates = DnsUpdates(
            ZoneSettings(**options),
            server,
            state=self.disk.load(),
            save=self.disk.save,
            on_troubles=self.told.put_nowait,
        )

    async def __aenter__(self):
        await self.updates.start()
        return self

    async def __aexit__(self, *_):
        await self.updates.stop()
        await self.updates.stop()

    async def put(self, **boards):
        self.updates.want(addresses(**boards))
        await asyncio.wait_for(self.updates.settled(), DEADLINE_S)

    async def trouble(self, kind):
        troubles = await asyncio.wait_for(self.told.get(), DEADLINE_S)
        assert troubles
        for text in troubles.values():
            assert text.startswith(ADVICE[kind]), text
            assert SECRET not in text
        return troubles


async def test_names_come_forward_and_reverse_and_go_when_the_board_is_retired(knot):
    disk = Disk()
    async with Owner(knot, disk) as owner:
        await owner.put(b1=["10.77.0.11", "2001:db8::11"], b2=["10.77.0.12"])
        assert owner.updates.troubles() == {}
        assert knot.ask(f"b1.{ZONE}", "A") == ["10.77.0.11"]
        assert knot.ask(f"b1.{ZONE}", "AAAA") == ["2001:db8::11"]
        assert knot.ask(f"b1.{ZONE}", "TXT") == [MARK]
        assert knot.ask("10.77.0.11", "PTR", reverse=True) == [f"b1.{ZONE}."]
        assert knot.ask("2001:db8::11", "PTR", reverse=True) == [f"b1.{ZONE}."]
        assert knot.ask("10.77.0.12", "PTR", reverse=True) == [f"b2.{ZONE}."]
    assert knot.ask(f"b1.{ZONE}", "A") == ["10.77.0.11"]  # a clean stop retires nobody
    async with Owner(knot, disk) as owner:  # b1 has left the settings while the agent was away
        await owner.put(b2=["10.77.0.12"])
        for kind in ("A", "AAAA", "TXT"):
            assert knot.ask(f"b1.{ZONE}", kind) == []
        assert knot.ask("10.77.0.11", "PTR", reverse=True) == knot.ask("2001:db8::11", "PTR", reverse=True) == []
        assert knot.ask(f"b2.{ZONE}", "A") == ["10.77.0.12"]
        await owner.put()
    assert disk.load()["names"] == {}


async def test_what_is_there_is_put_there_again_without_a_change_and_an_address_moves(knot):
    disk = Disk()
    async with Owner(knot, disk) as owner:
        await owner.put(b1=["10.77.0.11"], b2=["10.77.0.12"])
    serial = knot.serial(ZONE), knot.serial(REVERSE)
    async with Owner(knot, disk) as owner:
        await owner.put(b1=["10.77.0.11"], b2=[])  # b2 has not said yet where it is
        assert owner.updates.sent == 4
        assert (knot.serial(ZONE), knot.serial(REVERSE)) == serial
        await owner.put(b1=["10.77.0.12"], b2=["10.77.0.11"])
        assert knot.ask(f"b1.{ZONE}", "A") == ["10.77.0.12"]
        assert knot.ask("10.77.0.12", "PTR", reverse=True) == [f"b1.{ZONE}."]
        assert knot.ask("10.77.0.11", "PTR", reverse=True) == [f"b2.{ZONE}."]
        await owner.put()
    assert knot.ask(f"b2.{ZONE}", "A") == knot.ask("10.77.0.12", "PTR", reverse=True) == []


async def test_somebody_elses_records_are_left_alone(knot):
    knot.update(ZONE, f"add b1.{ZONE}. 60 A 192.0.2.1", f'add b1.{ZONE}. 60 TXT "mine"')
    knot.update(REVERSE, f"add 11.0.{REVERSE}. 60 PTR printer.example.org.")
    async with Owner(knot) as owner:
        await owner.put(b1=["10.77.0.11"], b2=["10.77.0.12"])
        troubles = await owner.trouble(Trouble.TAKEN)
        assert set(troubles) == {f"b1.{ZONE}.", f"11.0.{REVERSE}."}
        assert knot.ask(f"b2.{ZONE}", "A") == ["10.77.0.12"]
        await owner.put(b2=["10.77.0.12"])
        # A name of ours that somebody has taken over meanwhile is his, too.
        knot.update(ZONE, f"del b2.{ZONE}. TXT", f'add b2.{ZONE}. 60 TXT "now his"')
        await owner.put()
    assert knot.ask(f"b1.{ZONE}", "A") == ["192.0.2.1"]
    assert knot.ask(f"b1.{ZONE}", "TXT") == ['"mine"']
    assert knot.ask("10.77.0.11", "PTR", reverse=True) == ["printer.example.org."]
    assert knot.ask(f"b2.{ZONE}", "A") == ["10.77.0.12"]
    assert knot.ask("10.77.0.12", "PTR", reverse=True) == []


async def test_the_board_of_another_agent_waits_until_that_one_lets_go(knot):
    async with Owner(knot, agent="old") as old, Owner(knot) as new:
        await old.put(b1=["10.77.0.11"])
        await new.put(b1=["10.77.0.12"])
        await new.trouble(Trouble.TAKEN)
        assert knot.ask(f"b1.{ZONE}", "A") == ["10.77.0.11"]
        await old.put()
        await new.put()  # what a restart does
        await new.put(b1=["10.77.0.12"])
        assert knot.ask(f"b1.{ZONE}", "TXT") == [MARK]
        assert knot.ask(f"b1.{ZONE}", "A") == ["10.77.0.12"]


async def test_other_records_at_a_boards_name_stay(knot):
    async with Owner(knot) as owner:
        await owner.put(b1=["10.77.0.11"])
        knot.update(ZONE, f"add b1.{ZONE}. 60 SSHFP 4 2 {'ab' * 32}")
        await owner.put()
    assert knot.ask(f"b1.{ZONE}", "A") == []
    assert len(knot.ask(f"b1.{ZONE}", "SSHFP")) == 1


async def test_a_lost_answer_or_a_kill_leaves_nothing_behind(knot, monkeypatch):
    disk = Disk()
    async with Owner(knot, disk) as owner:
        arrived = asyncio.Event()

        async def never_answered(message, host, port):
            await exchange(message, host, port)
            arrived.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(dns_updates, "exchange", never_answered)
        owner.updates.want(addresses(b1=["10.77.0.11"]))
        await asyncio.wait_for(arrived.wait(), DEADLINE_S)
    assert knot.ask("10.77.0.11", "PTR", reverse=True) == [f"b1.{ZONE}."]
    monkeypatch.undo()
    async with Owner(knot, disk) as owner:
        await owner.put()
        assert owner.updates.troubles() == {}
    assert knot.ask("10.77.0.11", "PTR", reverse=True) == []


async def test_what_cannot_be_stored_is_not_sent(knot):
    async with Owner(knot) as owner:
        owner.disk.full = True
        await owner.put(b1=["10.77.0.11"])
        await owner.trouble(Trouble.NOT_STORED)
        assert owner.updates.sent == 0
        assert knot.ask(f"b1.{ZONE}", "A") == []


async def test_a_dead_server_is_found_again(knot, tmp_path):
    mine = Knot(tmp_path / "dns", {ZONE: ""})
    async with Owner(mine, reverse_zones=()) as owner:
        await owner.put(b1=["10.77.0.11"])
        await owner.trouble(Trouble.UNREACHABLE)
        mine.start()
        try:
            assert await asyncio.wait_for(owner.told.get(), DEADLINE_S) == {}
            assert mine.ask(f"b1.{ZONE}", "A") == ["10.77.0.11"]
        finally:
            mine.stop()


async def test_a_silent_server_stops_nobody_from_stopping(knot):
    with socket.socket(type=socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        async with Owner(knot, port=silent.getsockname()[1]) as owner:
            owner.updates.want(addresses(b1=["10.77.0.11"]))
            await asyncio.get_running_loop().run_in_executor(None, silent.recv, 4096)
            with stalls.watch() as took:
                await owner.updates.stop()
                assert took() < 2


async def test_a_server_by_name(knot):
    async with Owner(knot, host="localhost") as owner:
        await owner.put(b1=["10.77.0.11"])
        assert knot.ask(f"b1.{ZONE}", "A") == ["10.77.0.11"]


@pytest.mark.parametrize(
    ("key", "trouble"),
    [
        ({"secret": OTHER_SECRET, "name": "boards"}, Trouble.SIGNATURE),
        ({"name": "nobody"}, Trouble.KEY),
        ({"name": "reader", "secret": OTHER_SECRET}, Trouble.KEY),
    ],
)
async def test_wrong_keys_are_told_apart(knot, key, trouble):
    async with Owner(knot, key_file=knot.key_file(**key)) as owner:
        await owner.put(b1=["10.77.0.11"])
        await owner.trouble(trouble)
    knot.key_file()


async def test_wrong_clock_and_wrong_zone_are_told_apart(knot, monkeypatch):
    async with Owner(knot, zone="absent.test", reverse_zones=()) as owner:
        await owner.put(b1=["10.77.0.11"])
        await owner.trouble(Trouble.NOT_AUTHORITATIVE)

    import dns.message

    monkeypatch.setattr(dns.message, "time", _Ahead())
    async with Owner(knot) as owner:
        await owner.put(b1=["10.77.0.11"])
        await owner.trouble(Trouble.CLOCK)


class _Ahead:
    """The time module of a host whose clock is an hour ahead."""

    def __getattr__(self, name):
        import time

        return (lambda: time.time() + 3600) if name == "time" else getattr(time, name)


def test_key_files(tmp_path):
    key = f'key "a" {{ algorithm hmac-sha256; secret "{SECRET}"; }};'
    assert parse_key(key, None, "f").algorithm == dns.tsig.HMAC_SHA256
    assert parse_key(f"# c\n/* x */ {key}\nkey b. {{ algorithm HMAC-SHA512; secret {SECRET}; }};", "B", "f").name
    assert parse_key('key a { algorithm hmac-sha256; secret "ab//cdefab//cdef"; };', "a", "f").secret
    for text, name, problem in (
        ("", None, "tsig-keygen"),
        (key, "b", "no key 'b'"),
        (key + key.replace('"a"', '"b"'), None, "key_name"),
        (key.replace("sha256", "md5"), None, "algorithm"),
        (key.replace(SECRET, "***"), None, "base64"),
        (key.replace(SECRET, ""), None, "no secret"),
    ):
        with pytest.raises(KeyFileError, match=problem) as found:
            parse_key(text, name, "f")
        assert SECRET not in str(found.value)
    with pytest.raises(KeyFileError, match="No such file"):
        load_key(DnsServer("127.0.0.1", tmp_path / "none"))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(KeyFileError, match="not text"):
        load_key(DnsServer("127.0.0.1", tmp_path / "binary"))
