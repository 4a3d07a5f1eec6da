"""The last that a board said, as its agent recorded it: what a browser shows before it goes on live."""

import logging
from collections import deque
from collections.abc import Iterable

from broker.web.asking import Asker, AskError, Data

log = logging.getLogger(__name__)

MOST_LINES = 1000
MOST_PAGES = 12
"""About half a megabyte; of a longer boot the agent has the last lines at hand."""
ANSWER_S = 5.0


async def last_of_boot(asker: Asker, agent: str, board: str) -> bytes:
    """The last lines of this boot, with line ends for a terminal; nothing where that cannot be had."""
    try:
        lines = await _lines(asker, agent, board)
    except AskError as error:
        log.debug("recording of %s: %s", board, error)
        return b""
    return "".join(f"{line}\r\n" for line in lines).encode()


async def _lines(asker: Asker, agent: str, board: str) -> Iterable[str]:
    lines: deque[str] = deque(maxlen=MOST_LINES)
    asked: Data = {"board": board, "do": "read", "boot": 0}
    for _ in range(MOST_PAGES):
        page = await asker.agent(agent, "console", asked, timeout_s=ANSWER_S)
        found = page.get("lines")
        if isinstance(found, list):
            lines.extend(_line(entry) for entry in found if isinstance(entry, list) and len(entry) > 1)
        if page.get("next") is None:
            return lines
        asked["after"] = page["next"]
    status = await asker.agent(agent, "console", {"board": board, "do": "status"}, timeout_s=ANSWER_S)
    last = status.get("last_lines")
    return [str(line) for line in last] if isinstance(last, list) else []


def _line(entry: list[object]) -> str:
    """`[time, text]`, and a third part where it is the agent's own word."""
    return f"-- {entry[1]}" if len(entry) > 2 else str(entry[1])
