"""From an empty machine to a working farm by the README alone. `make test-shelf` runs it: it needs root, the package
(`make deb`) and a clean Debian root (`tests.packaging.clean_root`).

The shelf is `tests.shelf.shelf`. What the README leaves to its reader, the network driver's name, is filled in here;
the kernel and busybox come from this machine's cache, because the machine has no way out. Nothing else is.
"""

import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_tools.debian_packages import cache_dir
from tests.packaging.clean_root import clean_root
from tests.packaging.machine import PATIENCE_S, Machine
from tests.shelf.shelf import MAC_OF_OUTLET

ROOT = Path(__file__).resolve().parents[2]
HOME = "/root"
"""In the machine."""
LEARN_S, JOB_S = 900, 300
"""Emulated boards on a busy machine."""
pytestmark = pytest.mark.timeout(1800)


def blocks() -> Iterator[tuple[str, str]]:
    """Language and text of each block of the section, in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## A shelf full of boards") :]
    section = section[: section.index("\n## ")]
    for language, block in re.findall(r"^ *```([a-z]+)\n(.*?)^ *```", section, re.DOTALL | re.MULTILINE):
        yield language, textwrap.dedent(block)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    (package,) = (ROOT / "dist").glob("boardhand_*.deb")
    root = tmp_path / "root"
    root.mkdir()
    for folder in (tmp_path, tmp_path.parent):
        folder.chmod(0o755)
    subprocess.run(
        ["tar", "-x", "-f", clean_root(cache_dir()), "-C", root, "--exclude=./dev/*"], check=True, timeout=120
    )
    made = Machine(root, card=False)
    (root / HOME[1:] / "dist").mkdir()
    (root / HOME[1:] / "dist" / package.name).write_bytes(package.read_bytes())
    made.show(cache_dir(), f"{HOME}/.cache/boardhand")
    (root / "etc/apt/apt.conf.d/yes").write_text('APT::Get::Assume-Yes "true";\n')  # what its owner would type
    yield made
    made.close()


@pytest.fixture
def shelf(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("s")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.shelf.shelf", str(folder), f"/proc/{machine.inner}/ns/net"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    yield
    process.communicate(timeout=PATIENCE_S)


def until_line(child: subprocess.Popen[str], wanted: str) -> None:
    assert child.stdout is not None
    said = ""
    for line in child.stdout:
        said += line
        if wanted in line:
            return
    raise AssertionError(f"it ended without {wanted!r}: {said}")


@pytest.mark.usefixtures("shelf")
def test_from_an_empty_machine_to_work_by_the_readme(machine: Machine) -> None:
    home = machine.root / HOME[1:]
    commands = 0
    said: dict[str, str] = {}
    for language, block in blocks():
        if language in {"toml", "yaml"}:
            name = re.match(r"# (\S+)\n", block)
            assert name is not None
            (home / name[1]).write_text(block)
            continue
        for line in block.splitlines():
            commands += 1
            command = line.replace("YOUR_NETWORK_DRIVER", "virtio_net")
            if " up " in command and command.startswith("boardhand"):
                until_line(machine.begin("sh", "-c", f"cd && exec {command}"), "ready: ")
                continue
            # Patient with what boots emulated boards; the others take seconds.
            words = command.split()[1]
            child = machine.begin("sh", "-c", f"cd && {command}")
            said[words], _ = child.communicate(timeout={"learn": LEARN_S, "submit": JOB_S}.get(words, PATIENCE_S * 2))
            assert child.returncode == 0, f"{command}: {child.returncode}\n{said[words]}"

    numbers = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    assert f"in {numbers[commands]}\ncommands and two files" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert "PDUs and PoE switches: 1" in said["discover"]
    settings = tomllib.loads((home / "farm.toml").read_text())
    (pdu,) = settings["controllers"]
    learnt = {tuple(board["feed"]): board for board in settings["boards"].values()}
    assert {feed: board["macs"] for feed, board in learnt.items()} == {
        (f"{pdu}:{outlet}",): [mac] for outlet, mac in MAC_OF_OUTLET.items()
    }
    assert {board["profile"] for board in learnt.values()} == {"debian"}
    for outlet in ("1", "2", "4", "5", "7", "8"):
        assert re.search(rf"{pdu}:{outlet}: unknown, because .*nothing is there", said["learn"])
    assert said["agent"].count(" added") == len(MAC_OF_OUTLET)
    assert "aarch64" in said["submit"]
    assert machine.run("sh", "-c", "cd && boardhand check farm.toml").startswith("farm.toml: ")
