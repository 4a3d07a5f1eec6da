"""The manual, --json of everything, and how the command behaves around the edges."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli.command_table import COMMANDS
from cli.exits import Exit
from cli.main import main
from cli.target import ENVIRONMENT
from tests.cli.farm_double import AgentDouble, BrokerDouble, boardhand, clean_environment, free_port


def test_manual_names_every_command_variable_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"\n    {name} " in text
        assert command.summary.split()[0] in text
    for variable in ENVIRONMENT.values():
        assert variable in text
    for code in Exit:
        assert f" {int(code)}  " in text
    assert "boardhand power virt-1 on" in text


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_a_page_with_json_and_server_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: boardhand {name}")
    for option in ("--json", "--debug", "--mqtt", "--prefix", "--username", "--password-file", "--ca-file",
                   "--client-cert", "--client-key"):  # fmt: skip
        assert option in text
    assert "JSON" in COMMANDS[name].description or name in {"agent", "broker"}


@pytest.mark.parametrize(
    "line", [[], ["fly"], ["boards", "--bogus"], ["events", "--count", "0"], ["events", "--follow", "--count", "1"],
             ["up", "--idle-s", "-1"], ["jobs", "--state", "asleep"], ["boards", "--for-s", "inf"]]
)  # fmt: skip
def test_wrong_lines_are_one_line_and_exit_2(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line) == Exit.USAGE
    said = capsys.readouterr().err
    assert said.startswith("boardhand: ")
    assert said.count("\n") == 1
    assert "--help" in said


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("boardhand ")


def test_json_of_everything_can_be_parsed(agent: AgentDouble, server: int, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("name: x\nsteps: [a]\n")
    settings = tmp_path / "bad.toml"
    settings.write_text("[mqtt]\nurl = 7\n")
    handlers = {
        "submit": lambda _: {"job": "job-1"},
        "jobs": lambda _: {"jobs": []},
        "logs": lambda data: {"chunks": [], "next": data["from_chunk"], "ended": True},
        "cancel": lambda _: {},
        "sleep": lambda _: {},
        "wake": lambda _: {},
    }
    commands = [
        ["boards"], ["boards", "--watch", "--for-s", "0.4"], ["events", "--for-s", "0.2"],
        ["power", "virt-1", "status"],
        ["power", "virt-1", "on"], ["power", "nope", "on"], ["submit", str(job)], ["jobs"], ["logs", "job-1"],
        ["cancel", "job-1"], ["sleep", "virt-1"], ["wake", "virt-1"], ["check", str(settings)], ["check", "/none"],
        ["serial"], ["udev", "rules", "b=ttyNONE"], ["fly"], ["boards", "--mqtt", f"mqtt://127.0.0.1:{free_port()}"],
    ]  # fmt: skip
    with BrokerDouble(server, handlers):
        for command in commands:
            done = boardhand(*command, "--json", port=server)
            documents = [json.loads(line) for line in done.stdout.splitlines()]
            assert "Traceback" not in done.stderr, command
            if done.returncode != 0:
                assert documents[-1]["error"]["exit"] == done.returncode, command
            elif command[0] not in {"events", "logs"}:
                assert documents, command


def test_check_takes_a_good_file_and_names_the_line_of_a_bad_one(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text('[mqtt]\nurl = "mqtt://127.0.0.1"\nprefix = "a b"\n')
    done = boardhand("check", str(bad))
    assert done.returncode == Exit.USAGE
    assert "bad.toml:3" in done.stderr
    good = tmp_path / "good.toml"
    good.write_text(f'[agent]\nname = "lab-1"\nstate_dir = "{tmp_path}"\n[mqtt]\nurl = "mqtt://127.0.0.1"\n')
    done = boardhand("check", str(good))
    assert done.returncode == 0, done.stderr
    assert "agent and broker would take it" in done.stdout
    good.write_text('[mqtt]\nurl = "mqtt://127.0.0.1"\n')
    assert json.loads(boardhand("check", str(good), "--json").stdout) == {"ok": True, "checked": ["broker"]}


@pytest.mark.parametrize("daemon", ["agent", "broker"])
def test_daemons_say_what_is_wrong_with_their_settings(daemon: str, tmp_path: Path) -> None:
    assert boardhand(daemon, "--settings", "/nonexistent").returncode == Exit.USAGE
    assert boardhand(daemon).returncode == Exit.USAGE
    bad = tmp_path / "bad.toml"
    bad.write_text('[agent]\nname = "lab-1"\nstate_dir = "/tmp"\n[mqtt]\nurl = 7\n')
    done = boardhand(daemon, "--settings", str(bad))
    assert done.returncode == Exit.USAGE
    assert "bad.toml:5" in done.stderr


def test_reader_that_leaves_early_is_no_traceback(agent: AgentDouble, server: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "cli", "--help"], env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.close()
    assert child.stderr is not None
    assert child.stderr.read() == b""
    child.stderr.close()
    child.wait(60)


def test_internal_fault_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("cli.power.main", broken)
    assert main(["power", "virt-1", "on"]) == Exit.FAILED
    assert capsys.readouterr().err == (
        "boardhand: internal fault: RuntimeError: boom; run it again with --debug and report it\n"
    )
    with pytest.raises(RuntimeError):
        main(["power", "virt-1", "on", "--debug"])


def test_serial_and_udev_rules_from_a_sysfs_tree(tmp_path: Path) -> None:
    device = tmp_path / "devices/pci0000:00/0000:00:14.0/usb1/1-1"
    interface = device / "1-1:1.0"
    port = interface / "ttyUSB0"
    (port / "tty" / "ttyUSB0").mkdir(parents=True)
    for name, text in (("idVendor", "0403"), ("idProduct", "6001"), ("serial", "A5XK3RJT"), ("devpath", "1")):
        (device / name).write_text(text + "\n")
    (interface / "bInterfaceNumber").write_text("00\n")
    (tmp_path / "class/tty").mkdir(parents=True)
    (tmp_path / "class/tty/ttyUSB0").symlink_to(port / "tty" / "ttyUSB0")
    (port / "tty" / "ttyUSB0" / "device").symlink_to(port)
    for where, kind in ((device, "usb"), (interface, "usb"), (port, "usb-serial")):
        (tmp_path / "bus" / kind).mkdir(parents=True, exist_ok=True)
        (where / "subsystem").symlink_to(tmp_path / "bus" / kind)
    ports = json.loads(boardhand("serial", "--sysfs", str(tmp_path), "--json").stdout)["ports"]
    assert [(found["name"], found["vendor"], found["serial"]) for found in ports] == [("ttyUSB0", "0403", "A5XK3RJT")]
    rules = boardhand("udev", "rules", "board-1=ttyUSB0", "--sysfs", str(tmp_path))
    assert rules.returncode == 0, rules.stderr
    assert 'SYMLINK+="boards/board-1-console"' in rules.stdout
    for word in ("board-1", "board-1=ttyUSB9", "board-1:laser=ttyUSB0", "UP=ttyUSB0"):
        assert boardhand("udev", "rules", word, "--sysfs", str(tmp_path)).returncode == Exit.USAGE
