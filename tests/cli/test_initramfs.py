"""`boardhand initramfs`, with the real packages: what it writes is listed by a foreign cpio."""

import gzip
import subprocess
from pathlib import Path

from tests.cli.farm_double import boardhand


def test_an_image_that_a_foreign_cpio_reads(tmp_path: Path) -> None:
    image, kernel = tmp_path / "board.img", tmp_path / "kernel.gz"
    done = boardhand("initramfs", str(image), "--kernel", str(kernel), "--module", "overlay")
    assert done.returncode == 0, done.stderr
    assert f"{image}: 1." in done.stdout
    listed = subprocess.run(
        ["busybox", "cpio", "-t"], input=gzip.decompress(image.read_bytes()), capture_output=True, check=True
    ).stdout.decode()
    assert "bin/busybox" in listed
    assert "client.sh" in listed
    assert any("overlay.ko" in name for name in listed.splitlines())
    assert gzip.decompress(kernel.read_bytes())[56:60] == b"ARMd"  # arm64 Image magic, Documentation/arch/arm64/booting
    assert "root-init.sh" not in listed


def test_an_image_for_boards_that_go_on_to_a_root(tmp_path: Path) -> None:
    image = tmp_path / "board.img"
    done = boardhand("initramfs", str(image), "--roots")
    assert done.returncode == 0, done.stderr
    listed = subprocess.run(
        ["busybox", "cpio", "-t"], input=gzip.decompress(image.read_bytes()), capture_output=True, check=True
    ).stdout.decode()
    assert "lib/boardhand/root-init.sh" in listed
    assert "modules/nfsv4.ko" in listed


def test_a_module_that_is_not_there_and_a_folder_that_is_not(tmp_path: Path) -> None:
    done = boardhand("initramfs", str(tmp_path / "x.img"), "--module", "no_such_module")
    assert done.returncode == 1
    assert "no module no_such_module" in done.stderr
    assert not list(tmp_path.iterdir())
    done = boardhand("initramfs", str(tmp_path / "none" / "x.img"))
    assert done.returncode == 1
    assert "write somewhere else" in done.stderr
