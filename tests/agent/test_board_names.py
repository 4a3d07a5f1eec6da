"""A whole agent puts its boards into a real Knot DNS, and takes out those that have left its settings."""

import re
import signal
import time

import pytest

from tests.agent.bench import DEADLINE_S, Bench
from tests.netboot.knot_server import Knot


@pytest.fixture
def knot(tmp_path):
    knot = Knot(tmp_path / "dns", {"boards.test": "", "77.10.in-addr.arpa": ""})
    knot.start()
    yield knot
    knot.stop()


@pytest.fixture
def bench(tmp_path, mqtt):
    bench = Bench(tmp_path, mqtt)
    yield bench
    bench.close()


def wait_for(ask, wanted):
    ends = time.monotonic() + DEADLINE_S
    while (found := ask()) != wanted:
        assert time.monotonic() < ends, f"{found} is not {wanted}"
        time.sleep(0.05)


def test_boards_come_and_go_with_the_settings(bench, knot):
    table = (
        f'\n[dns]\nserver = "127.0.0.1"\nport = {knot.port}\nzone = "boards.test"\n'
        f'reverse_zones = ["77.10.in-addr.arpa"]\nkey_file = "{knot.key_file()}"\n'
    )
    before = bench.settings.read_text()
    named = before.replace("[boards.pi]\n", '[boards.pi]\naddress = "10.77.0.11"\n')
    assert named != before
    bench.settings.write_text(named + table)
    bench.ready()
    wait_for(lambda: knot.ask("10.77.0.11", "PTR", reverse=True), ["pi.boards.test."])
    wait_for(lambda: knot.ask("pi.boards.test", "A"), ["10.77.0.11"])
    bench.end(signal.SIGTERM)
    assert knot.ask("pi.boards.test", "A") == ["10.77.0.11"]
    without, count = re.subn(r"(?s)\[boards\.pi\]\n.*?(?=\n\[|\Z)", "", before)
    assert count == 1
    bench.settings.write_text(without + table)
    bench.start()
    wait_for(lambda: knot.ask("pi.boards.test", "A"), [])
    wait_for(lambda: knot.ask("10.77.0.11", "PTR", reverse=True), [])
