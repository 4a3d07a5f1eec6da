"""Topic functions of the contract. Nobody else in the house formats a topic.

A topic is `PREFIX/…`; levels that carry ids were checked by `wire.names` before they come here, and are checked
again, because an id with a `+` or `/` in it would address somebody else.
"""

from dataclasses import dataclass
from typing import NamedTuple

from wire.ids import is_id, mac_topic_level


class BoardTopic(NamedTuple):
    """A topic below `board/<board>/` taken apart: `tail` is what follows the board's id, as `power/set`."""

    board: str
    tail: str


def _checked(level: str) -> str:
    if not is_id(level):
        raise ValueError(f"{level!r} is not an id: use a-z, 0-9 and '-', at most 63 characters")
    return level


@dataclass(frozen=True, slots=True)
class Topics:
    """All topics of one farm, under one prefix."""

    prefix: str = "boardhand"

    def _of(self, kind: str, name: str, tail: str) -> str:
        return f"{self.prefix}/{kind}/{_checked(name)}/{tail}"

    def agent_state(self, agent: str) -> str:
        return self._of("agent", agent, "state")

    def agent_info(self, agent: str) -> str:
        return self._of("agent", agent, "info")

    def agent_request(self, agent: str, verb: str) -> str:
        return self._of("agent", agent, f"request/{_checked(verb)}")

    def agent_response(self, agent: str, verb: str) -> str:
        return self._of("agent", agent, f"response/{_checked(verb)}")

    def agent_alert(self, agent: str, name: str) -> str:
        return self._of("agent", agent, f"alert/{_checked(name)}")

    def board_state(self, board: str) -> str:
        return self._of("board", board, "state")

    def board_info(self, board: str) -> str:
        return self._of("board", board, "info")

    def telemetry(self, board: str) -> str:
        return self._of("board", board, "telemetry")

    def alert(self, board: str, name: str) -> str:
        return self._of("board", board, f"alert/{_checked(name)}")

    def board_self(self, board: str) -> str:
        return self._of("board", board, "self")

    def lease(self, board: str) -> str:
        return self._of("board", board, "lease")

    def work(self, board: str) -> str:
        return self._of("board", board, "work")

    def work_result(self, board: str) -> str:
        return self._of("board", board, "work/result")

    def work_call(self, board: str) -> str:
        return self._of("board", board, "work/call")

    def work_answer(self, board: str) -> str:
        return self._of("board", board, "work/answer")

    def power_set(self, board: str) -> str:
        return self._of("board", board, "power/set")

    def power_result(self, board: str) -> str:
        return self._of("board", board, "power/result")

    def event(self, board: str) -> str:
        return f"{self.prefix}/event/{_checked(board)}"

    def register(self) -> str:
        return f"{self.prefix}/register"

    def register_answer(self, mac: str) -> str:
        return f"{self.prefix}/register/{mac_topic_level(mac)}"

    def broker_state(self) -> str:
        return f"{self.prefix}/broker/state"

    def broker_request(self, verb: str) -> str:
        return f"{self.prefix}/broker/request/{_checked(verb)}"

    def broker_response(self, verb: str) -> str:
        return f"{self.prefix}/broker/response/{_checked(verb)}"

    def job_state(self, job: str) -> str:
        return self._of("job", job, "state")

    def lease_state(self, lease: str) -> str:
        return self._of("lease", lease, "state")

    def notify(self, name: str) -> str:
        return f"{self.prefix}/notify/{_checked(name)}"

    def every_board(self, tail: str) -> str:
        """A filter for `board/+/tail`."""
        return f"{self.prefix}/board/+/{tail}"

    def every_agent(self, tail: str) -> str:
        return f"{self.prefix}/agent/+/{tail}"

    def every_agent_request(self, agent: str) -> str:
        """A filter for `agent/<agent>/request/+`."""
        return self._of("agent", agent, "request/+")

    def every_broker_request(self) -> str:
        return f"{self.prefix}/broker/request/+"

    def every_event(self) -> str:
        return f"{self.prefix}/event/+"

    def every_job_state(self) -> str:
        return f"{self.prefix}/job/+/state"

    def every_lease_state(self) -> str:
        return f"{self.prefix}/lease/+/state"

    def parse_board(self, topic: str) -> BoardTopic | None:
        """The board and the rest of a topic below `board/`, or None if it is another topic or no valid id."""
        return self._parse(topic, "board")

    def parse_agent(self, topic: str) -> BoardTopic | None:
        """As `parse_board`, for `agent/<agent>/…`."""
        return self._parse(topic, "agent")

    def _parse(self, topic: str, kind: str) -> BoardTopic | None:
        head = f"{self.prefix}/{kind}/"
        if not topic.startswith(head):
            return None
        name, _, tail = topic[len(head) :].partition("/")
        return BoardTopic(name, tail) if tail and is_id(name) else None

    def parse_verb(self, topic: str, kind: str) -> str | None:
        """The verb of a `…/request/<verb>` topic under `kind` (`broker`, or `agent/<agent>`), else None."""
        head = f"{self.prefix}/{kind}/request/"
        verb = topic[len(head) :] if topic.startswith(head) else ""
        return verb if is_id(verb) else None
