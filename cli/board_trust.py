"""What the broker says of a board's health, and what a person says of the board."""

import json
from typing import Any

from cli.exits import Exit
from cli.plain_text import shown, shown_log
from cli.requests import ANSWER_TIMEOUT_S, ask_broker, unreadable
from cli.target import Target, check_id

_DONE = {
    "accept": "is trusted",
    "check": "will be checked before it works again",
    "retire": "is retired",
    "forget": "is forgotten",
}


def say(target: Target, board: str, verb: str, on: bool | None, *, as_json: bool) -> int:  # noqa: FBT001  # on or off
    """Accept, check, retire or forget a board, or have its agent begin or end maintenance."""
    check_id("board", board)
    data: dict[str, object] = {"board": board} | ({} if on is None else {"on": on})
    answer = ask_broker(target, verb, data, timeout_s=ANSWER_TIMEOUT_S, patient=False)
    if as_json:
        print(json.dumps(answer))
    else:
        print(f"{board} {_DONE[verb] if on is None else 'is in maintenance' if on else 'is out of maintenance'}")
    return Exit.OK


def show(target: Target, board: str, *, as_json: bool) -> int:
    """Whether the board is trusted, and if not the evidence. The exit code is 0 in either case."""
    check_id("board", board)
    answer = ask_broker(target, "health", {"board": board}, timeout_s=ANSWER_TIMEOUT_S, patient=False)
    if as_json:
        print(json.dumps(answer))
        return Exit.OK
    try:
        found = answer["boards"]
        print("\n".join(_told(found[0])) if found else f"{board}: no health job is set for it: it takes work")
    except (KeyError, TypeError, IndexError, AttributeError):
        raise unreadable("health", answer) from None
    return Exit.OK


def _told(found: dict[str, Any]) -> list[str]:
    why = f": {shown(found['why'])}" if found.get("why") else ""
    told = [f"{shown(found['board'])}: {shown(found['health'])} since {shown(found['since'])}{why}"]
    if found.get("boots_s"):
        told.append(f"cold boots took {', '.join(f'{float(took_s):g} s' for took_s in found['boots_s'])}")
    for failure in found.get("evidence", []):
        told.append(f"{shown(failure['at'])} {shown(failure['why'])}")
        if failure.get("diagnosis"):
            told.append(f"  {shown(failure['diagnosis'])}")
        told += [f"  | {line}" for line in shown_log(failure.get("log", "")).splitlines()]
    return told
