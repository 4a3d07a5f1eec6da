"""`mqtt+srv://DOMAIN` on the command line: the server that the daemons find, too."""

import subprocess
import sys

import pytest

import daemon.mqtt_discovery
from cli.exits import CliError, Exit
from cli.session import Session
from cli.target import Target
from daemon.mqtt_discovery import SrvLookup
from tests.cli.farm_double import ROOT, boardhand, free_port
from tests.netboot.knot_server import Knot


@pytest.fixture(scope="module")
def knot(tmp_path_factory):
    knot = Knot(tmp_path_factory.mktemp("knot"), {"localhost": "", "empty.test": ""})
    knot.start()
    yield knot
    knot.stop()


@pytest.fixture
def asked_here(knot, monkeypatch):
    """The system's resolver is our Knot."""
    lookup = SrvLookup(["127.0.0.1"], port=knot.port)
    monkeypatch.setattr(daemon.mqtt_discovery, "SrvLookup", lambda: lookup)
    return knot


def test_the_first_server_that_is_there_is_taken(asked_here, server):
    closed = free_port()
    asked_here.update(
        "localhost",
        "del _mqtt._tcp.localhost. SRV",
        f"add _mqtt._tcp.localhost. 1 SRV 0 0 {closed} localhost.",
        f"add _mqtt._tcp.localhost. 1 SRV 1 0 {server} localhost.",
    )
    target = Target("mqtt+srv://localhost", "boardhand", "--mqtt")
    assert (target.tls, target.host, target.port) == (False, "localhost", server)
    with Session(target) as session:
        session.subscribe("t")
        session.publish("t", b"x", wait=True)
        assert session.receive(60).payload == b"x"


@pytest.mark.parametrize("url", ["mqtt+srv://empty.test", "mqtts+srv://empty.test"])
def test_no_server_in_dns_is_unreachable(asked_here, url):
    with pytest.raises(CliError) as found:
        Target(url, "boardhand", "--mqtt")
    assert found.value.code is Exit.UNREACHABLE
    assert "_secure-mqtt._tcp.empty.test" in str(found.value)


@pytest.mark.parametrize("url", ["mqtt+srv://", "mqtt+srv://host:1883", "mqtt+srv://a b", "srv://host"])
def test_what_is_no_address(url):
    done = boardhand("boards", "--mqtt", url)
    assert done.returncode == Exit.USAGE
    assert "mqtt+srv://DOMAIN" in done.stderr


def test_the_command_itself_by_the_systems_resolver(tmp_path):
    """In namespaces of its own, where port 53 is free and resolv.conf ours."""
    inside = [sys.executable, "-m", "tests.cli.srv_inside", str(tmp_path)]
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "--mount", "--fork", "--kill-child", *inside],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.startswith("0 no boards at localhost:1884"), done.stdout + done.stderr
