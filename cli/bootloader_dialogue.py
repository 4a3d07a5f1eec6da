"""`boardhand bootloader`: one action of the board's agent, and its answer for people."""

import json
import sys
from dataclasses import dataclass
from typing import Any

from cli.actions import run_action
from cli.exits import CliError, Exit
from cli.plain_text import shown
from cli.target import Target


@dataclass(frozen=True, slots=True)
class Asked:
    """What to ask for."""

    board: str
    verb: str
    data: dict[str, object]
    token: int | None
    timeout_s: float


def ask(target: Target, asked: Asked, *, as_json: bool) -> int:
    """Have it done and print what came of it. Returns 1 where a command failed.

    Raises:
        CliError: the agent said no, or is not there.
    """
    try:
        answer = run_action(
            target, asked.board, f"bootloader-{asked.verb}", asked.data,
            as_json=as_json, timeout_s=asked.timeout_s, token=asked.token,
        )  # fmt: skip
    except CliError as error:
        if error.code is not Exit.FAILED:
            raise
        raise CliError(error.code, error.message, f"see 'boardhand console {asked.board} --boot 0'") from None
    if as_json:
        print(json.dumps(answer))
    elif asked.verb == "run":
        _show_results(answer)
    elif asked.verb == "env":
        _show_environment(answer)
    elif asked.verb == "boot":
        print(f"{asked.board}: {_line(answer, 'kernel')} ({_seconds(answer)})")
    else:
        print(f"{asked.board}: {_line(answer, 'version')}, at its prompt ({_seconds(answer)})")
    return Exit.FAILED if answer.get("ok") is False else Exit.OK


def _show_results(answer: dict[str, Any]) -> None:
    for result in answer.get("results", ()):
        for line in str(result.get("output", "")).split("\n"):
            if line:
                print(shown(line, 4000))
        if result.get("ok") is False or result.get("ended") != "done":
            how = {"done": "failed", "timeout": "did not end in its time and was interrupted"}
            ended = str(result.get("ended"))
            status = "" if result.get("status") is None else f" (status {result['status']})"
            words = how.get(ended, f"left the boot loader: {ended}")
            print(f"{shown(str(result.get('command')), 120)}: {words}{status}", file=sys.stderr)


def _show_environment(answer: dict[str, Any]) -> None:
    environment = answer.get("environment", {})
    for name, value in sorted(environment.items()):
        if value is None:
            print(f"{shown(name)} is not set", file=sys.stderr)
            continue
        first, *rest = str(value).split("\n")
        print(f"{shown(name)}={shown(first, 8000)}")
        for line in rest:
            print(shown(line, 8000))


def _line(answer: dict[str, Any], key: str) -> str:
    return shown(str(answer.get(key, "?")), 200)


def _seconds(answer: dict[str, Any]) -> str:
    took = answer.get("took_ms")
    return f"{took / 1000:.1f} s" if isinstance(took, int | float) else "?"
