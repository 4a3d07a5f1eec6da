"""Modules that an image carries for a board which goes on to a root elsewhere, and does not load otherwise."""

import gzip
import subprocess
from pathlib import Path

import board
from firmware_tools.initramfs import build_board_initramfs
from firmware_tools.kernel_modules import BOARD_MODULES, resolve
from netboot.roots import boot_words


def lines_of(image, name):
    done = subprocess.run(
        ["busybox", "cpio", "-i", "--to-stdout", name], input=gzip.decompress(image.read_bytes()),
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return done.stdout.decode().split()


def test_they_are_listed_apart_and_none_twice(tmp_path, busybox, kernel):
    image = tmp_path / "image"
    build_board_initramfs(
        image,
        arch="arm64",
        busybox=busybox,
        modules=resolve(kernel.modules_dir, [*BOARD_MODULES, "sunrpc"]),
        root_modules=resolve(kernel.modules_dir, boot_words.MODULES),
        client="busybox",
        client_file=Path(board.__file__).with_name("client.sh"),
        extra_files=boot_words.initramfs_files(),
    )
    now, later = (lines_of(image, f"lib/boardhand/{name}") for name in ("modules.list", "root-modules.list"))
    assert "sunrpc.ko" in now  # nfsv4 needs it, too
    assert not set(now) & set(later)
    assert later.index("nfs.ko") < later.index("nfsv4.ko")
    assert later.index("jbd2.ko") < later.index("ext4.ko")
    listed = subprocess.run(
        ["busybox", "cpio", "-t"], input=gzip.decompress(image.read_bytes()), check=True, capture_output=True
    ).stdout.decode()
    assert all(f"lib/boardhand/modules/{name}\n" in listed for name in now + later)
    assert boot_words.INIT_PATH.lstrip("/") in listed
    assert image.stat().st_size < 4_000_000


def test_the_script_that_mounts_a_root_is_one_for_busybox(tmp_path):
    script = tmp_path / "init"
    (content,) = boot_words.initramfs_files().values()
    script.write_bytes(content)
    subprocess.run(["busybox", "ash", "-n", str(script)], check=True, timeout=60)
    assert content.startswith(b"#!/bin/busybox sh\n")
