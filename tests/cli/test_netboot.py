"""`boardhand netboot explain`: asked of doubles of agents over a real Mosquitto, and the lines for people alone."""

import json
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from board.client import MqttConnection
from cli.exits import Exit
from cli.main import main
from cli.netboot import goes_on
from cli.netboot_command import MAX_BOOTS
from cli.netboot_text import WIDTH, amount, boot_lines, duration, served_lines, stranger_lines
from tests.cli.farm_double import DEADLINE_S, boardhand, say
from wire import netboot as wire_netboot
from wire.netboot import BootReport, BootRequestInfo, RequestOutcome, RequestVia, Served, StrangerInfo
from wire.payloads import PayloadError

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


def at(seconds: float) -> str:
    return (NOON + timedelta(seconds=seconds)).isoformat()


SERVED = {
    "macs": ["52:54:00:77:00:01"], "address": "10.77.0.11", "server": "10.77.0.1", "interface": "br-boards",
    "profile": "debian", "arch": "arm64",
    "boot_files": [{"client": "U-Boot", "name": "boot.scr.uimg"}, {"client": "iPXE", "name": "boot.ipxe"}],
    "files": [
        {"role": "kernel", "name": "kernel.gz", "path": "/srv/boot/Image.gz", "size_bytes": 9_123_456},
        {"role": "dtb", "name": "dtb", "path": "/srv/boot/pi.dtb", "problem": "No such file or directory"},
        {"role": "config", "name": "boot.scr.uimg"},
        {"role": "config", "name": "boot.ipxe"},
    ],
    "cmdline": "console=ttyAMA0 boardhand.board=virt-1 boardhand.agent=lab-1 boardhand.mqtt=10.77.0.1:1883 "
               "boardhand.prefix=boardhand boardhand.secret=…",
    "why": ["it is known by its MAC addresses, [boards.virt-1] macs",
            "it boots profile debian by [boards.virt-1] profile"],
}  # fmt: skip

GOOD = {
    "number": 7, "began": at(0), "cause": "power", "registered": at(12),
    "diagnosis": {"place": "up", "stopped": False, "what": "registered after 12 s"},
    "phases": [{"name": "to-dhcp", "seconds": 2.0}, {"name": "loading", "seconds": 1.25}],
    "files": 2, "size_bytes": 9_123_768, "resent": 3,
    "requests": [
        {"at": at(2), "via": "dhcp", "name": "REQUEST", "outcome": "answered", "detail": "ACK 10.77.0.11 (U-Boot)",
         "client": "52:54:00:77:00:01"},
        {"at": at(3), "via": "tftp", "name": "pxelinux.cfg/01-52-54-00-77-00-01-and-more", "outcome": "missing",
         "times": 3},
        {"at": at(3.5), "via": "tftp", "name": "boot.scr.uimg", "outcome": "sent", "size_bytes": 312,
         "seconds": 0.004, "mb_per_s": 0.078},
        {"at": at(4), "via": "tftp", "name": "kernel.gz", "outcome": "sent", "role": "kernel",
         "size_bytes": 9_123_456, "seconds": 1.25, "mb_per_s": 7.299, "resent": 3},
    ],
}  # fmt: skip

STOPPED = {
    "number": 6, "began": at(-400), "cause": "seen", "ended": at(-10), "not_listed": 4,
    "diagnosis": {
        "place": "asked-in-vain", "stopped": True, "what": "the only file it asked for is not there: start4.elf",
        "evidence": ["these names are those of a Raspberry Pi's firmware"],
        "check": ["whether the board takes the file name from DHCP", "another thing"],
    },
    "missing": {"start4.elf": 2},
}  # fmt: skip


class NetbootAgents:
    """Agents that are a thread: each answers `netboot` by what its handler returns; None is no answer."""

    def __init__(self, port: int, agents: dict[str, Callable[[dict[str, Any]], Any]]) -> None:
        self.agents = agents
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self._port = port
        self._link = MqttConnection("127.0.0.1", port, f"netboot-{os.getpid()}-{port}")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="netboot agents")

    def announce(self, agent: str, boards: list[str] | None, state: str = "online") -> None:
        said = {"state": state, "session": 1, "since": at(0)}
        say(self._port, f"boardhand/agent/{agent}/state", json.dumps(said).encode(), retain=True)
        if boards is not None:
            info = {"version": "1", "contract": "1.0", "host": "h", "controllers": [], "boards": boards}
            say(self._port, f"boardhand/agent/{agent}/info", json.dumps(info).encode(), retain=True)

    def __enter__(self) -> "NetbootAgents":
        self._link.connect()
        self._link.subscribe("boardhand/agent/+/request/netboot")
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join(DEADLINE_S)
        self._link.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            message = self._link.receive(0.1)
            if message is None:
                continue
            agent = message.topic.split("/")[2]
            request = json.loads(message.payload)
            self.requests.append((agent, request["data"]))
            said = self.agents[agent](request["data"])
            if said is not None:
                answer = said if "ok" in said else {"ok": True, "data": said}
                payload = json.dumps({"transaction": request["transaction"], **answer}).encode()
                self._link.publish(f"boardhand/agent/{agent}/response/netboot", payload, wait=False)


def report(*boots: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"board": "virt-1", "served": SERVED, "boots": list(boots)} | more


def refusal(kind: str, message: str) -> dict[str, Any]:
    return {"ok": False, "error": {"kind": kind, "message": message}}


def test_a_board_is_explained_in_lines_and_as_json(server: int) -> None:
    with NetbootAgents(server, {"lab-1": lambda _: report(GOOD, STOPPED), "lab-2": lambda _: None}) as farm:
        farm.announce("lab-1", ["virt-1"])
        farm.announce("lab-2", ["other"])
        done = boardhand("netboot", "explain", "virt-1", port=server, PYTHONIOENCODING="utf-8", TZ="UTC")
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "virt-1 on agent lab-1",
            "  known by    52:54:00:77:00:01",
            "  address     10.77.0.11, from 10.77.0.1 on br-boards",
            "  profile     debian (arm64)",
            "  DHCP names  boot.scr.uimg to U-Boot; boot.ipxe to iPXE",
            "  kernel      kernel.gz: /srv/boot/Image.gz, 9.1 MB",
            "  dtb         dtb: /srv/boot/pi.dtb: CANNOT BE SENT, No such file or directory",
            "  made here   boot.scr.uimg, boot.ipxe, when they are asked for",
            "  cmdline     console=ttyAMA0 boardhand.board=virt-1 boardhand.agent=lab-1",
            "              boardhand.mqtt=10.77.0.1:1883 boardhand.prefix=boardhand boardhand.secret=…",
            "  why         it is known by its MAC addresses, [boards.virt-1] macs",
            "              it boots profile debian by [boards.virt-1] profile",
            "",
            "boot 7, 2026-11-21 12:00:00, switched on",
            "  registered after 12 s",
            "  to DHCP 2.0 s; loading 1.2 s",
            "     +2.00 s  DHCP  REQUEST                               ACK 10.77.0.11 (U-Boot)",
            "     +3.00 s  TFTP  pxelinux.cfg/01-52-54-00-77-00-01-and-more  NOT THERE  (3 times)",
            "     +3.50 s  TFTP  boot.scr.uimg                            312 B   0.00 s",
            "     +4.00 s  TFTP  kernel.gz                               9.1 MB    1.2 s    7.3 MB/s, 3 resent",
            "",
            "boot 6, 2026-11-21 11:53:20, heard; nobody saw it switched on",
            "  STOPPED: the only file it asked for is not there: start4.elf",
            "    and 4 more requests",
            "  because     these names are those of a Raspberry Pi's firmware",
            "  check       whether the board takes the file name from DHCP",
            "              another thing",
        ]
        document = json.loads(boardhand("netboot", "explain", "virt-1", "--boots", "2", "--json", port=server).stdout)
    assert (document["agent"], document["board"]) == ("lab-1", "virt-1")
    assert [boot["number"] for boot in document["boots"]] == [7, 6]
    assert document["boots"][0]["requests"][3]["mb_per_s"] == 7.299
    assert document["served"]["cmdline"].endswith("boardhand.secret=…")
    assert farm.requests == [
        ("lab-1", {"board": "virt-1", "boots": boots, "boards": ["virt-1"]}) for boots in (10, 2)
    ]  # fmt: skip


def test_a_long_answer_is_asked_for_in_parts(server: int) -> None:
    def part(data: dict[str, Any]) -> dict[str, Any]:
        return report(STOPPED) if data.get("after") == "7" else report(GOOD, next="7")

    with NetbootAgents(server, {"lab-1": part}) as farm:
        farm.announce("lab-1", ["virt-1"])
        document = json.loads(boardhand("netboot", "explain", "virt-1", "--json", port=server).stdout)
    assert [boot["number"] for boot in document["boots"]] == [7, 6]
    assert "next" not in document


def test_strangers_are_shown_where_a_board_is_not_heard(server: int) -> None:
    stranger = {
        "first_at": at(0),
        "last_at": at(5),
        "mac": "52:54:00:99:00:01",
        "times": 2,
        "vendor_class": "PXEClient",
    }
    with NetbootAgents(server, {"lab-1": lambda _: report(STOPPED, strangers=[stranger])}) as farm:
        farm.announce("lab-1", ["virt-1"])
        done = boardhand("netboot", "explain", "virt-1", port=server, TZ="UTC", PYTHONIOENCODING="ascii")
        assert "boardhand.secret=..." in done.stdout
        assert done.stdout.splitlines()[-1] == "  52:54:00:99:00:01  2 times, last 2026-11-21 12:00:05; PXEClient"
        farm.agents["lab-1"] = lambda _: report(GOOD, strangers=[stranger])
        assert "52:54:00:99" not in boardhand("netboot", "explain", "virt-1", port=server).stdout
        farm.agents["lab-1"] = lambda _: report()
        assert "no boots: " in boardhand("netboot", "explain", "virt-1", port=server).stdout


@pytest.mark.parametrize(
    ("said", "code", "words"),
    [
        (refusal("unknown-board", "agent lab-1 has no board virt-1"), Exit.NO_ANSWER, "unknown board virt-1"),
        (refusal("not-found", "there is no request netboot"), Exit.FAILED, "agent lab-1 is too old"),
        (refusal("internal", "a fault"), Exit.FAILED, "agent lab-1: a fault; look at the agent's log"),
    ],
)
def test_answers_that_explain_nothing(server: int, said: dict[str, Any], code: Exit, words: str) -> None:
    with NetbootAgents(server, {"lab-1": lambda _: said}) as farm:
        farm.announce("lab-1", None)
        done = boardhand("netboot", "explain", "virt-1", port=server)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("data", [{"board": "virt-1", "served": 7}, report(next="7")])
def test_an_answer_that_cannot_be_read_is_none(data: dict[str, Any]) -> None:
    with pytest.raises(PayloadError):
        goes_on(data)


def test_a_board_that_nobody_has_and_an_agent_that_is_lost(server: int) -> None:
    with NetbootAgents(server, {}) as farm:
        nobody = boardhand("netboot", "explain", "virt-1", port=server)
        farm.announce("lab-1", ["virt-1"], state="lost")
        lost = boardhand("netboot", "explain", "virt-1", "--json", port=server)
    assert nobody.returncode == lost.returncode == Exit.NO_ANSWER
    assert "unknown board virt-1: no agent" in nobody.stderr
    assert "board virt-1: agent lab-1 is lost" in lost.stderr
    assert json.loads(lost.stdout)["error"]["exit"] == Exit.NO_ANSWER


@pytest.mark.parametrize("line", [["explain"], ["fly", "a"], ["explain", "A/+"], ["explain", "a", "--boots", "11"]])
def test_wrong_lines(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["netboot", *line]) == Exit.USAGE
    assert capsys.readouterr().err.count("\n") == 1


def test_the_command_line_and_the_contract_agree_on_how_many_boots_there_are() -> None:
    assert MAX_BOOTS == wire_netboot.MAX_BOOTS


# --- the lines -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (123_456, "123 kB"),
        (4_600_000, "4.6 MB"),
        (2_500_000_000, "2.50 GB"),
    ],
)
def test_amounts(size: int, said: str) -> None:
    assert amount(size) == said


def test_durations() -> None:
    assert [duration(seconds) for seconds in (0.004, 8.71, 95.2)] == ["0.00 s", "8.7 s", "95 s"]


TEXT = st.text(max_size=200)


@given(TEXT, TEXT, st.sampled_from(RequestOutcome), st.sampled_from(RequestVia), st.integers(1, 10**6))
def test_whatever_a_board_asked_for_fits_the_screen(
    name: str, detail: str, outcome: RequestOutcome, via: RequestVia, times: int
) -> None:
    request = BootRequestInfo(
        at=NOON, via=via, name=name, outcome=outcome, detail=detail, times=times,
        size_bytes=10**12, seconds=10**6, mb_per_s=10.0**4, resent=10**9,
    )  # fmt: skip
    boot = BootReport.model_validate_json(json.dumps(STOPPED)).model_copy(update={"requests": [request]})
    served = Served(problem=name, cmdline=detail, why=[name])
    stranger = StrangerInfo(first_at=NOON, last_at=NOON, vendor_class=name, names=[detail])
    assert boot_lines(boot)
    for line in (*boot_lines(boot), *served_lines(served), *stranger_lines([stranger])):
        assert len(line) <= WIDTH
        assert line.isprintable()
