"""`boardhand power BOARD on|off|cycle|status`: the fast path.

Everything that is imported here is counted: the whole command, start of Python and round trips included, is to take
less than three times `python3 -c pass`. So no dataclasses, typing, argparse, asyncio, pydantic.
"""

import json
import os
import sys
import time

from cli.exits import CliError, Exit, advice_of, exit_of, usage
from cli.lease_tokens import forget, token_for
from cli.plain_text import shown
from cli.session import Session, new_id
from cli.target import Target, check_id

ACTIONS = ("on", "off", "cycle")
TIMEOUT_S = {"on": 60.0, "off": 60.0, "cycle": 120.0}  # a cycle waits out off, the minimum off time, and on
KNOWN_BOARD_TIMEOUT_S = 1.0  # retained state follows the SUBACK at once; the rest is for a slow line
SILENCE_S = 1.0  # after this long without a result it is worth asking whether the agent is there at all
_POWER_WORDS = ("on", "off", "unknown")


class PowerRequest:
    """One parsed `boardhand power` command line."""

    __slots__ = ("action", "board", "expires_s", "force", "json", "timeout_s", "token")

    def __init__(self, board: str, action: str) -> None:
        self.board = check_id("board", board)
        if action not in ACTIONS and action != "status":
            raise usage(f"{action!r} is no power action", "use on, off, cycle or status")
        self.action = action
        self.json = False
        self.force = False
        self.token: int | None = None
        self.timeout_s: float = TIMEOUT_S.get(action, KNOWN_BOARD_TIMEOUT_S)
        self.expires_s: float | None = None

    def payload(self, transaction: str, now_s: float) -> bytes:
        """The command for `power/set`. It always expires, so that a command to an agent that is away is not carried
        out hours later. `now_s` is wall-clock seconds since 1970."""
        ends = time.gmtime(now_s + (self.timeout_s if self.expires_s is None else self.expires_s))
        command: dict[str, object] = {
            "power": self.action,
            "id": transaction,
            "expires": time.strftime("%Y-%m-%dT%H:%M:%SZ", ends),
        }
        if self.token is not None:
            command["token"] = self.token
        if self.force:
            command["force"] = True
        return json.dumps(command).encode()


def _object(payload: bytes) -> dict[str, object] | None:
    try:
        data = json.loads(payload)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _board_state(session: Session, board: str, deadline_s: float) -> dict[str, object]:
    """The retained state of the board, which must already be subscribed.

    Raises:
        CliError: no state came by `deadline_s` (monotonic), so nobody on this server has that board.
    """
    topic = f"{session.prefix}/board/{board}/state"
    while (left := deadline_s - time.monotonic()) > 0:
        message = session.receive(left)
        if message is not None and message.topic == topic and message.payload:
            state = _object(message.payload)
            if state is None:
                raise CliError(Exit.FAILED, f"the state of {board} on the MQTT server is no JSON", "restart its agent")
            return state
    raise CliError(
        Exit.NO_ANSWER,
        f"unknown board {board}: no agent at {session.target.host}:{session.target.port} has it",
        "see 'boardhand boards'",
    )


def _agent_presence(session: Session, agent: object, wait_s: float) -> tuple[str | None, object]:
    """What the retained state of `agent` says (online, offline, lost) and its session; None when nothing readable."""
    try:
        topic = f"{session.prefix}/agent/{check_id('agent', str(agent))}/state"
    except CliError:
        return None, None
    session.subscribe(topic)
    deadline_s = time.monotonic() + wait_s
    while (left := deadline_s - time.monotonic()) > 0:
        message = session.receive(left)
        if message is not None and message.topic == topic:
            said = _object(message.payload) or {}
            state = said.get("state")
            return (state if state in ("online", "offline", "lost") else None), said.get("session")
    return None, None


def _result(session: Session, request: PowerRequest, transaction: str, agent: object) -> dict[str, object]:
    """Wait for the result that carries our id. Results of other people pass by.

    Raises:
        CliError: none came in time, or the agent is not there.
    """
    topic = f"{session.prefix}/board/{request.board}/power/result"
    started_s = time.monotonic()
    deadline_s = started_s + request.timeout_s
    asked = False
    while (now_s := time.monotonic()) < deadline_s:
        if not asked and now_s - started_s >= SILENCE_S:
            asked = True
            _watch_agent(session, agent)
        until_s = deadline_s if asked else min(deadline_s, started_s + SILENCE_S)
        message = session.receive(max(0.0, until_s - now_s))
        if message is None:
            continue
        if message.topic == topic and not message.retain:
            data = _object(message.payload)
            if data is not None and data.get("id") == transaction:
                return data
        elif message.topic.endswith("/state") and message.topic.startswith(f"{session.prefix}/agent/"):
            _must_be_there(message.payload, request, agent)
    raise CliError(
        Exit.NO_ANSWER,
        f"agent {shown(agent)} did not answer for {request.board} within {request.timeout_s:g} s",
        f"see its log, and 'boardhand power {request.board} status'",
    )


def _watch_agent(session: Session, agent: object) -> None:
    try:
        name = check_id("agent", str(agent))
    except CliError:
        return  # the state on the server is not ours; the time limit still holds
    session.subscribe(f"{session.prefix}/agent/{name}/state")


def _must_be_there(payload: bytes, request: PowerRequest, agent: object) -> None:
    presence = (_object(payload) or {}).get("state")
    if presence in ("offline", "lost"):
        raise CliError(
            Exit.NO_ANSWER,
            f"agent {shown(agent)}, which has {request.board}, is {presence}",
            "start it; the command expires by itself",
        )


def _report(request: PowerRequest, result: dict[str, object]) -> int:
    """Print the result and choose the exit code.

    Raises:
        CliError: it failed, or a key of the result has a wrong type.
    """
    ok, power, took_ms, error = (result.get(key) for key in ("ok", "power", "took_ms", "error"))
    if not isinstance(ok, bool) or power not in _POWER_WORDS:
        key = "power" if isinstance(ok, bool) else "ok"
        raise CliError(Exit.FAILED, f"the answer for {request.board} has a wrong '{key}'", "look at the agent's log")
    kind, text = "internal", "no reason given"
    if isinstance(error, dict):
        kind, text = str(error.get("kind", kind)), str(error.get("message", text))
    code = Exit.OK if ok else exit_of(kind)
    took = f", {took_ms:.0f} ms" if isinstance(took_ms, (int, float)) and not isinstance(took_ms, bool) else ""
    if request.json:
        document = {"board": request.board, "action": request.action, "ok": ok, "power": power, "took_ms": took_ms}
        if not ok:
            document["error"] = {"kind": kind, "message": text}
        print(json.dumps(document))
        return code
    if not ok:
        reason = shown(text).removeprefix(f"{request.board}: ")
        what = f"{request.board} {request.action} failed ({shown(kind)}): {reason}; it is {power}"
        raise CliError(code, what, advice_of(kind))
    cycled = "cycled, " if request.action == "cycle" else ""
    seen = "verified" if power != "unknown" else "accepted; this outlet cannot be read back"
    print(f"{request.board} {cycled}{power} ({seen}{took})")
    return code


def _status(session: Session, request: PowerRequest, state: dict[str, object]) -> int:
    agent = state.get("agent")
    presence, agent_session = _agent_presence(session, agent, KNOWN_BOARD_TIMEOUT_S)
    # While its agent is away nobody reads the hardware: the retained word is old news, and power is unknown. So it is
    # until an agent that came back has said it again.
    there = presence == "online" and agent_session == state.get("session")
    power = state.get("power") if there else "unknown"
    if request.json:
        print(json.dumps({"board": request.board, **state, "power": power, "agent_state": presence}))
        return Exit.OK
    parts = [f"{request.board} {shown(power)}"]
    if state.get("target") is not None and state.get("target") != power:
        parts.append(f"asked for {shown(state['target'])}")
    phase = shown(state.get("phase", "?"))
    reason = f" ({shown(state['reason'])})" if state.get("reason") else ""
    parts.append(f"{phase}{reason} since {shown(state.get('since', '?'))}")
    parts.append(f"agent {shown(agent)}" + ("" if presence == "online" else f" is {presence or 'silent'}"))
    print(", ".join(parts))
    return Exit.OK


def run(request: PowerRequest, target: Target) -> int:
    """Carry out one power command and print what came of it. Returns the exit code.

    Raises:
        CliError: as `cli.exits` tells; after a JSON answer the code is returned instead.
    """
    with Session(target) as session:
        head = f"{session.prefix}/board/{request.board}/"
        if request.action == "status":
            session.subscribe(head + "state")
            state = _board_state(session, request.board, time.monotonic() + request.timeout_s)
            return _status(session, request, state)
        session.subscribe(head + "power/result", head + "state")
        state = _board_state(session, request.board, time.monotonic() + KNOWN_BOARD_TIMEOUT_S)
        kept = None if request.token is not None or request.force else token_for(target, request.board, os.environ)
        if kept is not None:
            request.token = kept
        result = _switched(session, request, state.get("agent"))
        if kept is not None and _is_refused(result):
            # The lease is over or somebody else's by now: what would be said to one who has none?
            forget(target, request.board, os.environ)
            request.token = None
            result = _switched(session, request, state.get("agent"))
    return _report(request, result)


def _switched(session: Session, request: PowerRequest, agent: object) -> dict[str, object]:
    transaction = "cli-" + new_id()
    topic = f"{session.prefix}/board/{request.board}/power/set"
    session.publish(topic, request.payload(transaction, time.time()))
    return _result(session, request, transaction, agent)


def _is_refused(result: dict[str, object]) -> bool:
    error = result.get("error")
    return result.get("ok") is False and isinstance(error, dict) and error.get("kind") == "not-allowed"


def parse(arguments: list[str]) -> tuple[PowerRequest, dict[str, str | None]] | None:
    """The usual forms of the command line (what follows `power`), read without argparse. None: let argparse look."""
    words: list[str] = []
    options: dict[str, str | None] = {}
    flags: set[str] = set()
    waiting: str | None = None
    for word in arguments:
        if waiting is not None:
            options[waiting] = word
            waiting = None
        elif word in {"--json", "--force", "--debug"}:
            flags.add(word)
        elif word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            if name not in _VALUED:
                return None
            if equals:
                options[_VALUED[name]] = value
            else:
                waiting = _VALUED[name]
        elif word.startswith("-"):
            return None
        else:
            words.append(word)
    if waiting is not None or len(words) != 2:
        return None
    return fill(PowerRequest(words[0], words[1]), options, flags), options


_VALUED = {
    name: name.replace("-", "_")
    for name in ("mqtt", "prefix", "username", "password-file", "ca-file", "client-cert", "client-key", "token",
                 "expires-s", "timeout-s")
}  # fmt: skip


def fill(request: PowerRequest, options: dict[str, str | None], flags: set[str]) -> PowerRequest:
    """`request` with its options set.

    Raises:
        CliError: a number is none, or out of range.
    """
    request.json = "--json" in flags
    request.force = "--force" in flags
    token = options.get("token")
    if token is not None:
        if not token.isascii() or not token.isdigit() or not 1 <= int(token) <= 2**53:
            raise usage(f"token {token!r} is no lease token", "it is a number from 1; see board/BOARD/lease")
        request.token = int(token)
    request.timeout_s = _seconds("timeout-s", options.get("timeout_s")) or request.timeout_s
    request.expires_s = _seconds("expires-s", options.get("expires_s"))
    return request


def _seconds(name: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 86400:
        raise usage(f"--{name} {text!r} is no duration", "give seconds, more than 0 and at most 86400")
    return value


def main(arguments: list[str], environment: "os._Environ[str] | dict[str, str]") -> int | None:
    """Run `power` from its raw arguments, or return None when they need the full parser."""
    from cli.target import resolve

    parsed = parse(arguments)
    if parsed is None:
        return None
    request, options = parsed
    code = run(request, resolve(options, environment))
    sys.stdout.flush()
    return code
