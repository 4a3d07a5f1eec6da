"""A request to every agent of the farm: who is there is found first, who does not answer is named."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cli.plain_text import shown
from cli.requests import ANSWER_TIMEOUT_S, REPEAT_S
from cli.session import Received, Session, new_id
from wire.payloads import AgentInfo, AgentState, ErrorInfo, PayloadError, Request, Response, decode, encode
from wire.phases import ErrorKind, Presence
from wire.topics import Topics


@dataclass(slots=True)
class AskedAgent:
    """One agent, and how far it has answered."""

    name: str
    state: AgentState | None = None
    boards: frozenset[str] | None = None
    """As it announced them; None when it has not."""
    answers: list[dict[str, Any]] = field(default_factory=list)
    transaction: str = ""
    request: bytes = b""
    repeat_s: float = 0.0
    done: bool = False
    problem: str | None = None
    refusal: ErrorInfo | None = None

    @property
    def online(self) -> bool:
        return self.state is not None and self.state.state is Presence.ONLINE


class AgentsQuestion:
    """One question to all agents on one connection."""

    def __init__(
        self,
        session: Session,
        verb: str,
        data: dict[str, object],
        *,
        boards: Sequence[str] = (),
        goes_on: Callable[[dict[str, Any]], str | None] = lambda _answer: None,
    ) -> None:
        """`boards` limits the question to agents that have one of them. `goes_on` says after which board an answer
        goes on in another one, or None; it raises `PayloadError` for an answer that cannot be read."""
        self._session = session
        self._verb = verb
        self._goes_on = goes_on
        self._topics = Topics(session.prefix)
        self._boards = frozenset(boards)
        self._data = data | ({"boards": sorted(boards)} if boards else {})
        self._agents: dict[str, AskedAgent] = {}

    def ask(self, timeout_s: float = ANSWER_TIMEOUT_S) -> list[AskedAgent]:
        """Find the agents, ask those that may have the boards, and wait for all that are online. Returns those that
        were concerned, by name.

        Raises:
            CliError: the MQTT server cannot be reached, or refuses.
        """
        session, topics = self._session, self._topics
        for message in session.retained(topics.every_agent("state"), topics.every_agent("info")):
            self._take(message)
        concerned = [agent for _, agent in sorted(self._agents.items()) if self._concerns(agent)]
        asked = [agent for agent in concerned if agent.online]
        if asked:
            session.subscribe(*(topics.agent_response(agent.name, self._verb) for agent in asked))
        for agent in asked:
            self._send(agent, after="")
        self._wait(asked, time.monotonic() + timeout_s)
        for agent in concerned:
            if not agent.done:
                state = agent.state.state.value if agent.state is not None else "silent"
                agent.problem = agent.problem or ("did not answer" if agent.online else f"is {state}")
        return concerned

    def _concerns(self, agent: AskedAgent) -> bool:
        if agent.state is None and agent.boards is None and agent.problem is None:
            return False  # its retained messages were cleared: it is no more
        return not self._boards or agent.boards is None or bool(self._boards & agent.boards)

    def _wait(self, asked: list[AskedAgent], deadline_s: float) -> None:
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

    def _send(self, agent: AskedAgent, *, after: str) -> None:
        agent.transaction = "cli-" + new_id()
        data = self._data | ({"after": after} if after else {})
        agent.request = encode(Request(transaction=agent.transaction, data=data))
        self._publish(agent)

    def _publish(self, agent: AskedAgent) -> None:
        self._session.publish(self._topics.agent_request(agent.name, self._verb), agent.request)
        agent.repeat_s = time.monotonic() + REPEAT_S

    def _take(self, message: Received) -> None:
        parsed = self._topics.parse_agent(message.topic)
        if parsed is None:
            return
        agent = self._agents.setdefault(parsed.board, AskedAgent(parsed.board))
        try:
            if parsed.tail == "state":
                agent.state = decode(AgentState, message.payload) if message.payload else None
            elif parsed.tail == "info":
                agent.boards = frozenset(decode(AgentInfo, message.payload).boards) if message.payload else None
            elif parsed.tail == f"response/{self._verb}" and not message.retain:
                self._take_answer(agent, message.payload)
        except PayloadError as error:
            # Somebody else's broken answer must not end our wait; ours carries our transaction.
            if parsed.tail != f"response/{self._verb}" or agent.transaction.encode() in message.payload:
                agent.problem = f"its {parsed.tail} cannot be read: {shown(error, 120)}"

    def _take_answer(self, agent: AskedAgent, payload: bytes) -> None:
        response = decode(Response, payload)
        if response.transaction != agent.transaction or agent.done:
            return
        if not response.ok:
            agent.done = True
            agent.refusal = response.error or ErrorInfo(kind=ErrorKind.INTERNAL, message="no reason given")
            return
        after = self._goes_on(response.data)
        agent.answers.append(response.data)
        if after is not None:
            self._send(agent, after=after)
        else:
            agent.done = True
