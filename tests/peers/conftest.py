"""A virtual SNMP PDU behind our switching core behind our pdudaemon listener, for foreign clients to drive.

The clients live in environments of their own under `.cache/peers`, which `make test` makes.
"""

import asyncio
import json
import os
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.pdu_listener.desk import AgentDesk
from agent.pdu_listener.service import PduListener
from agent.pdu_listener.settings import DEFAULT_PORT, ListenerError, PduListenerTable
from agent.power.journal import Journal, MemoryStore
from agent.power.kinds.snmp import SnmpSettings
from agent.power.service import Listeners, PowerService
from agent.power.settings import BoardFeed
from virtual_lab.snmp_pdu import PduSettings, VirtualPdu
from wire.payloads import PowerResult

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".cache" / "peers"
OUTLETS = 8
LIAR = "7"
"""Accepts and does not switch."""


def peer(path):
    """A foreign program of `.cache/peers`."""
    found = PEERS / path
    assert found.is_file(), (
        f"{found} is not there: run `make test` once, or `make {PEERS.relative_to(ROOT)}/…/.installed`"
    )
    return found


class Commands:
    """Hands a board's switching straight to the power service; leases are not the matter here."""

    def __init__(self, power):
        self.power = power
        self.asked_for = []

    async def asked(self, board, action, *, min_off_s=None):
        self.asked_for.append((board, str(action), min_off_s))
        operation = f"{board}-{len(self.asked_for)}"
        outcome = await self.power.switch(board, action, operation_id=operation, min_off_s=min_off_s)
        return PowerResult(
            ok=outcome.ok, power=outcome.power, action=action, error=outcome.error, took_ms=outcome.took_ms
        )


@dataclass
class Lab:
    """Outlets 1 to 4 feed boards b1 to b4, 7 feeds a board and lies, the others feed none."""

    pdu: VirtualPdu
    commands: Commands
    host: str
    """Where the listener hears both HTTP and TCP on pdudaemon's port, which its clients do not let one choose."""
    tcp_host: str
    token: str | None = None
    edges_seen: int = field(default=0)

    def edges(self):
        """What has really switched since the last call."""
        new = self.pdu.edges[self.edges_seen :]
        self.edges_seen = len(self.pdu.edges)
        return new


async def run(*command, timeout_s=60, environ=None, **options):
    """Run a foreign program; returns (exit code, standard output, standard error)."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | (environ or {}),
        **options,
    )
    try:
        async with asyncio.timeout(timeout_s):
            out, err = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    return process.returncode, out.decode(), err.decode()


def a_loopback_address():
    return f"127.{random.randint(16, 250)}.{random.randint(1, 250)}.{random.randint(1, 250)}"


@pytest.fixture
async def lab(tmp_path):
    """Starts a `Lab`: `lab = await make(token=…)`."""
    async with AsyncExitStack() as stack:

        async def make(*, token=None):
            pdu = await stack.enter_async_context(VirtualPdu(PduSettings(outlets=OUTLETS, lying=frozenset({LIAR}))))
            community = tmp_path / "community"
            community.write_text("private\n")
            controllers = {
                "pdu05": SnmpSettings(
                    driver="snmp",
                    host="127.0.0.1",
                    port=pdu.port,
                    community_file=community,
                    timeout_s=3.0,
                    retries=0,
                )
            }
            quick = {"min_off_s": 0.0, "verify_deadline_s": 0.5, "attempts": 1}
            feeds = {f"b{n}": BoardFeed(outlets=[f"pdu05:{n}"], **quick) for n in (1, 2, 3, 4, int(LIAR))}
            journal = Journal(MemoryStore(), "boot")
            stack.push_async_callback(journal.store.close)
            power = PowerService(
                controllers,
                feeds,
                journal=journal,
                listeners=Listeners(lambda *_: None, lambda *_: None),
                poll_every_s=0,
            )
            stack.push_async_callback(power.close)
            await power.start()
            commands = Commands(power)
            table = {"aliases": {"the-dut": "b2"}}
            if token is not None:
                (tmp_path / "token").write_text(token)
                table["token_file"] = tmp_path / "token"
            for _ in range(20):
                host, tcp_host = a_loopback_address(), a_loopback_address()
                endpoints = {"http": f"{host}:{DEFAULT_PORT}", "tcp": f"{tcp_host}:{DEFAULT_PORT}"}
                listener = PduListener(
                    PduListenerTable(**endpoints, **table), controllers, feeds, AgentDesk(commands, power)
                )
                try:
                    await listener.start()
                except ListenerError:
                    continue
                stack.push_async_callback(listener.stop)
                return Lab(pdu, commands, host, tcp_host, token)
            raise AssertionError("no free loopback address")

        yield make


@pytest.fixture
def netrc(tmp_path):
    """A netrc with a token, as the environment that makes Python's requests show it: `netrc(host, token)`."""

    def write(host, token):
        file = tmp_path / "netrc"
        file.write_text(f"machine {host} login any password {token}\n")
        return {"NETRC": str(file)}

    return write


@pytest.fixture
def labgrid(tmp_path):
    """Runs labgrid, from its own environment: `results = await labgrid(resources, drivers, "on", "get")`."""

    async def drive(resource, driver, *verbs, environ=None):
        environment = tmp_path / "environment.json"  # YAML holds JSON
        target = {"resources": resource, "drivers": driver}
        environment.write_text(json.dumps({"targets": {"main": target}}))
        script = Path(__file__).with_name("drive_labgrid.py")
        command = (peer("labgrid/bin/python"), script, environment, *verbs)
        code, out, err = await run(*command, cwd=tmp_path, environ=environ)
        assert code == 0, err
        return json.loads(out)

    return drive


@pytest.fixture
def pduclient():
    """Runs pdudaemon's own client: `code, text = await pduclient(host, "--http", …)`."""

    async def ask(host, *options, environ=None):
        python = peer("pdudaemon/bin/python")
        command = (python, peer("pdudaemon/source/pduclient"), "--daemon", host, *options)
        code, out, err = await run(*command, environ=environ)
        assert err == ""
        return code, out.strip()

    return ask


@pytest.fixture
def curl():
    """Runs curl: `code, text = await curl(url, …)`."""

    async def ask(url, *options):
        code, out, _ = await run("curl", "--silent", "--max-time", "30", *options, url)
        return code, out

    return ask
