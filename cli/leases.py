"""Boards for people: `reserve`, `extend`, `release`, `hand-over` and `leases`."""

import contextlib
import getpass
import json
import os
import re
import sys
import time
from argparse import Namespace
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cli import lease_tokens
from cli.exits import CliError, Exit, usage
from cli.plain_text import shown
from cli.requests import ANSWER_TIMEOUT_S, SUBMIT_TIMEOUT_S, ask_broker, unreadable
from cli.target import Target, check_id

# Somebody who waits for a board does not mind; a hundred who do must not be felt by the broker.
POLL_S = 2.0
# A broker or an MQTT server that restarts is waited for; longer than this it does not come back by itself.
WATCH_PATIENCE_S = 120.0
MAX_HOLDER = 63
_LABEL = re.compile(r"([A-Za-z0-9_.-]+)\s*(>=|<=|==|!=|=|>|<)\s*(.+)")


@dataclass(frozen=True, slots=True)
class Wish:
    """What `reserve` wants. `off` None: as the farm's settings say."""

    what: list[str]
    for_s: float
    comment: str = ""
    wait: bool = False
    wait_s: float | None = None
    wake: bool = False
    off: bool | None = None

    def data(self) -> dict[str, object]:
        """The request's data, without the holder.

        Raises:
            CliError: it is neither a board nor labels.
        """
        board: str | None = None
        labels: dict[str, object] = {}
        for word in self.what:
            match = _LABEL.fullmatch(word.strip())
            if match is not None:
                labels[match[1]] = match[3] if match[2] in {"=", "=="} else f"{match[2]} {match[3]}"
            elif board is not None:
                raise usage(f"{board} and {word}: one board at a time", "reserve the other by a command of its own")
            else:
                board = check_id("board", word)
        data: dict[str, object] = {"labels": labels, "for_s": self.for_s, "wait": self.wait, "wake": self.wake}
        data |= {"comment": self.comment[:256]} if self.comment else {}
        data |= {"board": board} if board is not None else {}
        return data | ({"off": self.off} if self.off is not None else {})


def me(asked: str | None) -> str:
    """In whose name a board is reserved.

    Raises:
        CliError: it is no name.
    """
    try:
        name = asked or getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        raise usage("this user has no name", "give one with --holder NAME") from None
    if len(name) > MAX_HOLDER or re.search(r"[\s/\x00-\x1f\x7f]", name):
        raise usage(f"holder {shown(name)!r} is no name", "letters, digits and dashes, without '/' or blanks")
    return name


def _owned(lease: str, args: Namespace) -> dict[str, object]:
    """Which lease is meant, and whose it must be."""
    check_id("lease", lease)
    owned: dict[str, object] = {"lease": lease}
    return owned if args.force else {**owned, "holder": me(args.holder)}


def _ask(target: Target, verb: str, data: dict[str, object], advice: str, *, patient: bool = False) -> dict[str, Any]:
    timeout_s = SUBMIT_TIMEOUT_S if patient else ANSWER_TIMEOUT_S
    try:
        return ask_broker(target, verb, data, timeout_s=timeout_s, patient=patient)
    except CliError as error:
        if error.code is Exit.NOT_ALLOWED:
            raise CliError(error.code, error.message, advice) from None
        raise


def reserve(target: Target, wish: Wish, holder: str | None, *, as_json: bool) -> int:
    """Reserve a board; with `wait`, return when it is there."""
    who = me(holder)
    asked = {**wish.data(), "holder": who}
    data = _ask(target, "reserve", asked, "see 'boardhand leases', or queue with --wait", patient=True)
    if "waits" in data:
        data = _wait(target, str(data.get("lease")), who, wish.wait_s, as_json=as_json)
    board = _keep(target, data)
    if as_json:
        print(json.dumps(data))
        return Exit.OK
    print(f"{board} is yours until {_clock(data.get('expires'))} ({shown(str(data.get('lease')))})")
    print(f"  boardhand power {board} cycle      the token is kept for you; elsewhere add --token {data.get('token')}")
    print(f"  boardhand extend {board} --for 1h  one hour from now")
    print(f"  boardhand release {board}          give it back", flush=True)
    return Exit.OK


def _keep(target: Target, data: dict[str, Any]) -> str:
    board, token = data.get("board"), data.get("token")
    if not isinstance(board, str) or not isinstance(token, int):
        raise unreadable("word on the lease", data)
    problem = lease_tokens.keep(target, check_id("board", board), token, os.environ)
    if problem is not None:
        print(f"the token could not be kept ({problem}): give --token {token} to power commands", file=sys.stderr)
    return board


def _wait(target: Target, lease: str, who: str, wait_s: float | None, *, as_json: bool) -> dict[str, Any]:
    """Wait in the queue until the board is there; whoever gives up leaves the queue."""
    check_id("lease", lease)
    try:
        if _is_held(target, lease, wait_s, as_json=as_json):
            # A second from now changes nothing: this fetches the token.
            return _ask(target, "extend", {"lease": lease, "for_s": 1, "holder": who}, "see 'boardhand leases'")
    except (CliError, KeyboardInterrupt):
        with contextlib.suppress(CliError):
            _ask(target, "release", {"lease": lease, "holder": who}, "")
        raise
    raise CliError(Exit.CANCELLED, f"{lease} is over: somebody took it out of the queue", "reserve again")


def _is_held(target: Target, lease: str, wait_s: float | None, *, as_json: bool) -> bool:
    """Returns when there is a board; False when the lease is gone.

    Raises:
        CliError: it took longer than `wait_s`.
    """
    ends = None if wait_s is None else time.monotonic() + wait_s
    told = ""
    while (line := next(iter(_all(target, patient=True, lease=lease)), None)) is not None:
        if line.get("board") is not None:
            return True
        waits = shown(str(line.get("waits") or ""))
        if waits != told and not as_json:
            told = waits
            print(f"{lease} {waits}", file=sys.stderr, flush=True)
        if ends is not None and time.monotonic() >= ends:
            raise CliError(Exit.NO_ANSWER, f"no board in {wait_s:g} s: {waits}", "try later, or wait longer")
        time.sleep(POLL_S if ends is None else max(0.0, min(POLL_S, ends - time.monotonic())))
    return False


def extend(target: Target, lease: str, for_s: float, args: Namespace, *, as_json: bool) -> int:
    """Hold it for so long from now on."""
    data = _ask(target, "extend", {**_owned(lease, args), "for_s": for_s}, "or --force, if you are an operator")
    if data.get("holder") == me(args.holder):
        _keep(target, data)
    if as_json:
        print(json.dumps(data))
    else:
        print(f"{shown(str(data.get('board')))} is {_whose(data, args)} until {_clock(data.get('expires'))}")
    return Exit.OK


def release(target: Target, lease: str, args: Namespace, *, as_json: bool) -> int:
    """Give it back."""
    data = _ask(target, "release", _owned(lease, args), "or --force, if you are an operator", patient=True)
    board = data.get("board")
    if isinstance(board, str):
        lease_tokens.forget(target, check_id("board", board), os.environ)
    print(json.dumps(data) if as_json else f"{board} is given back" if board else f"{lease} has left the queue")
    return Exit.OK


def hand_over(target: Target, lease: str, to: str, args: Namespace, *, as_json: bool) -> int:
    """Make it somebody else's."""
    data = _ask(target, "hand-over", {**_owned(lease, args), "to": me(to)}, "or --force, if you are an operator")
    board, token = data.get("board"), data.get("token")
    if not isinstance(board, str) or not isinstance(token, int):
        raise unreadable("word on the lease", data)
    lease_tokens.forget(target, check_id("board", board), os.environ)
    if as_json:
        print(json.dumps(data))
    else:
        print(f"{board} is {shown(to)}'s until {_clock(data.get('expires'))}; tell them: token {token}")
        print(f"  boardhand extend {board} --for 1h --holder {shown(to)}   keeps the token on their machine")
    return Exit.OK


def show(target: Target, args: Namespace, *, as_json: bool) -> int:
    """Print who holds what, and who waits."""
    from cli.boards import age, lines  # they come with pydantic: 0.1 s that `reserve` need not wait

    found = _all(target, patient=False)
    if args.mine:
        who = me(args.holder)
        found = [line for line in found if line.get("holder") == who]
    if as_json:
        print(json.dumps({"leases": found}))
        return Exit.OK
    now = datetime.now(UTC)
    heads = ("LEASE", "BOARD", "HOLDER", "SINCE", "UNTIL", "FOR")
    rows = [
        (
            shown(str(line.get("lease", "?"))),
            shown(str(line.get("board") or "(waits)")),
            shown(str(line.get("holder", "?")), 40),
            age(str(line.get("since") or line.get("asked") or ""), now),
            _clock(line.get("expires")) if line.get("expires") else "",
            shown(str(line.get("reason") or line.get("waits") or line.get("comment") or ""), 80),
        )
        for line in found
    ]
    print("\n".join(lines(rows, heads)) if rows else "nobody holds a board")
    return Exit.OK


def _all(target: Target, *, patient: bool, lease: str | None = None) -> list[dict[str, Any]]:
    """Every line of the broker's list, however many answers it takes; or that of one lease."""
    only = {} if lease is None else {"lease": lease}
    found: list[dict[str, Any]] = []
    timeout_s = WATCH_PATIENCE_S if patient else ANSWER_TIMEOUT_S
    while True:
        data = ask_broker(target, "leases", {"start": len(found), **only}, timeout_s=timeout_s, patient=patient)
        part = data.get("leases")
        if not isinstance(part, list) or not all(isinstance(line, dict) for line in part):
            raise unreadable("list of leases", data)
        found += part
        if not data.get("more") or not part:
            return found


def _whose(data: dict[str, Any], args: Namespace) -> str:
    holder = str(data.get("holder"))
    return "yours" if holder == me(args.holder) else f"{shown(holder)}'s"


def _clock(text: object) -> str:
    """A time by this machine's clock and zone; with its date where that is another day."""
    try:
        when = datetime.fromisoformat(str(text)).astimezone()
    except ValueError:
        return shown(str(text), 40)
    same_day = when.date() == datetime.now(UTC).astimezone().date()
    return f"{when:%H:%M}" if same_day else f"{when:%Y-%m-%d %H:%M}"
