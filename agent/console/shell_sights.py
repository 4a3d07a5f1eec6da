"""What stands on a console that is quiet: a login prompt, a shell's, or something else. Patterns, and nothing else."""

import re

from agent.console.shell_table import Sight

_LOGIN = re.compile(rb"(?:\A|[\w.-] )login: ?\Z")
_LAST_LOGIN = re.compile(rb"[Ll]ast login: ?\Z")
_PASSWORD = re.compile(rb"[Pp]assword(?: for \S{1,64})?: ?\Z")
_ENTER = re.compile(rb"press Enter to activate this console\.? *\Z", re.IGNORECASE)
PROMPT = re.compile(rb"\A.{0,120}[#$%] ?\Z")
_ESCAPES = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)?|[()][0-9A-Za-z]|[=>78cDEHM])")
_PRINTK = re.compile(rb"\[ {0,4}\d{1,8}\.\d{6}\](?:\[ *[TC]\d{1,8}\])? [^\r\n]*(?:\r*\n|\Z)")
"""A kernel's message, wherever the cursor was."""


def last_line(tail: bytes) -> bytes:
    """What stands on the line that has not ended, without a terminal's escape sequences and a kernel's messages."""
    text = _PRINTK.sub(b"", _ESCAPES.sub(b"", tail))
    return text[max(text.rfind(b"\n"), text.rfind(b"\r")) + 1 :]


def sight_of(line: bytes) -> Sight:
    """What the line that has not ended is."""
    if _PASSWORD.search(line) is not None:
        return Sight.PASSWORD
    if _LOGIN.search(line) is not None and _LAST_LOGIN.search(line) is None:
        return Sight.LOGIN
    return Sight.ENTER if _ENTER.search(line) is not None else Sight.OTHER
