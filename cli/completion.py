"""Completions for bash, zsh and fish, made from the command table: `boardhand completion bash`.

They hold every word themselves, so pressing Tab starts no program and asks no server.
"""

from collections.abc import Callable, Iterator

from cli.command_tree import Option, Page, pages, tree

_HEAD = "# Completion of boardhand for {kind}. Made by 'boardhand completion {kind}'.\n"


def script(shell: str) -> str:
    """The completion for `shell`: bash, zsh or fish.

    Raises:
        KeyError: it is none of these.
    """
    writers: dict[str, Callable[[Page], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
    return writers[shell](tree())


# --- bash ------------------------------------------------------------------------------------------------------

_BASH = """\
_boardhand() {{
    local at= word i words= current=${{COMP_WORDS[COMP_CWORD]}}
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case "$at/${{COMP_WORDS[i]}}" in
        {places}) at=$at/${{COMP_WORDS[i]}} ;;
        esac
    done
    case "$at ${{COMP_WORDS[COMP_CWORD-1]}}" in
{values}
    esac
    case "$at" in
{words}
    esac
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _boardhand boardhand
"""


def _bash(root: Page) -> str:
    values, words = [], []
    for page in pages(root):
        for option in page.options:
            if option.value:
                # With nothing in COMPREPLY, `-o default` goes on with file names.
                reply = f'COMPREPLY=($(compgen -W {_quoted(" ".join(option.choices))} -- "$current")); '
                patterns = " | ".join(_quoted(f"{_place(page)} {flag}") for flag in option.flags)
                values.append(f"    {patterns}) {reply if option.choices else ''}return ;;")
        words.append(f"    {_quoted(_place(page))}) words={_quoted(' '.join(_words(page)))} ;;")
    return _HEAD.format(kind="bash") + _BASH.format(
        places=_places(root), values="\n".join(values), words="\n".join(words)
    )


# --- zsh -------------------------------------------------------------------------------------------------------

_ZSH = """\
_boardhand() {{
    local at= word
    local -a found
    for word in "${{(@)words[2,CURRENT-1]}}"; do
        case "$at/$word" in
        ({places}) at=$at/$word ;;
        esac
    done
    case "$at $words[CURRENT-1]" in
{values}
    esac
    case "$at" in
{words}
    esac
    _describe -t commands boardhand found || _files
}}
if [[ "$funcstack[1]" == _boardhand ]]; then
    _boardhand "$@"
else
    compdef _boardhand boardhand
fi
"""


def _zsh(root: Page) -> str:
    values, words = [], []
    for page in pages(root):
        for option in page.options:
            if option.value:
                patterns = " | ".join(_quoted(f"{_place(page)} {flag}") for flag in option.flags)
                choices = " ".join(map(_quoted, option.choices))
                reply = f"compadd -- {choices}" if option.choices else "_files" if option.files else ":"
                values.append(f"    ({patterns}) {reply}; return ;;")
        told = " ".join(_quoted(_with_help(word, help_)) for word, help_ in _told(page))
        words.append(f"    ({_quoted(_place(page))}) found=({told}) ;;")
    return "#compdef boardhand\n" + _HEAD.format(kind="zsh") + _ZSH.format(
        places=_places(root), values="\n".join(values), words="\n".join(words)
    )  # fmt: skip


def _with_help(word: str, help_: str) -> str:
    name = word.replace(":", "\\:")
    return f"{name}:{help_}" if help_ else name


# --- fish ------------------------------------------------------------------------------------------------------


def _fish(root: Page) -> str:
    lines = [_HEAD.format(kind="fish")]
    for page in pages(root):
        condition = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in page.words)
        lines += [_fish_option(option, condition) for option in page.options]
        below = " ".join(command.words[-1] for command in page.commands)
        here = f"not __fish_seen_subcommand_from {below}" if below else ""
        when = "; and ".join(part for part in (condition, here) if part)
        for word, help_ in _told(page):
            if not word.startswith("-"):
                lines.append(
                    f"complete -c boardhand -f -n {_fish_quoted(when)} -a {_fish_quoted(word)}{_about(help_)}\n"
                )
    return "".join(lines)


def _fish_option(option: Option, condition: str) -> str:
    flags = "".join(f" -l {flag[2:]}" if flag.startswith("--") else f" -s {flag[1:]}" for flag in option.flags)
    value = ""
    if option.choices:
        value = f" -x -a {_fish_quoted(' '.join(option.choices))}"
    elif option.value:
        value = " -r" if option.files else " -x"
    when = f" -n {_fish_quoted(condition)}" if condition else ""
    return f"complete -c boardhand{when}{flags}{value}{_about(option.help)}\n"


def _about(text: str) -> str:
    return f" -d {_fish_quoted(text)}" if text else ""


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


# --- all of them -----------------------------------------------------------------------------------------------


def _place(page: Page) -> str:
    return "".join(f"/{word}" for word in page.words)


def _places(root: Page) -> str:
    return " | ".join(_quoted(_place(page)) for page in pages(root) if page.words)


def _told(page: Page) -> Iterator[tuple[str, str]]:
    """The words that may stand here, and what each is."""
    for command in page.commands:
        yield command.words[-1], command.summary
    for argument in page.arguments:
        for choice in argument.choices:
            yield choice, argument.help
    for option in page.options:
        for flag in option.flags:
            yield flag, option.help


def _words(page: Page) -> list[str]:
    return [word for word, _ in _told(page)]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
