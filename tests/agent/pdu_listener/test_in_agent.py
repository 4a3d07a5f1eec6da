"""The listener in a whole agent: leases hold, events tell, a stop lets a reboot come to its end."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta

import pytest

from tests.agent.bench import DEADLINE_S, Bench


@pytest.fixture
def bench(tmp_path, mqtt):
    bench = Bench(tmp_path, mqtt)
    with bench.settings.open("a") as settings:
        settings.write(
            '[pdu_listener]\nhttp = "127.0.0.1:0"\ntcp = "127.0.0.1:0"\naliases = { spare = "rack:spare" }\n'
        )
    yield bench
    bench.close()


def logged(bench, pattern):
    """Waits for a line of the agent's log."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        found = re.search(pattern, (bench.folder / "agent.log").read_text())
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"the agent's log has no {pattern}")


def heard_at(bench, protocol):
    """Where the agent listens."""
    found = logged(bench, rf"heard by {protocol} on (\S+):(\d+)")
    return found[1], int(found[2])


def get(bench, path):
    host, port = heard_at(bench, "http")
    try:
        with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=DEADLINE_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def test_a_switch_is_a_command_like_any_other(bench):
    heard = bench.ready()
    assert get(bench, "/power/control/on?hostname=rack&port=pi") == (200, "OK - accepted request\n")
    state, _ = heard.wait_all(
        lambda m: m["topic"] == "boardhand/board/pi/state" and m["payload"]["power"] == "on",
        lambda m: m["topic"] == "boardhand/event/pi" and m["payload"]["type"] == "power",
    )
    assert (state["payload"]["target"], state["payload"]["phase"]) == ("on", "starting")
    with socket.create_connection(heard_at(bench, "tcp"), timeout=DEADLINE_S) as line:
        line.sendall(b"rack pi state\n")
        assert line.recv(100) == b"on\n"
    assert get(bench, "/power/control/on?alias=spare") == (200, "OK - accepted request\n")
    assert get(bench, "/power/outlet/rack/spare") == (200, "1")
    assert (bench.outlets / "log").read_text().splitlines() == ["pi on", "spare on"]


def test_a_failure_of_the_hardware_is_told(bench):
    bench.ready()
    status, text = get(bench, "/power/control/on?alias=lies")
    assert (status, text.startswith("Failed: ")) == (502, True)
    assert "rack:lies" in text


def test_a_leased_board_refuses(bench):
    heard = bench.ready()
    lease = {"holder": "job-3", "token": 9, "expires": (datetime.now(UTC) + timedelta(minutes=5)).isoformat()}
    bench.publish("boardhand/board/pi/lease", json.dumps(lease), "-r")
    # What this answers was heard after the lease.
    bench.publish("boardhand/board/pi/power/set", '{"power":"on","id":"x"}')
    heard.wait(lambda m: m["topic"] == "boardhand/board/pi/power/result")
    status, text = get(bench, "/power/control/off?hostname=rack&port=pi")
    assert (status, text.startswith("Failed: board pi: leased by job-3 until")) == (409, True)
    assert get(bench, "/power/state?alias=pi") == (200, "off\n")
    # Nobody can say that it was released while the server is away.
    bench.mqtt.stop()
    logged(bench, r"MQTT server .* again in about")
    assert get(bench, "/power/control/on?alias=pi")[0] == 409
    assert get(bench, "/power/control/on?alias=bone")[0] == 200
    assert (bench.outlets / "log").read_text().splitlines() == ["bone on"]


def test_a_stop_lets_a_reboot_come_to_its_end_and_answers_it(bench):
    bench.ready()
    assert get(bench, "/power/control/on?alias=bone")[0] == 200
    answers = []
    asking = threading.Thread(target=lambda: answers.append(get(bench, "/power/control/reboot?alias=bone&delay=2")))
    asking.start()
    end = time.monotonic() + DEADLINE_S
    while "bone off" not in (bench.outlets / "log").read_text() and time.monotonic() < end:
        time.sleep(0.02)
    assert bench.end(signal.SIGTERM) == 0
    asking.join()
    assert answers == [(200, "OK - accepted request\n")]
    assert (bench.outlets / "log").read_text().splitlines() == ["bone on", "bone off", "bone on"]


def test_an_agent_whose_port_is_taken_says_so_and_ends(bench):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        text = bench.settings.read_text().replace('http = "127.0.0.1:0"', f'http = "127.0.0.1:{port}"')
        bench.settings.write_text(text)
        bench.start()
        assert bench.process.wait(DEADLINE_S) != 0
        bench.process = None
    assert f"pdu_listener: http = '127.0.0.1:{port}'" in (bench.folder / "agent.log").read_text()


def test_an_alias_that_leads_nowhere_is_found_before_the_start(bench):
    text = bench.settings.read_text().replace("rack:spare", "nobody")
    bench.settings.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "agent", "--settings", str(bench.settings)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert done.returncode != 0
    assert "pdu_listener.aliases.spare: there is no board 'nobody'" in done.stderr
