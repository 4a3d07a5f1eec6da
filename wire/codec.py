"""How a payload becomes bytes and bytes become a payload. `decode` and `encode` are the only ways in and out."""

from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

MAX_PAYLOAD_BYTES = 256 * 1024
"""The largest payload that every MQTT server we may meet passes on (facts: the portable subset)."""
MAX_SHORT_TEXT = 256
MAX_PROBLEM = 512
"""How much of what is wrong is told; enough for our own words and the head of what they quote."""


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


class PayloadError(ValueError):
    """A payload that cannot be taken.

    Attributes:
        key: the dotted key at fault, or `""` when the whole payload is no JSON object.
        problem: what is wrong with it, as a clause.

    Both are cut to what `ErrorInfo` takes, because they quote what was received: an answer to a hostile payload must
    be writable, and short.
    """

    def __init__(self, key: str, problem: str) -> None:
        self.key = _cut(key, MAX_SHORT_TEXT)
        self.problem = _cut(problem, MAX_PROBLEM)
        super().__init__(f"{self.key}: {self.problem}" if key else self.problem)


P = TypeVar("P")
_adapters: dict[object, TypeAdapter[object]] = {}


def _first_problem(error: ValidationError, *, tagged: bool) -> PayloadError:
    """`tagged`: the model is a union, so that pydantic puts the tag before the key, unless the tag itself is wrong."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    if first["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        return PayloadError("kind", first["msg"])
    key = ".".join(str(part) for part in (first["loc"][1:] if tagged else first["loc"]))
    return PayloadError(key, first["msg"])


def decode(model: type[P], payload: bytes) -> P:
    """A payload as `model`, which is a class or one of the unions of `wire.payloads`.

    Raises:
        PayloadError: it is too long, no JSON object, or a key is missing or of a wrong type.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise PayloadError("", f"{len(payload)} bytes are more than the {MAX_PAYLOAD_BYTES} that are taken")
    adapter = _adapters.get(model)
    if adapter is None:
        adapter = _adapters[model] = TypeAdapter(model)
    try:
        return adapter.validate_json(payload)  # type: ignore[return-value]  # the adapter was made from `model`
    except ValidationError as error:
        raise _first_problem(error, tagged=not isinstance(model, type)) from None
    except (RecursionError, UnicodeDecodeError) as error:
        raise PayloadError("", f"cannot be read as JSON: {error}") from None


def encode(payload: BaseModel) -> bytes:
    """A payload as UTF-8 JSON without the keys that are None."""
    return payload.model_dump_json(exclude_none=True).encode()
