"""`boardhand console BOARD --send | --expect | --run`: asked of the board's agent, with an exit code for scripts."""

import json
import sys
from dataclasses import dataclass, field

from cli.actions import run_action
from cli.exits import Exit, usage
from cli.plain_text import shown
from cli.target import Target

GRACE_S = 90.0
"""Beside the time that was asked for: for a login, and for a command that has to be ended."""
WRITE_S = 120.0
_ESCAPES = {"r": "\r", "n": "\n", "t": "\t", "e": "\x1b", "\\": "\\"}


@dataclass(frozen=True, slots=True)
class Dialogue:
    """What is to be done on the console."""

    board: str
    send: str | None = None
    expect: list[str] = field(default_factory=list)
    regex: bool = False
    run: str | None = None
    timeout_s: float | None = None
    token: int | None = None


def unescaped(text: str) -> str:
    """`text` with `\\r`, `\\n`, `\\t`, `\\e`, `\\xNN` and `\\\\` taken for what they stand for.

    Raises:
        CliError: another one stands in it.
    """
    out, at = [], 0
    while at < len(text):
        if text[at] != "\\":
            out.append(text[at])
            at += 1
            continue
        name, digits = text[at + 1 : at + 2], text[at + 2 : at + 4]
        if name in _ESCAPES:
            out.append(_ESCAPES[name])
            at += 2
        elif name == "x" and len(digits) == 2 and all(digit in "0123456789abcdefABCDEF" for digit in digits):
            out.append(chr(int(digits, 16)))
            at += 4
        else:
            raise usage(f"--send: \\{name} stands for nothing", r"write \r, \n, \t, \e, \xNN, or \\ for itself")
    return "".join(out)


def talk(target: Target, wanted: Dialogue, *, as_json: bool) -> int:
    """Do it. Returns FAILED where nothing that was expected came, or the command did not end with 0.

    Raises:
        CliError: the agent said no, or nobody answers.
    """
    if wanted.run is not None:
        return _run(target, wanted, as_json=as_json)
    if wanted.expect:
        return _expect(target, wanted, as_json=as_json)
    data: dict[str, object] = {"text": unescaped(wanted.send or "")}
    answer = run_action(
        target, wanted.board, "console-write", data, as_json=as_json, timeout_s=WRITE_S, token=wanted.token
    )
    if as_json:
        print(json.dumps(answer))
    return Exit.OK


def _expect(target: Target, wanted: Dialogue, *, as_json: bool) -> int:
    for_s = 30.0 if wanted.timeout_s is None else wanted.timeout_s
    data: dict[str, object] = {"patterns": wanted.expect, "regex": wanted.regex, "for_s": for_s}
    if wanted.send is not None:
        data["send"] = unescaped(wanted.send)
    answer = run_action(
        target, wanted.board, "console-expect", data, as_json=as_json, timeout_s=for_s + GRACE_S, token=wanted.token
    )
    matched = answer.get("matched") is not None
    if as_json:
        print(json.dumps(answer))
    elif matched:
        print(shown(str(answer.get("match")), 4000))
    else:
        last = str(answer.get("before", "")).rstrip().splitlines()[-1:] or ["nothing"]
        print(f"boardhand: not seen in {for_s:g} s; the last on it: {shown(last[0], 200)}", file=sys.stderr)
    return Exit.OK if matched else Exit.FAILED


def _run(target: Target, wanted: Dialogue, *, as_json: bool) -> int:
    for_s = 600.0 if wanted.timeout_s is None else wanted.timeout_s
    data: dict[str, object] = {"command": wanted.run, "for_s": for_s}
    answer = run_action(
        target, wanted.board, "console-run", data, as_json=as_json, timeout_s=for_s + GRACE_S, token=wanted.token
    )
    code, problem = answer.get("exit_code"), answer.get("problem")
    if as_json:
        print(json.dumps(answer))
        return Exit.OK if code == 0 else Exit.FAILED
    output = str(answer.get("output", ""))
    print("\n".join(shown(line, 20_000) for line in output.splitlines()))
    if code != 0:
        why = shown(str(problem), 400) if problem else f"exit code {code}"
        print(f"boardhand: {why}", file=sys.stderr)
    return Exit.OK if code == 0 else Exit.FAILED
