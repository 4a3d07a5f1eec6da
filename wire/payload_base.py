"""What all payloads are made of. Found in `wire.payloads` too, from where everybody takes it."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from wire.codec import MAX_SHORT_TEXT
from wire.phases import ErrorKind

MAX_TEXT = 4096

Text = Annotated[str, Field(max_length=MAX_TEXT)]
ShortText = Annotated[str, Field(max_length=MAX_SHORT_TEXT)]
Token = Annotated[int, Field(ge=1, le=2**53)]
Transaction = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")]
BootId = Transaction


class Payload(BaseModel):
    """Base of all payloads: immutable, strict on known keys, tolerant of unknown ones."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class ErrorInfo(Payload):
    """An error as it is told over MQTT. `key` names the payload or settings key at fault where there is one."""

    kind: ErrorKind
    message: Text
    key: ShortText | None = None
