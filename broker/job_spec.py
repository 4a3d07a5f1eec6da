"""A job as its user writes it: YAML in, a checked `JobSpec` out.

Unknown and repeated keys are errors, because a typo that is swallowed costs somebody a night. Words where a command
or a value for the environment belongs are taken as they were written: `steps: [true]` runs `true`, and
`env: {MODE: 0755}` gives `0755`.
"""

from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from broker.labels import Want
from wire.names import Id
from wire.payloads import MAX_STEPS, ShortText, Step, Text

# An offer carries the whole job in one MQTT payload of at most 256 KiB, JSON escapes included.
MAX_YAML_BYTES = 128 * 1024
# Deeper than any job; keeps the recursive YAML composer far from Python's own limit.
MAX_DEPTH = 20
WEEK_S = 7 * 86400
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]


class JobSpecError(ValueError):
    """A job that cannot be taken.

    Attributes:
        key: the dotted key at fault, `""` for the whole text.
        line: its line in the YAML, from 1; None where YAML gives none.
        problem: what is wrong, and what to write.
    """

    def __init__(self, key: str, line: int | None, problem: str) -> None:
        where = ": ".join(part for part in (f"line {line}" if line else "", key) if part)
        super().__init__(f"{where}: {problem}" if where else problem)
        self.key = key
        self.line = line
        self.problem = problem


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StepSpec(_Strict):
    """One command line for the board's shell. Without `timeout_s` it may last as long as the job."""

    name: ShortText = ""
    run: Annotated[str, Field(min_length=1, max_length=65536)]
    timeout_s: float | None = Field(default=None, gt=0, le=WEEK_S)


class JobSpec(_Strict):
    """What a job wants and does. `attempts` counts only faults of the farm; a step that fails is never tried again."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    labels: dict[ShortText, Any] = {}
    board: Id | None = None
    priority: int = Field(default=0, ge=-1000, le=1000)
    steps: Annotated[list[StepSpec], Field(min_length=1, max_length=MAX_STEPS)]
    env: dict[EnvName, Text] = {}
    timeout_s: float = Field(default=3600, gt=0, le=WEEK_S)
    attempts: int = Field(default=2, ge=1, le=20)
    queue_timeout_s: float | None = Field(default=None, gt=0, le=52 * WEEK_S)

    @field_validator("labels")
    @classmethod
    def _labels_can_be_asked_for(cls, labels: dict[str, Any]) -> dict[str, Any]:
        for label, written in labels.items():
            try:
                Want.parse(label, written)
            except ValueError as error:
                raise ValueError(f"{label}: {error}") from None
        return labels

    @model_validator(mode="before")
    @classmethod
    def _bare_steps(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("steps"), list):
            return given
        return {**given, "steps": [{"run": step} if isinstance(step, str) else step for step in given["steps"]]}

    def wants(self) -> tuple[Want, ...]:
        """The requirements on labels, in a fixed order so that equal wishes compare equal."""
        return tuple(Want.parse(label, self.labels[label]) for label in sorted(self.labels))

    def wire_steps(self) -> list[Step]:
        """The steps as an offer carries them: named and with a timeout each."""
        return [
            Step(name=step.name or f"step {n}", run=step.run, timeout_s=step.timeout_s or self.timeout_s)
            for n, step in enumerate(self.steps, 1)
        ]


Path = tuple[str | int, ...]


class _Loader(yaml.SafeLoader):
    """YAML's safe loader without aliases: nine lines of them can stand for a billion values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise JobSpecError("", self._line(), "aliases (*name) are not taken: write the value out")
        self._depth = getattr(self, "_depth", 0) + 1
        if self._depth > MAX_DEPTH:
            raise JobSpecError("", self._line(), f"nested deeper than {MAX_DEPTH} levels")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def _line(self) -> int:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs lack it
        return int(event.start_mark.line) + 1


_YAML_TAG = "tag:yaml.org,2002:"
_KNOWN_TAGS = {"map", "seq", "str", "int", "float", "bool", "null", "timestamp", "value", "merge"}


def _taken_as_written(path: Path) -> bool:
    """Whether a scalar at `path` is text by its place, whatever YAML would make of it."""
    match path:
        case ("name" | "board",) | ("env", _) | ("steps", int()) | ("steps", int(), "name" | "run"):
            return True
        case _:
            return False


def _plain(loader: _Loader, node: yaml.Node, path: Path, lines: dict[Path, int]) -> Any:
    lines[path] = node.start_mark.line + 1
    if node.tag.removeprefix(_YAML_TAG) not in _KNOWN_TAGS:
        raise JobSpecError(_dotted(path), lines[path], f"tags such as {node.tag} are not taken")
    if isinstance(node, yaml.MappingNode):
        made: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise JobSpecError(_dotted(path), line, "keys must be plain words")
            key = str(key_node.value)
            if key in made:
                raise JobSpecError(_dotted((*path, key)), line, "stands there twice: remove one")
            made[key] = _plain(loader, value_node, (*path, key), lines)
            lines[(*path, key)] = line
        return made
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, (*path, n), lines) for n, item in enumerate(node.value)]
    if any("\ud800" <= letter <= "\udfff" for letter in str(node.value)):
        raise JobSpecError(_dotted(path), lines[path], "holds half a surrogate pair, which is no character")
    if _taken_as_written(path) and node.tag != f"{_YAML_TAG}null":
        return str(node.value)
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise JobSpecError(_dotted(path), lines[path], f"cannot be read: {str(error).splitlines()[0]}") from None


def _dotted(path: Path) -> str:
    return ".".join(str(part) for part in path)


def _load(text: str) -> tuple[Any, dict[Path, int]]:
    lines: dict[Path, int] = {}
    try:
        loader = _Loader(text)
    except yaml.YAMLError as error:  # characters that YAML does not allow
        raise JobSpecError("", None, f"not YAML: {str(error).splitlines()[0]}") from None
    try:
        node = loader.get_single_node()
        return (None if node is None else _plain(loader, node, (), lines)), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise JobSpecError("", mark.line + 1 if mark else None, f"not YAML: {error.problem or error}") from None
    except yaml.YAMLError as error:
        raise JobSpecError("", None, f"not YAML: {str(error).splitlines()[0]}") from None
    finally:
        loader.dispose()


def _first_problem(error: ValidationError, lines: dict[Path, int]) -> JobSpecError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path: Path = tuple(first["loc"])
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        problem = f"no such key: {'a job' if len(path) == 1 else 'this part'} has {_known_keys(path)}"
    line = next((lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in lines), None)
    return JobSpecError(_dotted(path), line, problem)


def _known_keys(path: Path) -> str:
    model: type[BaseModel] = JobSpec if len(path) == 1 else StepSpec
    return ", ".join(model.model_fields)


def parse_job(text: str) -> JobSpec:
    """A job from its YAML.

    Raises:
        JobSpecError: it is longer than `MAX_YAML_BYTES`, no YAML, or a key is unknown, missing or wrong.
    """
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_YAML_BYTES:
        raise JobSpecError("", None, f"{size} bytes are more than the {MAX_YAML_BYTES} a job may have")
    given, lines = _load(text)
    if not isinstance(given, dict):
        raise JobSpecError("", None, "a job is a mapping: write at least 'name:' and 'steps:'")
    try:
        return JobSpec.model_validate(given)
    except ValidationError as error:
        raise _first_problem(error, lines) from None
