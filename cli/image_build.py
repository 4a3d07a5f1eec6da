"""`boardhand image build`: from a recipe to a root that boards boot, with what they boot it by."""

import json
import os
from argparse import Namespace
from pathlib import Path

import board
from cli import image_boot_files, image_recipe
from cli.command_line import as_json
from cli.exits import CliError, Exit
from cli.image_boot_files import BootFiles
from cli.up_report import Report, make
from firmware_tools import debian_packages
from firmware_tools.cpio import CpioError
from firmware_tools.image import build, packages
from firmware_tools.image.accounts import AccountError
from firmware_tools.image.build import Built, Inputs
from firmware_tools.image.recipe import Recipe
from firmware_tools.image.services import ServiceError
from firmware_tools.image.tar_output import OutputError
from firmware_tools.image.tree import TreeError
from firmware_tools.initramfs import InitramfsError
from firmware_tools.kernel_modules import KernelModuleError

_FAILURES = (debian_packages.PackageError, OutputError, CpioError, InitramfsError, KernelModuleError)
_WRONG = (AccountError, ServiceError, TreeError)
MAX_SOURCE_DATE_S = 2**32 - 1  # what ext4 of old inodes and cpio can hold


def run(args: Namespace) -> int:
    """Build what the recipe says.

    Raises:
        CliError: 2 where the recipe is wrong; 1 where a package cannot be had, or the disk is full.
    """
    recipe = image_recipe.load(args.recipe)
    source_date_s = _source_date()
    report = make(as_json=as_json(args))
    try:
        built, boot = _build(args, recipe, source_date_s, report)
    except _FAILURES as error:
        raise CliError(Exit.FAILED, str(error), "mend that and run it again: what was fetched is kept") from error
    except _WRONG as error:
        raise CliError(Exit.USAGE, f"{args.recipe}: {error}") from error
    except OSError as error:
        where = error.filename or args.out
        raise CliError(Exit.FAILED, f"{where}: {error.strerror}", "write somewhere else, or make room") from error
    finally:
        report.close()
    _tell(args, recipe, built, boot)
    return Exit.OK


def _source_date() -> int | None:
    """SOURCE_DATE_EPOCH, as reproducible-builds.org defines it."""
    text = os.environ.get("SOURCE_DATE_EPOCH", "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) <= MAX_SOURCE_DATE_S:
        raise CliError(Exit.USAGE, f"SOURCE_DATE_EPOCH is {text!r}", "it is a number of seconds since 1970")
    return int(text)


def _build(args: Namespace, recipe: Recipe, source_date_s: int | None, report: Report) -> tuple[Built, list[Path]]:
    cache = debian_packages.cache_dir()

    def progress(text: str, done: int, of: int | None) -> None:
        report.stage("image", done, of or 0, text)

    named = image_recipe.NamedFiles(args.recipe)
    where = packages.place(recipe, cache, named.path(recipe.keyring) if recipe.keyring else None)
    fetched = packages.fetch(recipe, where, progress, update=args.update)
    boot: BootFiles | None = None
    if recipe.kernel is not None:
        boot = image_boot_files.fetch(recipe, where, cache, progress)
    inputs = Inputs(
        recipe,
        fetched,
        named.read,
        Path(board.__file__).with_name("client.py").read_bytes(),
        kernel=boot.kernel if boot is not None else None,
        disk_files=boot.on_disk if boot is not None else None,
        source_date_s=source_date_s,
    )
    built = build.build(inputs, args.out, progress)
    written: list[Path] = []
    if boot is not None:
        written = boot.write(args.out / "boot")
        stanza = args.out / f"{recipe.name}.profile.toml"
        stanza.write_text(image_boot_files.profile(recipe, args.out.resolve()), encoding="utf-8")
        written.append(stanza)
    return built, written


def _tell(args: Namespace, recipe: Recipe, built: Built, boot: list[Path]) -> None:
    tar = next((path for path, _ in built.files if ".tar" in path.name), None)
    stanza = image_boot_files.profile(recipe, args.out.resolve()) if boot else ""
    if as_json(args):
        document = {
            "ok": True,
            "name": recipe.name,
            "files": [{"path": str(path), "bytes": path.stat().st_size, "sha256": sha} for path, sha in built.files],
            "boot": [str(path) for path in boot],
            "packages": built.packages,
            "paths": built.paths,
            "content_bytes": built.content_bytes,
            "source_date_epoch": built.source_date_s,
            "scripts_left_to_the_board": list(built.left_to_the_board),
            "profile": stanza,
        }
        print(json.dumps(document))
        return
    for path, sha in built.files:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, sha256 {sha}")
    for path in boot:
        print(path)
    print(f"{recipe.name}: {built.packages} packages, {built.paths} paths, {built.content_bytes / 1e6:.0f} MB in files")
    if tar is not None:
        print(f"next: sudo boardhand root import {recipe.name} {tar}")
    if stanza:
        print(f"then, in the agent's settings:\n\n{stanza}", end="")
