# ruff: noqa: INP001  # a script beside the rooms, not in one
"""Builds boardhand's Debian package: `python packaging/deb/build.py [--out DIR]`, or `make deb`. No root is needed.

The package carries an environment of its own in /usr/lib/boardhand, because no Debian release has all that boardhand
stands on (Debian 12: pydantic 1.10). It runs on the Python of the release that it is built on, so it is built there.
The same sources and the same wheels give the same file, byte for byte.
"""

import argparse
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
EXTRAS = ("ipmi", "postgresql", "redfish")
HOME = Path("usr/lib/boardhand")
DOC = Path("usr/share/doc/boardhand")
CONFFILES = ("agent.toml", "broker.toml")
SCRIPTS = ("postinst", "prerm", "postrm")
STEP_TIMEOUT_S = 900
OLDEST_PYTHON = (3, 11)
COMPLETIONS = {
    "bash": Path("usr/share/bash-completion/completions/boardhand"),
    "zsh": Path("usr/share/zsh/vendor-completions/_boardhand"),
    "fish": Path("usr/share/fish/vendor_completions.d/boardhand.fish"),
}
LAUNCHER = """\
#!/{home}/bin/python3 -I
import sys

from cli.main import main

sys.exit(main())
"""
CONTROL = """\
Package: boardhand
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {size_kib}
Depends: {python}, libc6 (>= {libc}), libgcc-s1, passwd, systemd | systemd-standalone-sysusers
Recommends: mosquitto
Suggests: nfs-ganesha, nfs-ganesha-vfs, qemu-system-arm, u-boot-qemu
Section: admin
Priority: optional
Description: farm of embedded boards that looks after itself
 An agent on every host that has boards on it switches and verifies their power,
 boots them from the network and says over MQTT what is; one broker per farm
 hands out jobs, wakes boards that are needed and puts idle ones to sleep.
 .
 Nothing is started by the installation: see /usr/share/doc/boardhand.
"""


class BuildError(Exception):
    """The package cannot be built; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is built, and by what.

    Attributes:
        python: the release's own interpreter, which the package will run on.
        out: where the package goes.
        wheels: where the wheels are kept that go into it.
        epoch_s: no file in the package is younger (SOURCE_DATE_EPOCH).
    """

    python: Path
    out: Path
    wheels: Path
    epoch_s: int


def build(plan: Plan) -> Path:
    """Build the package and return it.

    Raises:
        BuildError: a program is missing or failed.
    """
    minor = _python_version(plan.python)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    architecture = _run(["dpkg", "--print-architecture"]).strip()
    plan.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=plan.out, prefix=".deb-") as scratch:
        tree = Path(scratch) / "tree"
        site = tree / HOME / "lib" / f"python{minor}" / "site-packages"
        site.mkdir(parents=True)
        _gather_wheels(plan, project, minor)
        _install(plan, site)
        _environment(tree, minor)
        _own_files(tree)
        _generated(plan, tree, site)
        _compile(plan, tree, site)
        fields = {
            "version": project["version"],
            "architecture": architecture,
            "maintainer": f"{project['name']} <{project['name']}@localhost>",
            "python": f"python{minor}",
            # What is compiled here, and pip's choice of wheels, is for this release's libc or a later one.
            "libc": (os.confstr("CS_GNU_LIBC_VERSION") or "glibc 2.36").split()[1],
        }
        _control(tree, fields)
        _settle(tree, plan.epoch_s)
        target = plan.out / f"boardhand_{project['version']}_{architecture}.deb"
        environment = {"SOURCE_DATE_EPOCH": str(plan.epoch_s)}
        # Of 90 MB xz would take a minute more, for 10 MB less.
        _run(["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(tree), str(target)], environment)
    return target


def _python_version(python: Path) -> str:
    said = _run([str(python), "-c", "import sys; print(*sys.version_info[:2])"]).split()
    if tuple(map(int, said)) < OLDEST_PYTHON:
        raise BuildError(f"{python} is Python {'.'.join(said)}: boardhand needs 3.11; build on Debian 12 or later")
    return ".".join(said)


def _pip(plan: Plan, *arguments: str) -> None:
    """Our pip, working for the release's interpreter, which need not have one."""
    quiet = ["--disable-pip-version-check", "--no-input", "--quiet"]
    _run([sys.executable, "-m", "pip", "--python", str(plan.python), *quiet, *arguments])


def _gather_wheels(plan: Plan, project: Mapping[str, Any], minor: str) -> None:
    """Ours, made now, and what it stands on: that is kept until a requirement changes, so that a second build asks no
    network and packs the same."""
    stamp = plan.wheels / ".requirements"
    wanted = json.dumps([minor, project["dependencies"], project["optional-dependencies"], EXTRAS])
    kept = stamp.is_file() and stamp.read_text() == wanted
    if not kept:
        shutil.rmtree(plan.wheels, ignore_errors=True)
    plan.wheels.mkdir(parents=True, exist_ok=True)
    for old in plan.wheels.glob("boardhand-*.whl"):
        old.unlink()
    environment = {"SOURCE_DATE_EPOCH": str(plan.epoch_s)}
    own = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check", "--no-input", "--quiet", "--no-deps"]
    _run([*own, "--wheel-dir", str(plan.wheels), str(ROOT)], environment)
    (ours,) = plan.wheels.glob("boardhand-*.whl")
    if not kept:
        wheels = str(plan.wheels)
        _pip(plan, "wheel", "--wheel-dir", wheels, "--find-links", wheels, f"{ours}[{','.join(EXTRAS)}]")
        stamp.write_text(wanted)


def _install(plan: Plan, site: Path) -> None:
    # By name and from the folder alone: so nothing of this machine's paths is written down (direct_url.json).
    source = ["--no-index", "--find-links", str(plan.wheels)]
    _pip(plan, "install", *source, "--no-compile", "--target", str(site), f"boardhand[{','.join(EXTRAS)}]")
    shutil.rmtree(site / "bin", ignore_errors=True)  # they name this machine's interpreter
    for record in site.glob("*.dist-info/RECORD"):
        kept = [line for line in record.read_text().splitlines(keepends=True) if not line.startswith("../../bin/")]
        record.write_text("".join(sorted(kept)))


def _environment(tree: Path, minor: str) -> None:
    """A virtual environment (PEP 405), written by hand: `python -m venv` would write this machine's paths into it."""
    (tree / HOME / "bin").mkdir()
    (tree / HOME / "bin/python3").symlink_to(f"/usr/bin/python{minor}")
    cfg = f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {minor}\n"
    (tree / HOME / "pyvenv.cfg").write_text(cfg)
    launcher = tree / "usr/bin/boardhand"
    launcher.parent.mkdir(parents=True, exist_ok=True)
    launcher.write_text(LAUNCHER.format(home=HOME))
    launcher.chmod(0o755)


def _own_files(tree: Path) -> None:
    units = ROOT / "packaging/systemd"
    files = {
        units / "boardhand-agent.service": "usr/lib/systemd/system/boardhand-agent.service",
        units / "boardhand-broker.service": "usr/lib/systemd/system/boardhand-broker.service",
        units / "sysusers.conf": "usr/lib/sysusers.d/boardhand.conf",
        units / "tmpfiles.conf": "usr/lib/tmpfiles.d/boardhand.conf",
        units / "roots.conf": f"{DOC}/examples/roots.conf",
        units / "flashing.conf": f"{DOC}/examples/flashing.conf",
        ROOT / "LICENSE": f"{DOC}/copyright",
        ROOT / "README.md": f"{DOC}/README.md",
    }
    files |= {rules: f"usr/lib/udev/rules.d/{rules.name}" for rules in sorted((ROOT / "udev").glob("*.rules"))}
    files |= {page: f"{DOC}/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))}
    files |= {HERE / name: f"etc/boardhand/{name}" for name in CONFFILES}
    for source, place in files.items():
        target = tree / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    _zip(tree / DOC / "changelog.gz", (ROOT / "CHANGELOG.md").read_bytes())


def _generated(plan: Plan, tree: Path, site: Path) -> None:
    """What the package's own command prints: completions and the manual."""
    environment = {"PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(plan.python), "-s", "-m", "cli"]
    for shell, place in COMPLETIONS.items():
        (tree / place).parent.mkdir(parents=True)
        (tree / place).write_text(_run([*command, "completion", shell], environment, cwd=tree))
    page = tree / "usr/share/man/man1/boardhand.1.gz"
    page.parent.mkdir(parents=True)
    _zip(page, _run([*command[:-1], "cli.manual_page"], environment, cwd=tree).encode())


def _compile(plan: Plan, tree: Path, site: Path) -> None:
    """Byte code whose name and content owe nothing to times (PEP 552): the daemons' user may not write it later."""
    for cache in site.rglob("__pycache__"):
        shutil.rmtree(cache)
    strip = ["-s", str(tree), "-p", "/", "-q", "-j1", "--invalidation-mode", "unchecked-hash"]
    _run([str(plan.python), "-m", "compileall", *strip, str(site)])
    listing = [f"{_sha256(wheel)}  {wheel.name}\n" for wheel in sorted(plan.wheels.glob("*.whl"))]
    (tree / DOC / "wheels.sha256").write_text("".join(listing))


def _control(tree: Path, fields: Mapping[str, str]) -> None:
    folder = tree / "DEBIAN"
    folder.mkdir()
    size = sum((path.lstat().st_size + 1023) // 1024 for path in _files(tree))
    (folder / "control").write_text(CONTROL.format(**fields, size_kib=size))
    (folder / "conffiles").write_text("".join(f"/etc/boardhand/{name}\n" for name in CONFFILES))
    sums = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in _files(tree)]  # noqa: S324  # dpkg's format
    (folder / "md5sums").write_text("".join(line for line in sums if "  etc/" not in line))
    for name in SCRIPTS:
        shutil.copyfile(HERE / name, folder / name)
        (folder / name).chmod(0o755)


def _files(tree: Path) -> Iterator[Path]:
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink() and "DEBIAN" not in path.parts:
            yield path


def _settle(tree: Path, epoch_s: int) -> None:
    """Modes and times that do not depend on who builds, and when."""
    for path in [tree, *tree.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        os.utime(path, (epoch_s, epoch_s), follow_symlinks=False)


def _zip(target: Path, content: bytes) -> None:
    target.write_bytes(gzip.compress(content, 9, mtime=0))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            env=os.environ | {"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0"} | dict(environment or {}),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STEP_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError:
        raise BuildError(f"{command[0]} is not there: build on Debian or Ubuntu, with dpkg and python3") from None
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} took over {STEP_TIMEOUT_S} s: is the network slow?") from None
    if done.returncode:
        raise BuildError(f"{' '.join(command[:6])} ended with {done.returncode}: {done.stderr.strip()[-1500:]}")
    return done.stdout


def _epoch() -> int:
    """SOURCE_DATE_EPOCH; else the last commit's time; else that of the changelog file."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    if re.fullmatch("[0-9]{1,12}", given):
        return int(given)
    try:
        return int(_run(["git", "log", "-1", "--format=%ct"], cwd=ROOT))
    except (BuildError, ValueError):
        return int((ROOT / "CHANGELOG.md").stat().st_mtime)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for the package (dist)")
    parser.add_argument("--wheels", type=Path, default=ROOT / ".cache/deb-wheels", help="wheels are kept here")
    parser.add_argument("--python", type=Path, default=Path("/usr/bin/python3"), help="the release's interpreter")
    options = parser.parse_args()
    try:
        made = build(Plan(options.python, options.out.resolve(), options.wheels.resolve(), _epoch()))
    except BuildError as error:
        sys.stderr.write(f"deb: {error}\n")
        return 1
    sys.stdout.write(f"{made}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
