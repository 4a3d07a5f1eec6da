"""The manual page, made from the command table: `python -m cli.manual_page > boardhand.1`. Format: man(7)."""

import re
import sys

from cli.command_tree import Option, Page, pages, tree

_TITLE = '.TH BOARDHAND 1 "" "boardhand" "User Commands"\n'
_HEADINGS = {  # of the manual's epilog -> of the page
    "which MQTT server, in this order": "MQTT SERVER",
    "environment (an option on the command line comes first)": "ENVIRONMENT",
    "exit codes": "EXIT STATUS",
    "example": "EXAMPLES",
}


def manual_page() -> str:
    """The whole page, in roff."""
    root = tree()
    first, _, rest = root.description.partition("\n\n")
    parts = [
        _TITLE,
        ".SH NAME\nboardhand \\- ",
        _text(first.rstrip(".")),
        '\n.SH SYNOPSIS\n.B boardhand\n.RI [ OPTION " ...] " COMMAND " [" ARGUMENT " ...]"\n',
        f".SH DESCRIPTION\n{_paragraphs(rest)}",
        ".SH OPTIONS\nThey may stand before or after the command.\n",
        *map(_option, root.options),
        ".SH COMMANDS\n",
    ]  # fmt: skip
    shared = {option.flags for option in root.options}
    parts += [_command(page, shared) for page in pages(root) if page.words]
    parts += [*_epilog(root.epilog), ".SH SEE ALSO\n.BR mosquitto (8),\n.BR mosquitto_pub (1),\n.BR udev (7)\n"]
    return "".join(parts)


def _command(page: Page, shared: set[tuple[str, ...]]) -> str:
    own = [option for option in page.options if option.flags not in shared]
    synopsis = " ".join(["boardhand", *page.words, *map(_usage, own), *map(_usage, page.arguments)])
    summary = page.summary[:1].upper() + page.summary[1:]
    parts = [f".SS {_text('boardhand ' + ' '.join(page.words))}\n.PP\n.RS 4\n{_text(synopsis)}\n.RE\n"]
    if summary:
        parts.append(f".PP\n{_text(summary)}.\n")
    parts.append(_verbatim(page.description))
    parts += [_option(argument) for argument in page.arguments if argument.help or argument.choices]
    parts += map(_option, own)
    return "".join(parts)


def _usage(option: Option) -> str:
    words = " ".join([*option.flags[-1:], *([option.value] if option.value else [])])
    return words if option.required else f"[{words}]"


def _option(option: Option) -> str:
    name = ", ".join(option.flags)
    value = f" \\fI{_text(option.value)}\\fR" if option.value else ""
    said = option.help or ("one of " + ", ".join(option.choices) if option.choices else "")
    return f".TP\n\\fB{_text(name)}\\fR{value}\n{_text(said) or '.br'}\n".replace("\\fB\\fR ", "")


def _epilog(text: str) -> list[str]:
    parts = []
    for block in text.split("\n\n"):
        head, _, body = block.partition("\n")
        title = _HEADINGS.get(head.strip().rstrip(":"))
        parts.append(f".SH {title}\n{_verbatim(body)}" if title else _verbatim(block))
    return parts


def _paragraphs(text: str) -> str:
    return "".join(f".PP\n{_lines(block)}\n" for block in text.split("\n\n"))


def _verbatim(text: str) -> str:
    """Text whose lines stay as they are."""
    return f".PP\n.nf\n{_lines(text)}\n.fi\n" if text.strip() else ""


def _lines(text: str) -> str:
    return "\n".join(_text(line) for line in text.split("\n"))


def _text(line: str) -> str:
    """One line of plain text as roff: what looks like a request or an escape is none, and hyphens can be copied."""
    plain = line.replace("\\", "\\e").replace("-", "\\-")
    plain = plain.replace("'", "\\(aq").replace("`", "\\(ga").replace("^", "\\(ha").replace("~", "\\(ti")
    return "\\&" + plain if re.match(r"[.]|\\\(aq", plain) else plain


if __name__ == "__main__":
    sys.stdout.write(manual_page())
