"""`boardhand join`: who was heard and is no board, and what a person says of them."""

import json
from collections.abc import Mapping
from typing import Any

from cli.agent_requests import AgentsQuestion, AskedAgent
from cli.boards import lines
from cli.exits import CliError, Exit, advice_of, exit_of, usage
from cli.plain_text import shown
from cli.requests import ANSWER_TIMEOUT_S, unreadable
from cli.session import Session
from cli.target import Target, check_id
from wire.ids import normal_mac
from wire.topics import Topics

COLUMNS = ("MAC", "NAME", "MODEL", "ARCH", "SERIAL", "ADDRESS", "LAST", "SAID")
ACCEPT_TIMEOUT_S = 60.0  # an agent with 500 boards that is busy reads its settings anew


class _OneAgent(AgentsQuestion):
    """A question to the agent of this name alone; without a name to all."""

    def __init__(self, session: Session, agent: str | None, verb: str, data: dict[str, object]) -> None:
        super().__init__(session, verb, data)
        self._only = agent

    def _concerns(self, agent: AskedAgent) -> bool:
        return super()._concerns(agent) and self._only in {None, agent.name}


def _asked(session: Session, agent: str | None) -> list[AskedAgent]:
    """Every agent with its strangers. Names that boards of the farm have are told, so that none is proposed."""
    topics = Topics(session.prefix)
    parsed = (topics.parse_board(message.topic) for message in session.retained(topics.every_board("state")))
    taken = sorted({found.board for found in parsed if found is not None})
    if agent is not None:
        check_id("agent", agent)
    found = _OneAgent(session, agent, "strangers", {"taken": taken}).ask()
    if agent is not None and not found:
        raise CliError(Exit.NO_ANSWER, f"there is no agent {agent}", "see 'boardhand outlets'")
    return found


def show(target: Target, agent: str | None, *, everybody: bool, as_json: bool) -> int:
    """Who was heard by whom."""
    with Session(target) as session:
        agents = _asked(session, agent)
    answers = [(one.name, answer) for one in agents for answer in one.answers]
    try:
        if not everybody:
            for _, answer in answers:
                answer["strangers"] = [found for found in answer["strangers"] if not found.get("refused")]
        if as_json:
            silent = [one.name for one in agents if not one.done]
            print(json.dumps({"agents": [{"agent": name, **answer} for name, answer in answers], "silent": silent}))
        else:
            print("\n\n".join("\n".join(_told(name, answer)) for name, answer in answers) or "no agent answered")
    except (KeyError, TypeError, AttributeError):
        raise unreadable("strangers", answers) from None
    for one in agents:
        _check(one)
    return Exit.OK


def _told(agent: str, answer: dict[str, Any]) -> list[str]:
    open_until = f"open until {shown(answer['until'])}" if answer.get("until") else "open"
    head = f"agent {agent}: joining is {open_until if answer['open'] else 'closed'}"
    rows = [_row(found) for found in answer["strangers"]]
    if not rows:
        return [f"{head}; nobody unknown was heard"]
    free = answer.get("free_outlets", [])
    outlets = f"outlets without a board: {', '.join(map(shown, free))}" if free else "every outlet feeds a board"
    return [head, *(f"  {line}" for line in lines(rows, COLUMNS)), f"  {outlets}"]


def _row(found: dict[str, Any]) -> tuple[str, ...]:
    said = found.get("said", {})
    words = [found.get("vendor_class", ""), ", ".join(found.get("names", [])), found.get("why", "")]
    return (
        shown(found["mac"] or "?"),
        shown(found["name"]) + (" (refused)" if found.get("refused") else ""),
        shown(found.get("model", ""), 40),
        shown(found.get("arch", "")),
        shown(said.get("serial", ""), 24),
        shown(found.get("address", "")),
        shown(found["last_at"]),
        shown("; ".join(filter(None, words)), 80),
    )


def switch(target: Target, agent: str | None, *, is_open: bool, for_s: float, as_json: bool) -> int:
    """Open joining for a time, or close it: at the agent that is named, or at the only one with a board network."""
    data: dict[str, object] = {"open": is_open, "for_s": for_s}
    with Session(target) as session:
        if agent is None:
            names = [one.name for one in _asked(session, None) if one.done]
            if len(names) > 1 and is_open:
                raise usage(f"there are {len(names)} agents: {', '.join(names)}", "say which one with --agent")
        found = _OneAgent(session, agent, "joining", data).ask()
    if not found:
        raise CliError(Exit.NO_ANSWER, "no agent is there", "see 'boardhand outlets'")
    for one in found:
        _check(one)
        answer = one.answers[0]
        until = f" until {shown(answer.get('until'))}" if answer.get("until") else ""
        state = "open" if answer.get("open") else "closed"
        print(json.dumps({"agent": one.name, **answer}) if as_json else f"joining at {one.name} is {state}{until}")
    return Exit.OK


def accept(target: Target, agent: str | None, mac: str, wishes: Mapping[str, object], *, as_json: bool) -> int:
    """Make a stranger a board."""
    data = {key: value for key, value in wishes.items() if value is not None}
    labels = data.get("labels")
    if isinstance(labels, list):
        data["labels"] = dict(map(_label, labels))
    if isinstance(name := data.get("name"), str):
        check_id("board", name)
    answer = _say(target, agent, mac, "accept-board", data)
    if as_json:
        print(json.dumps(answer))
        return Exit.OK
    settings = answer.get("settings", {})
    print(f"{shown(answer.get('board'))} joined at {shown(answer['agent'])}: {_facts(settings)}")
    print(("" if answer.get("live") else "not taken up yet: ") + shown(answer.get("do", "")))
    return Exit.OK


def _facts(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {shown(json.dumps(value), 80)}" for key, value in settings.items())


def _label(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise usage(f"--label {text!r} is not KEY=VALUE", "write --label arch=arm64")
    try:
        parsed = json.loads(value)
    except ValueError:
        return key, value
    return key, parsed if isinstance(parsed, bool | int | float | str) else value


def refuse(target: Target, agent: str | None, mac: str, *, undo: bool, as_json: bool) -> int:
    """Hide a stranger, and let it have nothing; or not any more."""
    answer = _say(target, agent, mac, "refuse-board", {"undo": undo}, ends=True)
    state = "is refused" if answer.get("refused") else "is not refused any more"
    print(json.dumps(answer) if as_json else f"{shown(answer.get('mac'))} {state} at {shown(answer['agent'])}")
    return Exit.OK


def _say(
    target: Target, agent: str | None, mac: str, verb: str, data: dict[str, object], *, ends: bool = False
) -> dict[str, Any]:
    """Ask the agent that heard `mac`. `ends`: the one that is named need not have heard it."""
    try:
        mac = normal_mac(mac)
    except ValueError as error:
        raise usage(str(error), "see 'boardhand join list'") from None
    with Session(target) as session:
        agents = _asked(session, agent)
        heard = [one for one in agents for answer in one.answers if mac in _macs(answer)]
        if ends and agent is not None:
            heard = heard or agents
        if not heard:
            for one in agents:
                _check(one)
            raise CliError(Exit.NO_ANSWER, f"no agent has heard {mac}", "power the board up; see 'boardhand join list'")
        if len(heard) > 1:
            names = ", ".join(one.name for one in heard)
            raise usage(f"{mac} was heard by {names}", "say which one with --agent")
        (found,) = _OneAgent(session, heard[0].name, verb, {"mac": mac, **data}).ask(
            ACCEPT_TIMEOUT_S if verb == "accept-board" else ANSWER_TIMEOUT_S
        )
    _check(found)
    return {"agent": found.name, **found.answers[0]}


def _macs(answer: dict[str, Any]) -> list[object]:
    try:
        return [found["mac"] for found in answer["strangers"]]
    except (KeyError, TypeError):
        raise unreadable("strangers", answer) from None


def _check(agent: AskedAgent) -> None:
    if agent.refusal is not None:
        kind = agent.refusal.kind.value
        raise CliError(exit_of(kind), f"agent {agent.name}: {shown(agent.refusal.message)}", advice_of(kind))
    if not agent.done:
        raise CliError(Exit.NO_ANSWER, f"agent {agent.name} {agent.problem}", "see 'boardhand boards'")
