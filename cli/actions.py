"""A request to a board's agent that takes its time: sent once, watched to its end, cancelled by Ctrl-C."""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cli.exits import CliError, Exit, advice_of, exit_of
from cli.lease_tokens import token_for
from cli.plain_text import shown
from cli.session import Session, new_id
from cli.target import Target, check_id
from wire.payloads import AgentState, BoardState, Event, PayloadError, Request, Response, decode, encode
from wire.phases import EventType, Presence
from wire.topics import Topics

REPEAT_S = 3.0  # until the agent is heard; the same transaction twice is done once
ANSWER_S = 1.0  # the answer follows the last event at once, unless it was lost with a connection or the agent
KNOWN_BOARD_S = 1.0  # retained state follows the SUBACK at once; the rest is for a slow line
SILENCE_S = 2.0  # an agent that lives says `begun` at once
CANCEL_S = 15.0  # an action that is cancelled puts its board back first

Told = Callable[[str, float | None, str], None]
"""`told(stage, percent, message)`, for each step that the agent tells."""


class ActionRequest:
    """One action of one board. `data` has no `board` and no `token`; both are put in here."""

    def __init__(
        self, target: Target, board: str, verb: str, data: dict[str, object], *, token: int | None = None
    ) -> None:
        self.board, self.verb = check_id("board", board), verb
        self.transaction = "cli-" + new_id()
        found = token if token is not None else token_for(target, board, os.environ)
        self._token = {} if found is None else {"token": found}
        self._target = target
        self._topics = Topics(target.prefix)
        self._data = data
        self._begun = False
        self._ended = False
        self._ask_s = 0.0
        self._presence: str = "silent"

    def run(self, *, timeout_s: float, told: Told) -> dict[str, Any]:
        """The `data` of the agent's answer. After `timeout_s` the agent ends it; Ctrl-C cancels it there, too.

        Raises:
            CliError: the agent said no (by its error kind), is not there, or the server is not reachable.
            KeyboardInterrupt: Ctrl-C; the agent has been told.
        """
        with Session(self._target) as session:
            agent = self._agent(session)
            topics = self._topics
            session.subscribe(
                topics.agent_response(agent, self.verb), topics.event(self.board), topics.agent_state(agent)
            )
            try:
                return self._wait(session, agent, timeout_s, told)
            except KeyboardInterrupt:
                self._cancel(session, agent)
                raise

    def _agent(self, session: Session) -> str:
        topic = self._topics.board_state(self.board)
        session.subscribe(topic)
        deadline_s = time.monotonic() + KNOWN_BOARD_S
        while (left_s := deadline_s - time.monotonic()) > 0:
            message = session.receive(left_s)
            if message is not None and message.topic == topic and message.payload:
                try:
                    return decode(BoardState, message.payload).agent
                except PayloadError as error:
                    why = f"the state of {self.board} on the MQTT server cannot be read: {shown(error, 120)}"
                    raise CliError(Exit.FAILED, why, "restart its agent") from None
        where = f"{self._target.host}:{self._target.port}"
        raise CliError(
            Exit.NO_ANSWER, f"unknown board {self.board}: no agent at {where} has it", "see 'boardhand boards'"
        )

    def _wait(self, session: Session, agent: str, timeout_s: float, told: Told) -> dict[str, Any]:
        data = {"board": self.board, "timeout_s": timeout_s, **self._token, **self._data}
        request = encode(Request(transaction=self.transaction, data=data))
        topic = self._topics.agent_request(agent, self.verb)
        start_s = time.monotonic()
        end_s = start_s + timeout_s + CANCEL_S
        while (now_s := time.monotonic()) < end_s:
            if not self._begun and now_s - start_s > SILENCE_S and self._presence != Presence.ONLINE:
                break
            if now_s >= self._ask_s:
                session.publish(topic, request)
                self._ask_s = now_s + REPEAT_S if self._ended or not self._begun else math.inf
            rest_s = REPEAT_S if self._begun and not self._ended else SILENCE_S / 4
            message = session.receive(min(end_s - now_s, rest_s))
            if message is None:
                continue
            answer = self._take(message.topic, message.payload, agent, told)
            if answer is not None:
                return answer
        presence = "" if self._presence == Presence.ONLINE else f": it is {self._presence}"
        raise CliError(
            Exit.NO_ANSWER, f"agent {agent} did not answer '{self.verb}' for {self.board}{presence}", "see its log"
        )

    def _take(self, topic: str, payload: bytes, agent: str, told: Told) -> dict[str, Any] | None:
        topics = self._topics
        try:
            if topic == topics.agent_state(agent):
                self._agent_is(decode(AgentState, payload).state, agent, told)
            elif topic == topics.event(self.board):
                self._event(decode(Event, payload), told)
            elif topic == topics.agent_response(agent, self.verb):
                return self._answer(decode(Response, payload))
        except PayloadError as error:
            # Somebody else's broken message must not end our wait; an answer to us carries our transaction.
            if topic == topics.agent_response(agent, self.verb) and self.transaction.encode() in payload:
                why = f"agent {agent}: its answer to '{self.verb}' cannot be read: {shown(error, 120)}"
                raise CliError(Exit.FAILED, why, "look at its log") from None
        return None

    def _event(self, event: Event, told: Told) -> None:
        details = event.details
        if event.type is not EventType.ACTION or details.get("transaction") != self.transaction:
            return
        stage = shown(details.get("stage", ""), 60)
        if stage in {"done", "failed"} and not self._ended:
            self._ended, self._ask_s = True, time.monotonic() + ANSWER_S
        elif not self._begun:
            self._ask_s = math.inf
        self._begun = True
        percent = details.get("percent")
        told(
            stage,
            float(percent) if isinstance(percent, int | float) else None,
            str(details.get("message", "")),
        )

    def _agent_is(self, presence: Presence, agent: str, told: Told) -> None:
        """An agent that is back may have ended it meanwhile, or been killed in the midst: it is asked what became of
        it, by the same transaction."""
        before, self._presence = self._presence, presence
        if not self._begun or presence == before:
            return
        if presence == Presence.ONLINE:
            self._ask_s = 0.0
        else:
            told("waiting", None, f"agent {agent} is {presence}")

    def _answer(self, response: Response) -> dict[str, Any] | None:
        if response.transaction != self.transaction:
            return None
        if response.ok:
            return response.data
        if response.error is None:
            raise CliError(Exit.FAILED, f"{self.verb} failed, and no reason was given", "look at the agent's log")
        kind = response.error.kind.value
        raise CliError(exit_of(kind), response.error.message, advice_of(kind))

    def _cancel(self, session: Session, agent: str) -> None:
        data = {"board": self.board, "transaction": self.transaction, **self._token}
        request = Request(transaction="cli-" + new_id(), data=data)
        session.publish(self._topics.agent_request(agent, "cancel-action"), encode(request), wait=True)


@contextmanager
def progress_shown(*, as_json: bool) -> Iterator[Told]:
    """How far an action is: a bar on standard error if that is a terminal, and with `as_json` a line of JSON each."""
    if as_json or not sys.stderr.isatty():
        yield _said_as_json if as_json else _unsaid
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), TaskProgressColumn(),
               TimeElapsedColumn())  # fmt: skip
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None)

        def told(stage: str, percent: float | None, message: str) -> None:
            total = None if percent is None else 100.0
            bars.update(task, description=" ".join(part for part in (stage, shown(message, 60)) if part),
                        completed=percent or 0.0, total=total)  # fmt: skip

        yield told


def _unsaid(_stage: str, _percent: float | None, _message: str) -> None:
    """Neither a terminal nor a program looks."""


def _said_as_json(stage: str, percent: float | None, message: str) -> None:
    step = {"stage": stage, "percent": percent, "message": message}
    print(json.dumps({key: value for key, value in step.items() if value not in (None, "")}), flush=True)


def run_action(
    target: Target,
    board: str,
    verb: str,
    data: dict[str, object],
    *,
    as_json: bool,
    timeout_s: float,
    token: int | None = None,
) -> dict[str, Any]:
    """Send an action to the board's agent and return the `data` of its answer; progress is shown meanwhile.

    With `as_json` each step is printed as a line, `{"stage": …, "percent": …}`; the caller prints the answer after.

    Raises:
        CliError: as `ActionRequest.run`.
    """
    with progress_shown(as_json=as_json) as told:
        return ActionRequest(target, board, verb, data, token=token).run(timeout_s=timeout_s, told=told)
