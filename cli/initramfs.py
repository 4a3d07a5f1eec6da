"""`boardhand initramfs`: the small system that a board boots to register, ask for work and do it."""

from argparse import Namespace
from pathlib import Path

import board
from cli.command_line import as_json
from cli.exits import CliError, Exit
from cli.up_report import Report, make
from firmware_tools import debian_packages, initramfs, kernel_modules
from firmware_tools.cpio import CpioError
from firmware_tools.python_tree import PythonTreeError
from netboot.roots import boot_words

CLIENTS = {"busybox": "client.sh", "python": "client.py"}


def run(args: Namespace) -> int:
    """Build the image, and with `--kernel` write the kernel that goes with it.

    Raises:
        CliError: a package cannot be had, a module is not in the kernel, or a file cannot be written.
    """
    report = make(as_json=as_json(args))
    try:
        size = _build(args, report)
    except (
        debian_packages.PackageError,
        initramfs.InitramfsError,
        kernel_modules.KernelModuleError,
        PythonTreeError,
        CpioError,
    ) as error:
        raise CliError(Exit.FAILED, str(error), "mend that and run it again: what was fetched is kept") from error
    except OSError as error:
        raise CliError(Exit.FAILED, f"{error.filename}: {error.strerror}", "write somewhere else") from error
    finally:
        report.close()
    report.say(f"{args.out}: {size / 1e6:.1f} MB, for {args.arch}, with the {args.client} client")
    return Exit.OK


def _build(args: Namespace, report: Report) -> int:
    cache = debian_packages.cache_dir()

    def progress(text: str, done: int, of: int | None) -> None:
        report.stage("initramfs", done, of or 0, text)

    modules_dir: Path | None = args.modules_dir
    if modules_dir is None or args.kernel is not None:
        kernel = debian_packages.fetch_kernel(args.arch, cache, progress)
        modules_dir = modules_dir or kernel.modules_dir
        if args.kernel is not None:
            args.kernel.write_bytes(kernel.image_gz.read_bytes())
    wanted = [*kernel_modules.BOARD_MODULES, *args.module] if args.modules_dir is None else args.module
    python_root = debian_packages.fetch_python(args.arch, cache, progress) if args.client == "python" else None
    return initramfs.build_board_initramfs(
        args.out,
        arch=args.arch,
        busybox=debian_packages.fetch_busybox(args.arch, cache, progress),
        modules=kernel_modules.resolve(modules_dir, wanted),
        root_modules=kernel_modules.resolve(modules_dir, boot_words.MODULES) if args.roots else (),
        client=args.client,
        client_file=Path(board.__file__).with_name(CLIENTS[args.client]),
        python_root=python_root,
        extra_files=boot_words.initramfs_files() if args.roots else {},
    )
