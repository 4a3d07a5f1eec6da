"""The access list: what follows from the contract, and what a real Mosquitto makes of it."""

import asyncio
import subprocess

import pytest

from tests.broker.live import PATIENCE_S, Server
from wire.asyncapi import Role
from wire.mqtt_acl import Account, acl

ACCOUNTS = [
    Account(None, (Role.BOARD,)),
    Account("agent-attic", (Role.AGENT,), names=("attic",), boards=("pi4", "bone")),
    Account("broker", (Role.BROKER,)),
    Account("web", (Role.BROKER, Role.OPERATOR)),
    Account("olga", (Role.OPERATOR,)),
    Account("screen", (Role.OPERATOR,), looks_only=True),
]


def rights(user: str | None) -> set[tuple[str, str]]:
    """`(topic, read or write)` of one account."""
    found, current = set(), None
    for line in acl(ACCOUNTS).splitlines():
        word, _, rest = line.partition(" ")
        if word == "user":
            current = rest
        elif word == "topic" and current == user:
            right, topic = rest.split(" ", 1)
            found |= {(topic, r) for r in (["read", "write"] if right == "readwrite" else [right])}
    return found


def test_an_agent_speaks_for_itself_and_its_boards_alone():
    says = {topic for topic, right in rights("agent-attic") if right == "write"}
    assert "boardhand/agent/attic/state" in says
    assert "boardhand/board/pi4/state" in says
    assert "boardhand/event/bone" in says
    assert not {topic for topic in says if "/board/+" in topic or "/agent/+" in topic or topic.endswith("#")}
    assert "boardhand/board/pi4/lease" not in says
    assert ("boardhand/agent/attic/state", "read") in rights("agent-attic"), "it answers for its own name"


def test_an_agent_without_boards_hears_of_none():
    assert "/board/" not in acl([Account("a", (Role.AGENT,), names=("a",))])


def test_who_looks_only_says_nothing():
    assert {right for _, right in rights("screen")} == {"read"}
    assert {t for t, r in rights("screen") if r == "read"} == {t for t, r in rights("olga") if r == "read"}


def test_power_is_switched_by_operators_and_the_broker_alone():
    power = "boardhand/board/+/power/set"
    assert (power, "write") in rights("olga") & rights("broker")
    assert not [topic for topic, right in rights(None) if "power" in topic]


@pytest.mark.parametrize(
    ("account", "wrong"),
    [
        (Account("a\ntopic #", (Role.OPERATOR,)), "no user name"),
        (Account("", (Role.OPERATOR,)), "no user name"),
        (Account("a", (Role.AGENT,)), "exactly one"),
        (Account("a", (Role.AGENT,), names=("x/#",)), "not an id"),
        (Account("a", (Role.AGENT,), names=("x",), boards=("+",)), "not an id"),
    ],
)
def test_what_would_break_the_file_is_refused(account, wrong):
    with pytest.raises(ValueError, match=wrong):
        acl([account])


def test_an_agent_that_runs_steps_on_consoles_is_its_boards_too():
    both = Account("a", (Role.AGENT, Role.BOARD), names=("attic",), boards=("pi4",))
    text = acl([both])
    assert "topic write boardhand/board/pi4/work/result" in text
    assert "board/+" not in text


MATRIX = [
    ("olga", "board/pi4/power/set", True),
    ("broker", "board/pi4/power/set", True),
    ("screen", "board/pi4/power/set", False),
    ("agent-attic", "board/pi4/power/set", False),
    (None, "board/pi4/power/set", False),
    ("agent-attic", "board/pi4/state", True),
    ("agent-attic", "board/other/state", False),
    ("olga", "board/pi4/state", False),
    ("olga", "board/pi4/lease", False),
    ("broker", "board/pi4/lease", True),
    (None, "board/pi4/work/result", True),
    (None, "board/pi4/work", False),
    (None, "register", True),
    (None, "elsewhere", False),
    ("web", "broker/request/submit", True),
    ("broker", "broker/request/submit", False),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("acl")
    (folder / "acl").write_text(acl(ACCOUNTS))
    passwords = folder / "passwords"
    passwords.touch(mode=0o600)
    for account in ACCOUNTS:
        if account.user is not None:
            subprocess.run(["mosquitto_passwd", "-b", passwords, account.user, "pw"], check=True, capture_output=True)
    found = Server(folder)
    with found.config.open("a") as config:
        # Started as root, Mosquitto becomes another user, who could not read our files.
        config.write(f"user root\nacl_file {folder / 'acl'}\npassword_file {passwords}\n")
    asyncio.run(found.start())
    yield found
    found.stop()


@pytest.mark.parametrize(("user", "topic", "allowed"), MATRIX)
def test_mosquitto_agrees(server, user, topic, allowed):
    """MQTT 5, because a server of 3.1.1 acknowledges what it drops."""
    login = [] if user is None else ["-u", user, "-P", "pw"]
    done = subprocess.run(
        ["mosquitto_pub", "-V", "5", "-p", str(server.port), "-q", "1", "-t", f"boardhand/{topic}", "-m", "x", *login],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert ("Not authorized" not in done.stderr + done.stdout) == allowed, done.stderr
