"""The image: its content, its sameness, its errors. That it boots stands in test_boot.py."""

import gzip
import subprocess
from pathlib import Path

import pytest

import board
from firmware_tools.cpio import CpioError
from firmware_tools.initramfs import InitramfsError, build_board_initramfs
from firmware_tools.kernel_modules import BOARD_MODULES, resolve
from firmware_tools.python_tree import PythonTreeError, files_for

BOARD_ROOM = Path(board.__file__).parent


def build(out, busybox, kernel, **more):
    return build_board_initramfs(
        out, arch="arm64", busybox=busybox, modules=resolve(kernel.modules_dir, BOARD_MODULES),
        **{"client": "busybox", "client_file": BOARD_ROOM / "client.sh", **more},
    )  # fmt: skip


def listing(image):
    data = gzip.decompress(image.read_bytes())
    done = subprocess.run(["busybox", "cpio", "-t"], input=data, check=True, capture_output=True, timeout=60)
    return done.stdout.decode().split()


def test_the_same_inputs_give_the_same_bytes(tmp_path, busybox, kernel):
    size = build(tmp_path / "a", busybox, kernel)
    build(tmp_path / "b", busybox, kernel)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert size == (tmp_path / "a").stat().st_size < 4_000_000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_what_is_in_it(tmp_path, busybox, kernel):
    own = tmp_path / "own"
    own.write_text("x")
    build(tmp_path / "a", busybox, kernel, extra_files={"/etc/own": own, "bin/hello": b"#!/bin/sh\necho hello\n"})
    names = listing(tmp_path / "a")
    assert names.index("lib") < names.index("lib/boardhand/client.sh")
    assert {"init", "bin/busybox", "bin/sh", "dev/console", "etc/inittab", "etc/own", "bin/hello",
            "lib/boardhand/modules/virtio_net.ko"} <= set(names)  # fmt: skip
    build(tmp_path / "plain", busybox, kernel, compress="none")
    assert (tmp_path / "plain").read_bytes().startswith(b"070701")


def test_with_python_it_stays_small_and_holds_what_the_client_imports(tmp_path, busybox, kernel, python_root):
    python = {"client": "python", "client_file": BOARD_ROOM / "client.py", "python_root": python_root}
    assert build(tmp_path / "a", busybox, kernel, **python) < 12_000_000
    names = listing(tmp_path / "a")
    modules = {"hmac", "json/decoder", "subprocess", "threading", "queue", "tempfile", "argparse", "encodings/utf_8"}
    have = {name.split("/", 3)[3] for name in names if name.startswith("usr/lib/python3") and name.count("/") > 2}
    assert {f"{module}.py" for module in modules} <= have
    assert not {"asyncio/__init__.py", "unittest/__init__.py", "ssl.py"} & have


def test_errors_name_the_input(tmp_path, busybox, kernel):
    with pytest.raises(InitramfsError, match="nobusybox"):
        build(tmp_path / "a", tmp_path / "nobusybox", kernel)
    with pytest.raises(InitramfsError, match="python_root"):
        build(tmp_path / "a", busybox, kernel, client="python")
    with pytest.raises(PythonTreeError, match="no Python root"):
        build(tmp_path / "a", busybox, kernel, client="python", python_root=tmp_path)
    with pytest.raises(CpioError, match="bin/busybox"):
        build(tmp_path / "a", busybox, kernel, extra_files={"bin/busybox": b""})
    assert list(tmp_path.iterdir()) == []


def test_the_scripts_are_shell():
    room = Path(build_board_initramfs.__code__.co_filename).parent
    scripts = sorted(room.glob("board_*.sh"))
    assert len(scripts) == 3
    for script in scripts:
        subprocess.run(["busybox", "sh", "-n", script], check=True, timeout=60)


def make_python(root, sources):
    (root / "bin").mkdir(parents=True)
    (root / "bin/python3").write_bytes(b"\x7fELF\x02\x01\x01" + bytes(57))
    for name, text in {**{f"{n}.py": "" for n in ("abc", "codecs", "io", "os", "site", "stat")}, **sources}.items():
        path = root / "lib/python3.11" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_only_what_can_be_imported_is_taken(tmp_path):
    script = tmp_path / "client.py"
    script.write_text("import a\nif TYPE_CHECKING:\n    import no\ndef f():\n    from p.q import r\n")
    make_python(tmp_path / "root", {
        "a.py": "import b", "b.py": "import a, missing", "no.py": "", "unused.py": "",
        "p/__init__.py": "from . import s", "p/q.py": "from .r import x", "p/r.py": "", "p/s.py": "", "p/t.py": "",
        "unittest/__init__.py": "",
    })  # fmt: skip
    found = {name for name, _ in files_for(tmp_path / "root", script)}
    taken = {name.removeprefix("usr/lib/python3.11/") for name in found}
    assert {"a.py", "b.py", "p/__init__.py", "p/q.py", "p/r.py", "p/s.py"} <= taken
    assert not {"no.py", "unused.py", "p/t.py", "unittest/__init__.py"} & taken
    assert "usr/bin/python3" in found
