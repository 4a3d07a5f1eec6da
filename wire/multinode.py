"""What boards and broker say about MultiNode calls: `board/<board>/work/call`, and its answers on
`board/<board>/work/answer`.

Additive to the contract: boards that know nothing of it never call.
"""

from typing import Annotated, Literal

from pydantic import Field

from wire.names import Id
from wire.payload_base import Payload, Token

CALL_TAIL = "work/call"
MAX_CALL_LETTERS = 32 * 1024
MAX_ANSWER_LETTERS = 32 * 1024
"""Escaped for JSON it fits one message of any server."""
CallId = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]{1,64}$")]


class WorkCall(Payload):
    """Board to broker; repeated until it is answered. `text` is what the board's scripts wrote: the broker reads it."""

    kind: Literal["call"] = "call"
    job: Id
    token: Token
    call: CallId
    text: Annotated[str, Field(max_length=MAX_CALL_LETTERS)]


class WorkAnswer(Payload):
    """Broker to board: the call is over. `text` is what it gives, or why it failed."""

    kind: Literal["answer"] = "answer"
    job: Id
    token: Token
    call: CallId
    ok: bool
    text: Annotated[str, Field(max_length=MAX_ANSWER_LETTERS)] = ""
