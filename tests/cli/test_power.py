"""`boardhand power` as a whole process, against a real Mosquitto and an agent that is a thread."""

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cli.exits import CliError, Exit, advice_of, exit_of
from cli.power import PowerRequest, fill, parse
from tests.cli.farm_double import (
    ROOT,
    AgentDouble,
    board_state,
    boardhand,
    boardhand_process,
    clean_environment,
    free_port,
    mosquitto,
    wait_for,
)
from wire.payloads import PowerCommand, decode
from wire.phases import ErrorKind


def result(command: dict[str, object], **changes: object) -> bytes:
    return json.dumps({"id": command["id"], "ok": True, "power": "on", "took_ms": 12.4} | changes).encode()


def failed(kind: str, text: str = "outlet 3 of hub-1 reads off") -> dict[str, object]:
    return {"ok": False, "power": "off", "error": {"kind": kind, "message": text}}


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("on", "virt-1 on (verified, 12 ms)\n"),
        ("off", "virt-1 off (verified, 12 ms)\n"),
        ("cycle", "virt-1 cycled, on (verified, 12 ms)\n"),
    ],
)
def test_action_is_verified_and_said(agent: AgentDouble, server: int, action: str, said: str) -> None:
    done = boardhand_process("power", "virt-1", action, port=server)
    assert (done.returncode, done.stdout, done.stderr) == (Exit.OK, said, "")
    ((board, payload),) = agent.commands
    command = decode(PowerCommand, payload)
    assert (board, command.power) == ("virt-1", action)
    assert command.id is not None
    assert command.expires is not None
    assert not command.force


def test_token_force_and_expiry_travel(agent: AgentDouble, server: int) -> None:
    done = boardhand(
        "power", "virt-1", "on", "--token=17", "--force", "--expires-s", "5", "--prefix", "boardhand", port=server
    )
    assert done.returncode == 0
    command = decode(PowerCommand, agent.commands[0][1])
    assert (command.token, command.force) == (17, True)


def test_json_is_one_document(agent: AgentDouble, server: int) -> None:
    done = boardhand("power", "virt-1", "on", "--json", port=server)
    assert json.loads(done.stdout) == {"board": "virt-1", "action": "on", "ok": True, "power": "on", "took_ms": 12.4}


def test_server_and_password_from_environment_and_full_parser(agent: AgentDouble, server: int) -> None:
    # Options before the command are the full parser's business; it must end in the same place.
    done = boardhand(
        "--mqtt", f"mqtt://127.0.0.1:{server}", "power", "virt-1", "off", BOARDHAND_MQTT="mqtt://127.0.0.1:1"
    )
    assert (done.returncode, done.stdout) == (0, "virt-1 off (verified, 12 ms)\n")


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("not-verified", Exit.FAILED),
        ("unreachable", Exit.FAILED),
        ("refused", Exit.FAILED),
        ("not-allowed", Exit.NOT_ALLOWED),
        ("expired", Exit.NO_ANSWER),
        ("unknown-board", Exit.NO_ANSWER),
        ("bad-request", Exit.USAGE),
        ("a-kind-of-2031", Exit.FAILED),
    ],
)
def test_error_kind_decides_exit_code(agent: AgentDouble, server: int, kind: str, code: Exit) -> None:
    agent.answer = lambda _, command: [result(command, **failed(kind))]
    done = boardhand_process("power", "virt-1", "on", port=server)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith(f"boardhand: virt-1 on failed ({kind}): outlet 3 of hub-1 reads off; it is off")
    assert done.stderr.count("\n") == 1


def test_every_error_kind_of_the_contract_has_advice() -> None:
    for kind in ErrorKind:
        assert advice_of(kind), kind
        assert exit_of(kind) is not Exit.OK


def test_failed_with_json_has_error_and_code(agent: AgentDouble, server: int) -> None:
    agent.answer = lambda _, command: [result(command, **failed("not-verified"))]
    done = boardhand("power", "virt-1", "on", "--json", port=server)
    document = json.loads(done.stdout)
    assert (done.returncode, document["ok"], document["error"]["kind"]) == (1, False, "not-verified")


def test_unknown_board_is_said_quickly_and_no_command_is_sent(agent: AgentDouble, server: int) -> None:
    done = boardhand("power", "nope", "on", port=server)
    assert done.returncode == Exit.NO_ANSWER
    assert "unknown board nope" in done.stderr
    assert agent.commands == []


def test_silent_agent_times_out_and_is_named(agent: AgentDouble, server: int) -> None:
    agent.answer = lambda *_: []
    done = boardhand("power", "virt-1", "on", "--timeout-s", "0.4", port=server)
    assert done.returncode == Exit.NO_ANSWER
    assert "agent lab-1 did not answer for virt-1 within 0.4 s" in done.stderr


def test_lost_agent_is_said_without_waiting_for_the_timeout(agent: AgentDouble, server: int) -> None:
    agent.answer = lambda *_: []
    agent.retain("agent/lab-1/state", {"state": "lost", "session": 1, "since": "2026-11-20T10:00:00Z"})
    done = boardhand("power", "virt-1", "on", port=server)  # its own time limit is 60 s, the helper's too
    assert done.returncode == Exit.NO_ANSWER
    assert "agent lab-1, which has virt-1, is lost" in done.stderr


def test_server_that_is_not_there() -> None:
    done = boardhand_process("power", "virt-1", "on", port=free_port())
    assert done.returncode == Exit.UNREACHABLE
    assert "MQTT server 127.0.0.1:" in done.stderr
    assert "Traceback" not in done.stderr


def test_server_that_speaks_something_else() -> None:
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        child = subprocess.Popen(
            [sys.executable, "-m", "cli", "power", "virt-1", "on"],
            env=clean_environment(BOARDHAND_MQTT=f"mqtt://127.0.0.1:{stranger.getsockname()[1]}"),
            stderr=subprocess.PIPE,
            text=True,
        )
        stranger.settimeout(60)
        taken, _ = stranger.accept()
        taken.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        taken.close()
        _, said = child.communicate(timeout=60)
    assert child.returncode == Exit.UNREACHABLE
    assert said.startswith("boardhand: MQTT server")


def test_wrong_password_is_not_reachable_and_right_one_works(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("open sesame\n")
    passwords = tmp_path / "passwords"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(passwords), "me", "open sesame"], check=True, capture_output=True
    )
    passwords.chmod(0o644)
    tmp_path.chmod(0o755)
    extra = f"allow_anonymous false\nuser root\npassword_file {passwords}\n"
    with mosquitto(tmp_path / "m", extra=extra) as port:
        wrong = boardhand("power", "virt-1", "on", port=port)
        right = boardhand("power", "virt-1", "on", "--username", "me", "--password-file", str(secret), port=port)
    assert wrong.returncode == Exit.UNREACHABLE
    assert "--username" in wrong.stderr
    assert right.returncode == Exit.NO_ANSWER  # connected; no such board
    assert "sesame" not in wrong.stderr + right.stderr


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'"on"',
        b'{"id": 7, "ok": true, "power": "on", "took_ms": 1}',
        b'{"id": "somebody-else", "ok": true, "power": "on", "took_ms": 1}',
        b'{"id": null, "ok": true}',
    ],
)
def test_foreign_and_broken_results_pass_by(agent: AgentDouble, server: int, noise: bytes) -> None:
    agent.answer = lambda _, command: [noise, result(command)]
    assert boardhand("power", "virt-1", "on", port=server).stdout == "virt-1 on (verified, 12 ms)\n"


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"ok": "yes"}, "ok"), ({"ok": None}, "ok"), ({"power": "maybe"}, "power"), ({"power": {"a": 1}}, "power")],
)
def test_own_result_with_wrong_types_names_the_key(
    agent: AgentDouble, server: int, changes: dict[str, object], key: str
) -> None:
    agent.answer = lambda _, command: [result(command, **changes)]
    done = boardhand("power", "virt-1", "on", port=server)
    assert done.returncode == Exit.FAILED
    assert f"wrong '{key}'" in done.stderr


def test_result_cannot_steer_the_terminal(agent: AgentDouble, server: int) -> None:
    agent.answer = lambda _, command: [result(command, **failed("refused\x1b]0;x\x07", "\x1b[2Jgone\nline two"))]
    done = boardhand("power", "virt-1", "on", port=server)
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_retained_result_is_not_taken_for_an_answer(agent: AgentDouble, server: int) -> None:
    agent.retain("board/virt-1/power/result", {"id": "old", "ok": True, "power": "on", "took_ms": 1})
    assert boardhand("power", "virt-1", "off", port=server).stdout == "virt-1 off (verified, 12 ms)\n"


def test_status_tells_the_retained_state(agent: AgentDouble, server: int) -> None:
    agent.retain("board/virt-1/state", board_state(power="on", target="off", phase="fault", reason="hub-1 lies"))
    done = boardhand("power", "virt-1", "status", port=server)
    assert done.stdout == ("virt-1 on, asked for off, fault (hub-1 lies) since 2026-11-20T10:00:00Z, agent lab-1\n")
    assert json.loads(boardhand("power", "virt-1", "status", "--json", port=server).stdout)["agent_state"] == "online"
    assert agent.commands == []


def test_status_of_a_lost_agents_board_is_unknown(agent: AgentDouble, server: int) -> None:
    agent.retain("board/virt-1/state", board_state(power="on", phase="ready"))
    agent.retain("agent/lab-1/state", {"state": "lost", "session": 1, "since": "2026-11-20T10:00:00Z"})
    done = boardhand("power", "virt-1", "status", port=server)
    assert done.stdout.startswith("virt-1 unknown, ready since")
    assert done.stdout.endswith("agent lab-1 is lost\n")


def test_status_of_an_older_session_is_unknown(agent: AgentDouble, server: int) -> None:
    agent.retain("agent/lab-1/state", {"state": "online", "session": 2, "since": "2026-11-20T10:00:00Z"})
    assert boardhand("power", "virt-1", "status", port=server).stdout.startswith("virt-1 unknown, ")


@pytest.mark.parametrize("state", [[], {}, 7, "maybe"])
def test_hostile_agent_state_is_silence(agent: AgentDouble, server: int, state: object) -> None:
    agent.retain("agent/lab-1/state", {"state": state})
    assert boardhand("power", "virt-1", "status", port=server).stdout.endswith("agent lab-1 is silent\n")


def test_broken_state_is_an_error_not_a_traceback(agent: AgentDouble, server: int) -> None:
    agent.retain("board/virt-1/state", b"{not json")
    done = boardhand("power", "virt-1", "on", port=server)
    assert done.returncode == Exit.FAILED
    assert "the state of virt-1" in done.stderr


def test_ctrl_c_is_130(agent: AgentDouble, server: int) -> None:
    agent.answer = lambda *_: []
    child = subprocess.Popen(
        [sys.executable, "-m", "cli", "power", "virt-1", "on"],
        env=clean_environment(BOARDHAND_MQTT=f"mqtt://127.0.0.1:{server}"),
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: agent.commands, "the command arrives")
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == Exit.INTERRUPTED
    assert said.startswith("boardhand: interrupted; a power command that was sent may still be carried out")


@pytest.mark.parametrize(
    "arguments",
    [
        ("virt-1", "explode"),
        ("virt-1",),
        ("VIRT", "on"),
        ("virt-1/+", "on"),
        ("#", "on"),
        ("virt-1", "on", "--token", "0"),
        ("virt-1", "on", "--token", "x"),
        ("virt-1", "on", "--timeout-s", "nan"),
        ("virt-1", "on", "--expires-s=-1"),
        ("virt-1", "on", "--bogus"),
        ("virt-1", "on", "--mqtt", "http://x"),
        ("virt-1", "on", "--mqtt", "mqtt://x:99999"),
        ("virt-1", "on", "--prefix", "a/#"),
        ("virt-1", "on", "--username", "u", "--password-file", "/nonexistent/file"),
        ("virt-1", "on", "--password-file", "/nonexistent/file"),
        ("virt-1", "on", "--mqtt", "mqtts://127.0.0.1:1", "--ca-file", "/nonexistent/ca.pem"),
    ],
)
def test_wrong_command_lines_are_one_line_and_exit_2(arguments: tuple[str, ...]) -> None:
    done = boardhand("power", *arguments)
    assert done.returncode == Exit.USAGE
    assert done.stderr.startswith("boardhand: ")
    assert done.stderr.count("\n") == 1


def test_debug_shows_the_traceback() -> None:
    done = boardhand_process("power", "virt-1", "on", "--debug", port=free_port())
    assert "Traceback" in done.stderr
    assert "CliError" in done.stderr


def test_fast_and_full_parser_agree() -> None:
    from cli.command_line import build

    line = ["virt-1", "on", "--token", "3", "--timeout-s=7", "--force", "--json", "--prefix", "p"]
    fast = parse(line)
    assert fast is not None
    args = build().parse_args(["power", *line])
    full = fill(
        PowerRequest(args.board, args.action),
        {name: getattr(args, name) for name in ("token", "timeout_s", "expires_s")},
        {"--json", "--force"},
    )
    assert {name: getattr(fast[0], name) for name in PowerRequest.__slots__} == {
        name: getattr(full, name) for name in PowerRequest.__slots__
    }
    assert fast[1]["prefix"] == args.prefix


@pytest.mark.parametrize("line", [["--help"], ["-h"], ["virt-1", "on", "--json=1"], ["virt-1", "on", "--token"], ["a"]])
def test_unusual_lines_go_to_the_full_parser(line: list[str]) -> None:
    assert parse(line) is None


def test_action_is_checked_before_anything_is_sent() -> None:
    with pytest.raises(CliError, match="no power action"):
        PowerRequest("virt-1", "status; reboot")


def test_fast_path_imports_nothing_heavy(agent: AgentDouble, server: int) -> None:
    heavy = (
        "pydantic",
        "paho",
        "asyncio",
        "rich",
        "argparse",
        "typing",
        "dataclasses",
        "pathlib",
        "ssl",
        "wire",
        "logging",
    )
    code = (
        "import sys; from cli.main import main; code = main(['power', 'virt-1', 'on']);"
        f"found = sorted(set({heavy!r}) & {{name.partition('.')[0] for name in sys.modules}});"
        "print(code, found)"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); " + code],
        env=clean_environment(BOARDHAND_MQTT=f"mqtt://127.0.0.1:{server}"),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "virt-1 on (verified, 12 ms)\n0 []\n"
