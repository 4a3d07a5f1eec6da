"""How other commands find the farm of `boardhand up`, and what they refuse to believe."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import farm_file
from cli.exits import CliError, Exit
from cli.farm_file import FarmFileError
from cli.farm_publish import FarmFile
from cli.target import ENVIRONMENT, resolve


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"XDG_RUNTIME_DIR": str(tmp_path)}


@pytest.fixture
def held(environment: dict[str, str]) -> Iterator[Path]:
    """A file as a running `up` holds it, whose content and mode a test may change."""
    path = Path(farm_file.path(environment))
    path.parent.mkdir(mode=0o700)
    path.write_text(json.dumps({"url": "mqtt://127.0.0.1:4711", "prefix": "lab"}))
    path.chmod(0o600)
    with path.open("r+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield path


def test_written_found_and_taken_back(environment: dict[str, str]) -> None:
    assert farm_file.read(environment) is None
    farm = FarmFile(environment)
    farm.write("mqtt://127.0.0.1:4711", "lab", "/state")
    found = resolve({}, environment)
    assert (found.host, found.port, found.prefix, found.source) == (
        "127.0.0.1", 4711, "lab", "boardhand up on this machine",
    )  # fmt: skip
    assert Path(farm_file.path(environment)).stat().st_mode & 0o777 == 0o600
    with pytest.raises(FarmFileError, match="another farm of yours is running at mqtt://127"):
        FarmFile(environment).write("mqtt://127.0.0.1:1", "other", "/other")
    farm.remove()
    farm.remove()
    assert list(Path(farm_file.path(environment)).parent.iterdir()) == []


def test_what_a_kill_9_left_behind_counts_as_absent(environment: dict[str, str], held: Path) -> None:
    assert farm_file.read(environment) == {"url": "mqtt://127.0.0.1:4711", "prefix": "lab"}
    text = held.read_text()
    held.unlink()
    held.write_text(text)
    held.chmod(0o600)
    assert farm_file.read(environment) is None
    assert resolve({}, environment).url == "mqtt://127.0.0.1:1883"


def test_options_and_environment_come_first(environment: dict[str, str], held: Path) -> None:
    by_environment = environment | {ENVIRONMENT["mqtt"]: "mqtts://there"}
    assert resolve({}, by_environment).port == 8883
    assert resolve({"mqtt": "mqtt://here:5"}, by_environment).host == "here"
    assert resolve({"prefix": "mine"}, environment).prefix == "mine"


@pytest.mark.parametrize("mode", [0o604, 0o620, 0o666])
def test_a_file_open_to_others_is_refused(environment: dict[str, str], held: Path, mode: int) -> None:
    held.chmod(mode)
    with pytest.raises(CliError, match="open to other users") as caught:
        resolve({}, environment)
    assert caught.value.code is Exit.USAGE


def test_a_file_of_somebody_else_is_refused(
    environment: dict[str, str], held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    with pytest.raises(FarmFileError, match=f"belongs to user {mine}"):
        farm_file.read(environment)


def test_links_and_pipes_are_refused(environment: dict[str, str], held: Path, tmp_path: Path) -> None:
    held.unlink()
    held.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FarmFileError, match="cannot be read"):
        farm_file.read(environment)
    held.unlink()
    os.mkfifo(held, 0o600)
    with pytest.raises(FarmFileError, match="no plain file"):
        farm_file.read(environment)


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"url": 7}', "\0", '{"url": "http://evil"}'])
def test_broken_content_is_refused(environment: dict[str, str], held: Path, text: str) -> None:
    held.write_text(text)
    with pytest.raises(CliError) as caught:
        resolve({}, environment)
    assert caught.value.code is Exit.USAGE


def test_a_folder_that_others_can_write_is_refused(environment: dict[str, str]) -> None:
    folder = Path(farm_file.folder(environment))
    folder.mkdir(mode=0o700)
    folder.chmod(0o777)
    with pytest.raises(FarmFileError, match="only you can write"):
        FarmFile(environment).write("mqtt://127.0.0.1:1", "p", "/s")


def test_without_a_runtime_folder_there_is_one_per_user(tmp_path: Path) -> None:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path / "gone"), "TMPDIR": str(tmp_path)}
    assert farm_file.folder(environment) == f"{tmp_path}/boardhand-{os.geteuid()}"
