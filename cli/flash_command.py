"""`boardhand flash` and `boardhand mode` on the command line: their pages and options; the work is in `flash_run` and
`mode_list`."""

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace

from cli.command_line import Command, as_json, count, positive, target_of

FLASH_TIMEOUT_S = 3600.0
MODE_TIMEOUT_S = 300.0
_SHA256 = re.compile(r"[0-9A-Fa-f]{64}")


def _sha256(text: str) -> str:
    if _SHA256.fullmatch(text) is None:
        raise ArgumentTypeError(f"{text!r} is no SHA-256: 64 hexadecimal digits, as sha256sum prints")
    return text.lower()


def _flash_options(page: ArgumentParser) -> None:
    page.add_argument("board", metavar="BOARD")
    page.add_argument("image", metavar="IMAGE|URL", help="a path on the agent's host, or http(s)://…")
    page.add_argument("--method", metavar="NAME", help="which of the board's flash methods, where it has several")
    page.add_argument("--sha256", metavar="HEX", type=_sha256, help="what the image has to be; a must for a URL")
    page.add_argument("--check-only", action="store_true", help="look at the image, and touch nothing")
    page.add_argument("--token", metavar="N", type=count, help="token of your lease, where it is not kept here")
    page.add_argument(
        "--timeout-s", metavar="S", type=positive, default=FLASH_TIMEOUT_S, help="at most this long (3600)"
    )


def _flash(args: Namespace) -> int:
    from cli.flash_run import FlashOrder, run

    order = FlashOrder(args.board, args.image, args.method, args.sha256, check_only=args.check_only)
    return run(target_of(args), order, token=args.token, timeout_s=args.timeout_s, as_json=as_json(args))


def _mode_options(page: ArgumentParser) -> None:
    page.add_argument("board", metavar="BOARD", nargs="?", help="this one only; its actuators are asked now")
    page.add_argument("mode", metavar="NAME", nargs="?", help="bring the board into this mode")
    page.add_argument("--token", metavar="N", type=count, help="token of your lease, where it is not kept here")
    page.add_argument("--timeout-s", metavar="S", type=positive, default=MODE_TIMEOUT_S, help="end it after this (300)")


def _mode(args: Namespace) -> int:
    if args.mode is None:
        from cli.mode_list import show

        return show(target_of(args), args.board, as_json=as_json(args))
    from cli.mode_list import change

    return change(
        target_of(args), args.board, args.mode, token=args.token, timeout_s=args.timeout_s, as_json=as_json(args)
    )


FLASH = Command(
    "write an image to a board, compare, and bring the board back",
    "The agent looks at the image, brings the board into its mode for it, runs the tool that the board's settings\n"
    "name, compares what lies in the device with the image where that can be, and brings the board back to work, also\n"
    "when the flash fails or Ctrl-C ends it. Exit 2: the image is damaged, or not for this board; nothing was done.\n"
    "JSON: lines of {stage, percent, message}, then {board, method, tool, image, sha256, size_bytes, format, took_s,\n"
    "verified, mode}.",
    _flash_options,
    _flash,
)
MODE = Command(
    "bring a board into a mode, or show its modes and how it can be flashed",
    "Modes are sequences of actuators in the agent's settings: power, boot straps, buttons, SD muxes, USB ports. In\n"
    "any but 'normal' the board is in maintenance. Where a step fails it is brought back to 'normal'.\n"
    "JSON: {boards: [{agent, board, mode, modes, flash, under_way, damaged, actuators}], silent}; with NAME lines of\n"
    "{stage, percent, message}, then {board, mode, actuators}.",
    _mode_options,
    _mode,
)
