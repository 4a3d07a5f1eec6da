"""The rules of the house, held by machines: linters, arrows between rooms, sizes, dependencies, set-up scripts."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import agent.settings
import broker.settings

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
TOOLS = Path(sysconfig.get_path("scripts"))
NOT_OURS = {".git", ".venv", ".cache", "__pycache__", "dist", "htmlcov"}  # and every folder that ends in _cache

LINE_LIMIT = 400
LONG_FILES = {
    "board/client.py": "one file by design, so that it can be copied alone into an initramfs",
}
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def our_files(*suffixes: str) -> Iterator[Path]:
    """All files of the work tree that are or could be tracked, with one of `suffixes` if any are given."""
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in NOT_OURS and not name.endswith(("_cache", ".egg-info"))]
        folders[:] = [name for name in folders if name != ".hypothesis"]
        for name in files:
            if not suffixes or name.endswith(suffixes):
                yield Path(folder, name)


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- linters ----------------------------------------------------------------------------------------------------

LINTERS = {
    "ruff-check": ["ruff", "check", "."],
    "ruff-format": ["ruff", "format", "--check", "."],
    "mypy": ["mypy"],
    "import-linter": ["lint-imports"],
}


@pytest.mark.parametrize("linter", LINTERS)
def test_linter(linter):
    program, *arguments = LINTERS[linter]
    done = subprocess.run(
        [TOOLS / program, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


# --- files and rooms --------------------------------------------------------------------------------------------


def test_no_file_is_long_without_a_reason():
    lengths = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in our_files(".py")}
    long = {name: lines for name, lines in lengths.items() if lines > LINE_LIMIT}
    assert long.keys() - LONG_FILES.keys() == set(), f"split these, or say in LONG_FILES why not: {long}"
    assert LONG_FILES.keys() - long.keys() == set(), "these are listed in LONG_FILES and are not long"


def test_the_generated_documents_are_current():
    checked = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "render.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr


def test_no_cancellation_is_swallowed():
    """`asyncio.wait_for` of Python 3.11 drops a cancellation that comes with the result: a stop then never ends."""
    found = [named(path) for path in our_files(".py") if "asyncio.wait_for" + "(" in path.read_text(encoding="utf-8")]
    assert [name for name in found if not name.startswith("tests/")] == []


def test_no_module_has_a_name_that_says_nothing():
    assert [named(path) for path in our_files(".py") if path.stem in VAGUE_NAMES] == []


def test_the_rooms_are_the_same_everywhere():
    """A room that one list has forgotten is not checked, not measured or not shipped."""
    tool = PROJECT["tool"]
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert set(ROOMS) == folders
    assert (
        tool["mypy"]["packages"] == tool["importlinter"]["root_packages"] == tool["coverage"]["run"]["source"] == ROOMS
    )
    shipped = tool["hatch"]["build"]["targets"]["sdist"]["include"]
    assert {f"/{room}" for room in ROOMS} <= set(shipped)


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_is_lived_in(room):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    modules = [path for path in (ROOT / room).rglob("*.py") if path.name != "__init__.py"]
    assert any(isinstance(node, kinds) for path in modules for node in ast.parse(path.read_bytes()).body)
    assert (ROOT / room / "py.typed").exists()


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_tests(room):
    assert list((ROOT / "tests" / room).rglob("test_*.py"))


# Written in pieces, so that this file does not find itself.
REGISTRIES = ["pypi" + ".org", "pythonhosted" + ".org", "npmjs" + ".org", "deb.debian" + ".org", "docker" + ".io"]
HOST_PATHS = ["/" + "work/", "/" + r"home/[a-z]", "/" + r"root/\.", "/" + r"Users/[A-Za-z]", r"\.py" + r"env\b"]


def test_nothing_names_a_machine_or_a_registry():
    """What is found on one machine is not there on the next; where packages come from is its owner's business."""
    # a path or host of its own, not the end of a longer one such as `{prefix}/board/{board}/work/result`
    pattern = re.compile(
        "|".join([*(re.escape(name) for name in REGISTRIES), *(rf"(?<![\w}}>*+.-]){path}" for path in HOST_PATHS)])
    )
    found = []
    for path in our_files():
        if b"\0" in (content := path.read_bytes()):
            continue
        text = content.decode("utf-8", "replace")
        found += [f"{named(path)}: {match[0]}" for match in pattern.finditer(text)]
        if str(ROOT) in text and len(ROOT.parts) > 2:
            found.append(f"{named(path)}: {ROOT}")
    assert found == []


# --- dependencies -----------------------------------------------------------------------------------------------

COMES_WITH = {
    "pydantic_core": "pydantic",  # its schemas and errors are part of pydantic's public interface
    "annotated_types": "pydantic",  # what pydantic's constraints are made of
    "yarl": "aiohttp",  # its URL is part of aiohttp's public interface
}
ON_THE_CABLE = {"machine", "micropython", "power_cable"}
"""What the power cable's firmware imports on its own board."""
LOADED_BY_OTHERS = {
    "cryptography": "pysnmp loads it for the privacy of SNMPv3",
    "wsproto": "uvicorn loads it for WebSockets",
}


def plain_name(requirement: str) -> str:
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def foreign_imports(folders: list[str]) -> dict[str, str]:
    """The distribution of every import that is neither ours nor the standard library's, with a file that has it."""
    distributions = packages_distributions()
    found = {}
    for path in (path for path in our_files(".py") if path.relative_to(ROOT).parts[0] in folders):
        for node in ast.walk(ast.parse(path.read_bytes())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module or ""]
            for top in (
                {module.partition(".")[0] for module in modules}
                - {*ROOMS, *ON_THE_CABLE, "tests", "bench"}
                - sys.stdlib_module_names
            ):
                name = COMES_WITH.get(top) or distributions.get(top, [top])[0]
                found[plain_name(name)] = named(path)
    return found


def test_every_foreign_import_is_declared_and_every_dependency_is_used():
    declared = {plain_name(entry) for entry in PROJECT["project"]["dependencies"]}
    extras = PROJECT["project"]["optional-dependencies"]
    optional = {plain_name(entry) for name, entries in extras.items() if name != "dev" for entry in entries}
    imported = foreign_imports(ROOMS)
    undeclared = {name: where for name, where in imported.items() if name not in declared | optional}
    assert undeclared == {}
    assert optional - imported.keys() == set(), "an extra that nobody imports"
    assert declared - imported.keys() - LOADED_BY_OTHERS.keys() == set(), "declared, and nobody imports it"


def test_one_settings_file_serves_both_daemons():
    """A table that the other daemon does not know would stop it."""
    ours, theirs = set(agent.settings.AgentSettings.model_fields), set(broker.settings.BrokerSettings.model_fields)
    assert ours - theirs == set(broker.settings.OTHER_TABLES)
    assert theirs - ours == set(agent.settings.OTHER_TABLES)


def test_what_the_tests_import_is_declared_too():
    project = PROJECT["project"]
    declared = {plain_name(entry) for entry in project["dependencies"] + project["optional-dependencies"]["dev"]}
    imported = foreign_imports(["tests", "bench"])
    assert {name: where for name, where in imported.items() if name not in declared} == {}


def test_the_boards_room_needs_nothing_but_python():
    assert foreign_imports(["board"]) == {}


# --- set-up scripts ---------------------------------------------------------------------------------------------

SCRIPTS = {"install-packages": "sh", ".ci/run": "bash", ".ci/target": "bash"}


@pytest.mark.parametrize(("script", "shell"), SCRIPTS.items())
def test_a_script_can_be_run(script, shell):
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert shell in path.read_text(encoding="utf-8").splitlines()[0]
    subprocess.run([shell, "-n", path], check=True, timeout=60)


def make_targets() -> list[str]:
    (line,) = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    return line.split()


def test_make_has_the_targets_that_are_promised():
    assert {"demo", "test", "lint", "bench", "docs", "clean"} <= set(make_targets())


@pytest.mark.parametrize("target", make_targets())
def test_make_can_read_its_file(target):
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.fixture
def install_packages(tmp_path):
    """Runs a copy of the script with stand-ins for the programs that would look at or change this machine."""
    shutil.copy(ROOT / "install-packages", tmp_path)
    programs = tmp_path / "bin"
    programs.mkdir()
    log = tmp_path / "apt.calls"
    stand_ins = {
        "apt-get": f'echo "$@" >>{log}; exit "${{APT_EXIT:-0}}"',
        "dpkg-query": '[ "$4" != "${INSTALLED:-}" ] || printf "install ok installed"',
        "id": 'echo "${USER_ID:-0}"',
    }
    for name, body in stand_ins.items():
        (programs / name).write_text(f"#!/bin/sh\n{body}\n")
        (programs / name).chmod(0o755)

    def run(*arguments: str, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        log.write_text("")
        done = subprocess.run(
            [tmp_path / "install-packages", *arguments],
            env={"PATH": f"{programs}:{os.environ['PATH']}", "PYTHON": sys.executable} | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return done, log.read_text().splitlines()

    return run


def test_without_root_missing_packages_are_named_with_the_command(install_packages):
    done, calls = install_packages("demo", USER_ID="1000")
    assert done.returncode == 1
    assert calls == []
    (line,) = done.stderr.splitlines()
    assert "mosquitto" in line
    assert "sudo apt-get install" in line


def test_root_installs_what_is_missing_and_only_that(install_packages):
    done, (update, install) = install_packages(INSTALLED="mosquitto")
    assert done.returncode == 0, done.stderr
    assert update.endswith("update")
    assert "--no-install-recommends" in install
    words = install.split()
    assert "qemu-system-arm" in words
    assert "mosquitto-clients" in words
    assert "mosquitto" not in words
    assert len(done.stdout.splitlines()) == 1


def test_a_failed_installation_is_an_error(install_packages):
    done, _ = install_packages("demo", APT_EXIT="100")
    assert done.returncode == 1
    assert "could not install" in done.stderr


def test_an_old_python_is_named(install_packages, tmp_path):
    old = tmp_path / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" != -V ] || echo "Python 3.9.2"\nexit 1\n')
    old.chmod(0o755)
    done, calls = install_packages("python", PYTHON=str(old))
    assert (done.returncode, calls) == (1, [])
    assert "needs Python 3.11 or later" in done.stderr
    assert "3.9.2" in done.stderr


def test_an_unknown_set_of_packages_is_refused(install_packages):
    assert install_packages("everything")[0].returncode == 2
