"""What may be asked of a boot loader over MQTT: the data of the `bootloader-…` actions."""

from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agent.requests import RequestError
from wire.phases import ErrorKind

Command = Annotated[str, Field(min_length=1, max_length=4000)]
MAX_COMMANDS = 200
MAX_VARIABLES = 500


class BootloaderRequest(BaseModel):
    """What all of them have. Unknown keys are tolerated, as everywhere in the contract."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    token: int | None = None
    """Of the board's lease; checked before it came here."""
    cycle: bool = False
    """Cycle the board's power and catch its boot loader first; else it must stand at its prompt."""
    take: bool = False
    """Take the console's writer's place from whoever types there; who shows a lease's token takes it in any case."""


class CatchRequest(BootloaderRequest):
    """`bootloader-catch`. With `cycle` false nothing is switched: it may stand at its prompt, or somebody resets it."""

    cycle: bool = True


class RunRequest(BootloaderRequest):
    """`bootloader-run`: commands, one after the other until one fails, or with `go_on` all of them."""

    commands: Annotated[list[Command], Field(min_length=1, max_length=MAX_COMMANDS)]
    command_s: float = Field(default=30.0, gt=0, le=3600)
    """What each may take."""
    go_on: bool = False


class EnvRequest(BootloaderRequest):
    """`bootloader-env`: variables, first set, then saved if so asked, then read. None in `set` takes one away."""

    get: Annotated[list[str], Field(max_length=MAX_VARIABLES)] | None = None
    """None, with nothing to set: all."""
    set: dict[str, str | None] = Field(default={}, max_length=MAX_VARIABLES)
    save: bool = False
    """Write them to where the next boot reads them. Without it they are gone with the next reset."""


class BootRequest(BootloaderRequest):
    """`bootloader-boot`: what the board would boot from the net, by dialogue."""

    cycle: bool = True


R = TypeVar("R", bound=BootloaderRequest)


def parsed(model: type[R], data: dict[str, object]) -> R:
    """The request in `data`.

    Raises:
        RequestError: it is wrong; names the key.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise RequestError(ErrorKind.BAD_REQUEST, f"{key}: {first['msg']}"[:4096], key[:256] or None) from None
