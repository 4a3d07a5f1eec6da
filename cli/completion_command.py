"""`boardhand completion` on the command line; the work is in `cli.completion`."""

from argparse import ArgumentParser, Namespace

from cli.command_line import Command, as_json


def _options(page: ArgumentParser) -> None:
    page.add_argument("shell", metavar="bash|zsh|fish", choices=("bash", "zsh", "fish"))


def _run(args: Namespace) -> int:
    from cli.completion import script
    from cli.exits import Exit

    text = script(args.shell)
    if as_json(args):
        import json

        print(json.dumps({"shell": args.shell, "script": text}))
    else:
        print(text, end="")
    return Exit.OK


COMPLETION = Command(
    "print what completes boardhand's words in bash, zsh or fish",
    "The Debian package brings it along. Elsewhere:\n"
    "  boardhand completion bash > ~/.local/share/bash-completion/completions/boardhand\n"
    "  boardhand completion zsh > DIR/_boardhand        # DIR: one of $fpath\n"
    "  boardhand completion fish > ~/.config/fish/completions/boardhand.fish\n"
    "JSON: {shell, script}.",
    _options,
    _run,
)
