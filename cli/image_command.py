"""`boardhand image` on the command line: its manual pages and options; the work is in `cli.image_build` and
`cli.image_tools`. Nothing of theirs is imported here: it would cost every other command its start."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path

from cli.command_line import Command, connection_options
from cli.exits import usage

ARCHES = ("arm64", "armhf", "amd64", "riscv64")


def _build_options(page: ArgumentParser) -> None:
    page.add_argument("recipe", metavar="RECIPE", type=Path, help="image.toml: see docs/images.md")
    page.add_argument("out", metavar="DIR", type=Path, help="folder for what comes out; made if it is missing")
    page.add_argument("--update", action="store_true", help="look for newer packages than at the last build")


def _script_options(page: ArgumentParser) -> None:
    page.add_argument("text", metavar="TEXT", type=Path, help="the script's text")
    page.add_argument("out", metavar="OUT", type=Path, help="the image to write, as boot.scr")
    page.add_argument("--fit", action="store_true", help="a FIT, with a SHA-256; without, a legacy image with a CRC")
    page.add_argument("--arch", choices=ARCHES, default="arm64", help="of the board (arm64)")
    page.add_argument("--name", metavar="NAME", default="boardhand", help="what U-Boot shows (boardhand)")


def _identity_options(page: ArgumentParser) -> None:
    page.add_argument("tree", metavar="IN.dtb", type=Path, help="the device tree")
    page.add_argument("out", metavar="OUT.dtb", type=Path, help="where to write it; may be the same")
    page.add_argument("--serial", metavar="TEXT", default="", help="serial-number")
    page.add_argument("--model", metavar="TEXT", default="", help="model")
    page.add_argument("--compatible", metavar="NAME", action="append", default=[], help="put before compatible's own")
    page.add_argument(
        "--mac", metavar="NODE=MAC", action="append", default=[], help="NODE: ethernet0, or a node's path"
    )
    page.add_argument("--bootargs", metavar="TEXT", default="", help="bootargs of /chosen")
    page.add_argument("--pad", metavar="BYTES", type=int, default=0, help="room for what a boot program adds (0)")


def _build(args: Namespace) -> int:
    from cli.image_build import run

    return run(args)


def _script(args: Namespace) -> int:
    from cli.image_tools import script

    return script(args)


def _identity(args: Namespace) -> int:
    from cli.image_tools import set_identity

    return set_identity(args)


_VERBS: dict[str, Command] = {
    "build": Command(
        "make a root of Debian's packages, with our client inside",
        "Needs no root, and runs nothing of what it packs. Packages come by apt, checked by Debian's signatures; the\n"
        "same recipe gives the same bytes until --update. With a table [kernel] in the recipe, kernel, initramfs and\n"
        "device trees come out beside it, and the profile to boot them by.\n"
        "Exit 2 when the recipe is wrong, with its line; 1 when a package cannot be had or the disk is full.\n"
        'JSON lines: {"stage", …} while it works, then {"ok", "name", "files": [{path, bytes, sha256}], "boot",\n'
        '"packages", "paths", "content_bytes", "source_date_epoch", "scripts_left_to_the_board", "profile"}.',
        _build_options,
        _build,
    ),
    "script": Command(
        "make a script that U-Boot's 'source' runs",
        "The same text gives the same bytes. Exit 2 when it cannot be a script.\nJSON: {ok, path, bytes}.",
        _script_options,
        _script,
    ),
    "identity": Command(
        "give a device tree serial number, model, Ethernet addresses",
        "For boards whose boot program gives all of them one identity. Exit 2 when there is no such node, or a value\n"
        "is not allowed. JSON: {ok, path, bytes}.",
        _identity_options,
        _identity,
    ),
}


def _options(page: ArgumentParser) -> None:
    group = page.add_subparsers(title="what to make", metavar="VERB", dest="verb")
    for name, verb in _VERBS.items():
        sub = group.add_parser(
            name,
            help=verb.summary,
            description=verb.description,
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        verb.options(sub)
        connection_options(sub)
        sub.set_defaults(run_verb=verb.run)


def _run(args: Namespace) -> int:
    if args.verb is None:
        raise usage("no verb given", "say build, script or identity: see 'boardhand image --help'")
    code: int = args.run_verb(args)
    return code


IMAGE = Command(
    "make images for boards: a root of Debian, U-Boot scripts, device trees",
    "'boardhand image build image.toml out' makes a root that boards boot. See docs/images.md. JSON: as\n"
    "each page says.",
    _options,
    _run,
)
