"""`boardhand energy`: what each board used and what sleep saved, asked of every agent of the farm."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cli.boards import COLLECT_DEADLINE_S, QUIET_S
from cli.energy_table import ABOUT, Line, table, total
from cli.exits import CliError, Exit, advice_of, exit_of
from cli.plain_text import shown
from cli.requests import ANSWER_TIMEOUT_S, REPEAT_S
from cli.session import Received, Session, new_id
from cli.target import Target, check_id
from wire.energy import EnergyReport
from wire.payloads import AgentInfo, AgentState, ErrorInfo, PayloadError, Request, Response, decode, encode
from wire.phases import ErrorKind, Presence
from wire.topics import Topics

VERB = "energy"
NOT_METERING = {ErrorKind.CONFIGURATION, ErrorKind.NOT_FOUND}
"""An agent that was told not to meter, or is too old to know how. That is an answer, and no failure."""


@dataclass(slots=True)
class _Agent:
    """One agent, and how far it has answered."""

    name: str
    state: AgentState | None = None
    boards: frozenset[str] | None = None
    """As it announced them; None when it has not."""
    reports: list[EnergyReport] = field(default_factory=list)
    transaction: str = ""
    request: bytes = b""
    repeat_s: float = 0.0
    done: bool = False
    problem: str | None = None
    refusal: ErrorInfo | None = None

    @property
    def online(self) -> bool:
        return self.state is not None and self.state.state is Presence.ONLINE


class EnergyQuestion:
    """One question to all agents on one connection."""

    def __init__(self, session: Session, boards: Sequence[str], data: dict[str, object]) -> None:
        self._session = session
        self._topics = Topics(session.prefix)
        self._boards = frozenset(boards)
        self._data = data | ({"boards": sorted(boards)} if boards else {})
        self._agents: dict[str, _Agent] = {}

    def ask(self, timeout_s: float = ANSWER_TIMEOUT_S) -> list[_Agent]:
        """Find the agents, ask those that may have the boards, and wait for all that are online. Returns those that
        were concerned, by name.

        Raises:
            CliError: the MQTT server cannot be reached, or refuses.
        """
        session, topics = self._session, self._topics
        session.subscribe(topics.every_agent("state"), topics.every_agent("info"))
        quiet_until_s = time.monotonic() + COLLECT_DEADLINE_S
        while time.monotonic() < quiet_until_s and (message := session.receive(QUIET_S)) is not None:
            self._take(message)
        concerned = [agent for _, agent in sorted(self._agents.items()) if self._concerns(agent)]
        asked = [agent for agent in concerned if agent.online]
        if asked:
            session.subscribe(*(topics.agent_response(agent.name, VERB) for agent in asked))
        for agent in asked:
            self._send(agent, after="")
        self._wait(asked, time.monotonic() + timeout_s)
        for agent in concerned:
            if not agent.done:
                state = agent.state.state.value if agent.state is not None else "silent"
                agent.problem = agent.problem or ("did not answer" if agent.online else f"is {state}")
        return concerned

    def _concerns(self, agent: _Agent) -> bool:
        if agent.state is None and agent.boards is None and agent.problem is None:
            return False  # its retained messages were cleared: it is no more
        return not self._boards or agent.boards is None or bool(self._boards & agent.boards)

    def _wait(self, asked: list[_Agent], deadline_s: float) -> None:
        while (now_s := time.monotonic()) < deadline_s:
            waiting = [agent for agent in asked if not agent.done and agent.online]
            if not waiting:
                return
            for agent in waiting:
                if now_s >= agent.repeat_s:
                    self._publish(agent)
            until_s = min([deadline_s, *(agent.repeat_s for agent in waiting)])
            message = self._session.receive(max(0.0, until_s - now_s))
            if message is not None:
                self._take(message)

    def _send(self, agent: _Agent, *, after: str) -> None:
        agent.transaction = "cli-" + new_id()
        data = self._data | ({"after": after} if after else {})
        agent.request = encode(Request(transaction=agent.transaction, data=data))
        self._publish(agent)

    def _publish(self, agent: _Agent) -> None:
        self._session.publish(self._topics.agent_request(agent.name, VERB), agent.request)
        agent.repeat_s = time.monotonic() + REPEAT_S

    def _take(self, message: Received) -> None:
        parsed = self._topics.parse_agent(message.topic)
        if parsed is None:
            return
        agent = self._agents.setdefault(parsed.board, _Agent(parsed.board))
        try:
            if parsed.tail == "state":
                agent.state = decode(AgentState, message.payload) if message.payload else None
            elif parsed.tail == "info":
                agent.boards = frozenset(decode(AgentInfo, message.payload).boards) if message.payload else None
            elif parsed.tail == f"response/{VERB}" and not message.retain:
                self._take_answer(agent, message.payload)
        except PayloadError as error:
            # Somebody else's broken answer must not end our wait; ours carries our transaction.
            if parsed.tail != f"response/{VERB}" or agent.transaction.encode() in message.payload:
                agent.problem = f"its {parsed.tail} cannot be read: {shown(error, 120)}"

    def _take_answer(self, agent: _Agent, payload: bytes) -> None:
        response = decode(Response, payload)
        if response.transaction != agent.transaction or agent.done:
            return
        if not response.ok:
            agent.done = True
            agent.refusal = response.error or ErrorInfo(kind=ErrorKind.INTERNAL, message="no reason given")
            return
        report = decode(EnergyReport, json.dumps(response.data).encode())
        agent.reports.append(report)
        if report.next is not None and report.boards:
            self._send(agent, after=report.next)
        else:
            agent.done = True


def run(
    target: Target, boards: Sequence[str], *, since: float | str, by: str | None, price: float | None, as_json: bool
) -> int:
    """Ask, and print what was answered; whoever did not answer is named, and makes the exit code."""
    for board in boards:
        check_id("board", board)
    data: dict[str, object] = {"since": since}
    if by is not None:
        data["by"] = by
    with Session(target) as session:
        agents = EnergyQuestion(session, boards, data).ask()
    rows = sorted(
        (Line(agent.name, board) for agent in agents for report in agent.reports for board in report.boards),
        key=lambda row: row.board.board,
    )
    error = _failure(target, agents, boards, {row.board.board for row in rows})
    if as_json:
        print(json.dumps(_document(agents, rows, price, error)))
    elif rows:
        _show(agents, rows, price)
    elif not agents:
        print(f"no agents at {target.host}:{target.port} under '{target.prefix}'", file=sys.stderr)
    for agent in agents:
        if agent.refusal is not None and agent.refusal.kind in NOT_METERING:
            print(f"agent {agent.name} does not meter: {shown(agent.refusal.message)}", file=sys.stderr)
    if error is None:
        return Exit.OK
    if not as_json:
        raise error
    print(f"boardhand: {error}", file=sys.stderr)
    return error.code


def _failure(target: Target, agents: list[_Agent], boards: Sequence[str], found: set[str]) -> CliError | None:
    silent = [agent for agent in agents if agent.problem is not None and not agent.done]
    if silent:
        words = ", ".join(f"agent {agent.name} {agent.problem}" for agent in silent)
        return CliError(Exit.NO_ANSWER, f"{words}: its boards are missing here", "see 'boardhand boards'")
    for agent in agents:
        if agent.refusal is not None and agent.refusal.kind not in NOT_METERING:
            kind = agent.refusal.kind.value
            return CliError(exit_of(kind), f"agent {agent.name}: {shown(agent.refusal.message)}", advice_of(kind))
    missing = [board for board in boards if board not in found]
    if missing and any(agent.refusal is not None for agent in agents):
        return CliError(Exit.FAILED, f"{', '.join(missing)}: not metered", "set meter_every_s in the agent's settings")
    if missing:
        where = f"{target.host}:{target.port}"
        return CliError(
            Exit.NO_ANSWER, f"unknown board {', '.join(missing)}: no agent at {where} has it", "see 'boardhand boards'"
        )
    return None


def _document(agents: list[_Agent], rows: list[Line], price: float | None, error: CliError | None) -> dict[str, object]:
    reports = {agent.name: agent.reports[0] for agent in agents if agent.reports}
    document: dict[str, object] = {
        "boards": [
            {
                "agent": row.agent,
                "since": reports[row.agent].since.isoformat(),
                "until": reports[row.agent].until.isoformat(),
                **row.board.model_dump(mode="json"),
            }
            for row in rows
        ],
        "total": total(row.board for row in rows).model_dump(mode="json"),
        "price_per_kwh": price,
        "silent": [agent.name for agent in agents if not agent.done],
        "not_metering": [agent.name for agent in agents if agent.refusal is not None],
    }
    if error is not None:
        document |= {"ok": False, "error": {"exit": int(error.code), "message": error.message, "do": error.advice}}
    return document


def _show(agents: list[_Agent], rows: list[Line], price: float | None) -> None:
    begun = min(report.since for agent in agents for report in agent.reports)
    print(f"since {begun.astimezone():%Y-%m-%d %H:%M %Z}")
    text = "\n".join(table(rows, price))
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        text = text.replace(ABOUT, "~")
    print(text)
