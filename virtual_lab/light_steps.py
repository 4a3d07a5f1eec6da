"""What a light board can run: a few commands of a shell, played and not executed.

`echo`, `sleep`, `true`, `false`, `:` and `exit`, joined by newlines, `;` and `&&`. Whatever else is asked for is "not
found". Nothing touches the host.
"""

import asyncio
import re
import shlex
from collections.abc import Callable

NOT_FOUND = 127
_USAGE = 2
_CONSTANT = {"true": 0, ":": 0, "false": 1}


class _Exit(Exception):  # noqa: N818  # no error: the script's own end
    def __init__(self, code: int) -> None:
        self.code = code


async def play(script: str, output: Callable[[str], None]) -> int:
    """Play `script`; its output goes to `output`. Returns the exit code of its last command."""
    code = 0
    try:
        for line in re.split(r"[\n;]", script):
            for command in line.split("&&"):
                code = await _command(command, output)
                if code:
                    break
    except _Exit as end:
        return end.code
    return code


async def _command(text: str, output: Callable[[str], None]) -> int:
    try:
        words = shlex.split(text, comments=True)
    except ValueError as error:
        output(f"light board: {error}\n")
        return _USAGE
    name, arguments = (words[0], words[1:]) if words else (":", [])
    if name in _CONSTANT:
        return _CONSTANT[name]
    if name == "echo":
        output(" ".join(arguments) + "\n")
        return 0
    try:
        if name == "exit":
            raise _Exit(int(arguments[0]) & 0xFF if arguments else 0)
        if name == "sleep":
            await asyncio.sleep(max(0.0, float(arguments[0])))
            return 0
    except (ValueError, IndexError):
        output(f"light board: {name}: a number is needed\n")
        return _USAGE
    output(f"light board: {name}: not found (it has echo, sleep, true, false, exit)\n")
    return NOT_FOUND
