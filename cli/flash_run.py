"""`boardhand flash`: one image, one board, and how far it is."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from cli.actions import run_action
from cli.exits import Exit
from cli.plain_text import shown
from cli.target import Target


class FlashOrder(NamedTuple):
    """What is to be written where. `method`: None where the board has only one."""

    board: str
    image: str
    method: str | None
    sha256: str | None
    check_only: bool

    @property
    def data(self) -> dict[str, object]:
        """As the agent takes it. A file that is here is named by its whole path: the agent may be on this host."""
        image = self.image
        if "://" not in image and not image.startswith("/") and Path(image).is_file():
            image = str(Path(image).resolve())
        found: dict[str, object] = {"image": image, "method": self.method, "sha256": self.sha256}
        found |= {"check_only": True} if self.check_only else {}
        return {key: value for key, value in found.items() if value is not None}


def run(target: Target, order: FlashOrder, *, token: int | None, timeout_s: float, as_json: bool) -> int:
    """Flash, and print what came of it.

    Raises:
        CliError: it was not done; the message says in which mode the board is.
    """
    answer = run_action(target, order.board, "flash", order.data, as_json=as_json, timeout_s=timeout_s, token=token)
    print(json.dumps(answer) if as_json else _text(answer))
    return Exit.OK


def _text(answer: dict[str, Any]) -> str:
    what = f"{shown(answer.get('image'))} ({answer.get('size_bytes')} octets, {shown(answer.get('format'))})"
    board = shown(answer.get("board"))
    if answer.get("checked"):
        return (
            f"{board}: {what} may be flashed by {shown(answer.get('method'))}\n  sha256 {shown(answer.get('sha256'))}"
        )
    mode = answer.get("mode")
    where = f"; mode {shown(mode)}" if mode is not None else ""
    return (
        f"{board}: flashed {what} by {shown(answer.get('tool'))} in {answer.get('took_s')} s;"
        f" {shown(answer.get('verified'))}{where}"
    )
