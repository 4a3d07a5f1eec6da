"""From a recipe to images: packages, tree, outputs, manifest. Outputs appear when all are written."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from firmware_tools.debian_packages import KernelTree, Progress
from firmware_tools.image import cpio_output, disk_output, ext4_output, manifest, settle, tar_output
from firmware_tools.image.debs import Deb, unpack
from firmware_tools.image.packages import Fetched
from firmware_tools.image.recipe import Recipe
from firmware_tools.image.settle import ReadFile
from firmware_tools.image.tar_output import OutputError
from firmware_tools.image.tree import Tree

_DEPMOD_TIMEOUT_S = 120.0
_COPY_BYTES = 1 << 20
DiskFiles = Callable[[str], dict[str, bytes]]
"""Told the UUID of the file system: files by path that a disk's image boots with."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a build is made of.

    Attributes:
        read: gives the files that the recipe names.
        client: the board's client, `board/client.py`.
        kernel: whose modules go into the root, where the recipe wants them.
        disk_files: what a disk's image gets beside the root's files.
        source_date_s: no time in the image is later; None: the latest of the packages' own.
    """

    recipe: Recipe
    fetched: Fetched
    read: ReadFile
    client: bytes
    kernel: KernelTree | None = None
    disk_files: DiskFiles | None = None
    source_date_s: int | None = None


@dataclass(frozen=True, slots=True)
class Built:
    """What came out: files with their SHA-256, the manifest among them; and what was in the root."""

    files: tuple[tuple[Path, str], ...]
    packages: int
    paths: int
    content_bytes: int
    source_date_s: int
    left_to_the_board: tuple[str, ...]


def build(inputs: Inputs, folder: Path, progress: Progress) -> Built:
    """Write all outputs of the recipe into `folder`.

    Raises:
        PackageError, TreeError, AccountError, ServiceError, OutputError: see there.
        OSError: the disk is full, or a file that the recipe names is not there.
    """
    recipe = inputs.recipe
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=folder, prefix=".image-", ignore_cleanup_errors=True) as scratch,
        Tree(folder) as tree,
    ):
        debs = _fill(tree, inputs, Path(scratch), progress)
        source_date_s = inputs.source_date_s if inputs.source_date_s is not None else tree.newest_s
        tree.clamp(source_date_s)
        paths, content_bytes = len(tree), tree.content_bytes
        written = []
        # Last what changes the tree: a disk's own files are in no other output.
        for output in sorted(recipe.outputs, key=lambda output: output == "disk"):
            written += _write(tree, output, inputs, Path(scratch), source_date_s, progress)
        about = manifest.manifest(recipe, debs, inputs.fetched.sha256, source_date_s)
        listing = Path(scratch) / f"{recipe.name}.manifest.json"
        listing.write_text(manifest.as_text(about), encoding="utf-8")
        files = []
        for path in [*written, listing]:
            digest = _sha256(path)
            path.replace(folder / path.name)
            files.append((folder / path.name, digest))
    return Built(tuple(files), len(debs), paths, content_bytes, source_date_s, tuple(manifest.left_to_the_board(debs)))


def _fill(tree: Tree, inputs: Inputs, scratch: Path, progress: Progress) -> list[Deb]:
    recipe = inputs.recipe
    settle.lay_ground(tree, recipe.arch)
    debs = []
    files = inputs.fetched.files
    for number, file in enumerate(files):
        progress("unpack packages", number, len(files))
        debs.append(unpack(file, tree, recipe.leave_out))
    progress("unpack packages", len(files), len(files))
    if inputs.kernel is not None and recipe.kernel is not None and recipe.kernel.modules:
        _modules(tree, inputs.kernel, scratch)
    settle.settle(tree, debs, recipe, inputs.read, inputs.client)
    return debs


def _modules(tree: Tree, kernel: KernelTree, scratch: Path) -> None:
    """The kernel's modules, and the lists that modprobe reads: depmod writes these for any architecture."""
    place = f"lib/modules/{kernel.version}"
    copied = scratch / "depmod" / place
    shutil.copytree(kernel.modules_dir, copied)
    command = ["depmod", "-b", str(scratch / "depmod"), kernel.version]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_DEPMOD_TIMEOUT_S, check=False, env=tool_environment()
        )
    except FileNotFoundError:
        raise OutputError("depmod is not there: install the package kmod") from None
    if done.returncode:
        raise OutputError(f"depmod: {done.stderr.strip()[-200:]}")
    for path in sorted(copied.rglob("*")):
        if path.is_file() and not path.is_symlink():
            tree.file(f"usr/{place}/{path.relative_to(copied)}", path.read_bytes())
    shutil.rmtree(scratch / "depmod")


def tool_environment() -> dict[str, str]:
    """Ours, with the folders of system tools, which are not on an ordinary user's PATH."""
    return {**os.environ, "LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def _write(
    tree: Tree, output: str, inputs: Inputs, scratch: Path, source_date_s: int, progress: Progress
) -> list[Path]:
    recipe = inputs.recipe
    total = len(tree)
    label = f"write {output}"

    def count(number: int) -> None:
        if number % 64 == 0 and number < total:
            progress(label, number, total)

    target = scratch / f"{recipe.name}.{'img' if output == 'disk' else output}"
    if output.startswith("tar"):
        tar_output.write(tree, target, output.removeprefix("tar").removeprefix("."), count)
    elif output == "cpio.gz":
        cpio_output.write(tree, target, count)
    elif output == "ext4":
        _ext4(tree, target, inputs, source_date_s, count)
    else:
        identifier = ext4_output.file_system_id(recipe.name, source_date_s)
        for path, content in (inputs.disk_files(str(identifier)) if inputs.disk_files else {}).items():
            tree.file(path, content)
        tree.clamp(source_date_s)
        inner = scratch / ".disk-root"
        _ext4(tree, inner, inputs, source_date_s, count)
        disk_output.write(inner, target, identifier)
        inner.unlink()
        progress(label, total, total)
        return [target, target.with_name(f"{target.name}.bmap")]
    progress(label, total, total)
    return [target]


def _ext4(tree: Tree, target: Path, inputs: Inputs, source_date_s: int, count: Callable[[int], None]) -> None:
    recipe = inputs.recipe
    ext4_output.write(
        tree, target, name=recipe.name, size_bytes=recipe.size_bytes, source_date_s=source_date_s, count=count
    )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_COPY_BYTES):
            digest.update(piece)
    return digest.hexdigest()
