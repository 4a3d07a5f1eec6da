"""The listener for boards of `boardhand up`: when there is one, and what a stranger on it may not do."""

import socket
import subprocess
from pathlib import Path

import pytest

from board.client import MqttConnection
from cli import board_listener, private_mosquitto
from cli.exits import CliError, Exit
from tests.cli.farm_double import accepts, stop, wait_for
from tests.free_ports import free_port

BOARDS_HOST = "127.0.0.5"  # on every machine's loopback, and not the address of the farm's own listener


def settings_file(folder: Path, netboot: str) -> Path:
    path = folder / "farm.toml"
    path.write_text(f'[agent]\nname = "attic"\n{netboot}')
    return path


def netboot(host: str, port: int, address: str = f"{BOARDS_HOST}/8") -> str:
    return f'[netboot]\ninterface = "eth1"\naddress = "{address}"\nmqtt_for_boards = "{host}:{port}"\n'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[netboot",
        "netboot = 3",
        '[netboot]\ninterface = "eth1"\naddress = "127.0.0.5/8"\n',
        netboot("192.0.2.7", 1883),  # another server: not ours to give
        netboot("mqtt.example", 1883),
        netboot(BOARDS_HOST, 1883, address="not-an-address"),
        f'[netboot]\naddress = "{BOARDS_HOST}/8"\nmqtt_for_boards = "{BOARDS_HOST}:many"\n',
        f'[netboot]\naddress = "{BOARDS_HOST}/8"\nmqtt_for_boards = 7\n',
    ],
)
def test_without_a_promise_of_ours_there_is_none(tmp_path: Path, text: str) -> None:
    assert board_listener.wanted(settings_file(tmp_path, text), "boardhand") is None
    assert board_listener.wanted(tmp_path / "nothing.toml", "boardhand") is None


def test_an_address_that_is_not_there_is_named_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"192\.0\.2\.9:1883 is no address of this machine") as caught:
        board_listener.wanted(settings_file(tmp_path, netboot("192.0.2.9", 1883, "192.0.2.9/24")), "boardhand")
    assert caught.value.code is Exit.USAGE
    assert "ip address add 192.0.2.9/24 dev eth1" in caught.value.advice


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server((BOARDS_HOST, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(CliError, match=f"{BOARDS_HOST}:{port} is taken") as caught:
            board_listener.wanted(settings_file(tmp_path, netboot(BOARDS_HOST, port)), "boardhand")
    assert "--mqtt URL" in caught.value.advice


def test_whoever_is_on_the_boards_network_is_a_board_and_no_operator(tmp_path: Path) -> None:
    ours, theirs = free_port(), free_port()
    found = board_listener.wanted(settings_file(tmp_path, netboot(BOARDS_HOST, theirs)), "boardhand")
    assert found is not None
    child = subprocess.Popen(private_mosquitto.prepare(tmp_path, tmp_path / "mosquitto.log", ours, found))
    try:
        wait_for(lambda: accepts(ours), "the private Mosquitto accepts connections")
        with MqttConnection("127.0.0.1", ours, "agent") as agent, MqttConnection(BOARDS_HOST, theirs, "b") as board:
            agent.subscribe("boardhand/#")
            board.subscribe("boardhand/register/+")
            board.subscribe("boardhand/board/+/power/set")
            board.publish("boardhand/board/my-board/power/set", b"off")
            board.publish("boardhand/register", b"{}")
            heard = agent.receive(20)
            assert heard is not None
            assert heard.topic == "boardhand/register"  # and power/set, said before it, never came
            agent.publish("boardhand/board/my-board/power/set", b"on")
            agent.publish("boardhand/register/r1", b"yes")
            answer = board.receive(20)
            assert answer is not None
            assert answer.topic == "boardhand/register/r1"
    finally:
        stop(child)
