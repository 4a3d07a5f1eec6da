"""A job as its user writes it: YAML in, a checked `JobSpec` out.

Unknown and repeated keys are errors, because a typo that is swallowed costs somebody a night. Words where a command
or a value for the environment belongs are taken as they were written: `steps: [true]` runs `true`, and
`env: {MODE: 0755}` gives `0755`.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from broker.jobs.labels import Want
from broker.jobs.strict_yaml import JobSpecError as JobSpecError  # noqa: PLC0414  # the error of `parse_job`, so found here too
from broker.jobs.strict_yaml import YamlPath, dotted, load
from wire.names import Id
from wire.payloads import (
    MAX_PATTERNS,
    MAX_STEPS,
    ArtifactPattern,
    ArtifactWish,
    ExitCode,
    ShortText,
    Text,
)

# An offer carries the whole job in one MQTT payload of at most 256 KiB, JSON escapes included.
MAX_YAML_BYTES = 128 * 1024
WEEK_S = 7 * 86400
MAX_FILES = 50
MAX_TEXT_LETTERS = 64 * 1024
MAX_STEPS_WRITTEN = MAX_STEPS - 20
"""Room for the steps that bring the files."""
MB = 1 << 20
MAX_ARTIFACTS_MB = 256
MAX_GROUP = 64
"""Boards of one group."""

RoleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
EnvName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9A-Fa-f]{64}$")]
Url = Annotated[str, Field(max_length=2048, pattern=r"^https?://[^\s'\"<>\\^`{|}]+$")]
# What may not stand in it would end the shell's word or the protocol's line.
FilePath = Annotated[str, Field(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
Pattern = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^\n\r]*[^*\n\r][^\n\r]*$")]
"""Text that stands in one line of the output; `*` is any text within the line."""
Patterns = Annotated[list[Pattern], Field(max_length=MAX_PATTERNS)]
Ending = Literal["passed", "failed", "error", "cancelled"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


class StepSpec(_Strict):
    """One command line for the board's shell. Without `timeout_s` it may last as long as the job."""

    name: ShortText = ""
    run: Annotated[str, Field(min_length=1, max_length=65536)]
    timeout_s: float | None = Field(default=None, gt=0, le=WEEK_S)
    exit_codes: Annotated[list[ExitCode], Field(min_length=1, max_length=16)] = Field(default=[0])
    """It has passed with one of these."""
    continue_on_fail: bool = False
    """The next step runs though this one failed. The job has failed all the same, but see `success.steps`."""
    output: Patterns = Field(default=[])
    """All of these must stand in its output, else the step has failed."""

    @field_validator("output", mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given


class RemoteFile(_Strict):
    """A file by URL, taken only with this checksum."""

    url: Url
    sha256: Sha256
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._+-]{0,63}$")] | None = None


class BootSpec(_Strict):
    """What the board boots for this job: a profile of its agent, or files."""

    profile: Id | None = None
    kernel: RemoteFile | None = None
    initrd: RemoteFile | None = None
    dtb: RemoteFile | None = None
    overlays: Annotated[list[RemoteFile], Field(max_length=16)] = Field(default=[])
    """Device-tree overlays, in the order in which they are applied."""
    cmdline: Annotated[str, Field(max_length=1536)] = ""
    arch: Literal["arm64", "arm", "x86_64", "riscv64"] | None = None
    family: Literal["auto", "uboot", "ipxe", "grub", "raspberry-pi", "efi-stub", "raw"] | None = None
    root: Id | None = None
    """A root of the board's agent, as `boardhand root list` names it."""

    @model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if (self.profile is None) == (self.kernel is None):
            raise ValueError("write either profile or kernel")
        more = (self.initrd, self.dtb, self.overlays, self.cmdline, self.arch, self.family, self.root)
        if self.profile is not None and any(more):
            raise ValueError("profile names what to boot already: leave out whatever describes another")
        return self

    def request(self) -> dict[str, object]:
        """The data of the agent's request `boot`, but for the board."""
        return self.model_dump(mode="json", exclude_none=True, exclude_defaults=True)

    def __str__(self) -> str:
        return f"profile {self.profile}" if self.kernel is None else self.kernel.url.rpartition("/")[2]


class FileSpec(_Strict):
    """A file that stands on the board before the first step: its text, or where to fetch it."""

    path: FilePath
    """From the folder in which the steps run, or absolute."""
    text: Annotated[str, Field(max_length=MAX_TEXT_LETTERS)] | None = None
    url: Url | None = None
    sha256: Sha256 | None = None
    mode: Annotated[str, Field(pattern=r"^[0-7]{3,4}$")] = "0644"

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.text is None) == (self.url is None):
            raise ValueError("write either text or url")
        if (self.url is None) != (self.sha256 is None):
            raise ValueError("sha256 belongs to url: what is fetched is used only with its checksum")
        if self.path.endswith("/") or "\0" in (self.text or ""):
            raise ValueError("path ends in '/', or text holds a NUL")
        return self


class SuccessSpec(_Strict):
    """What counts as success beside the exit codes."""

    steps: Annotated[list[ShortText], Field(min_length=1, max_length=MAX_STEPS)] | None = None
    """These must pass; without it all must."""
    output: Patterns = Field(default=[])
    """All of these must stand in the job's output."""
    not_output: Patterns = Field(default=[])
    """None of these may stand in it."""

    @field_validator("steps", "output", "not_output", mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        return [given] if isinstance(given, str) else given


class ArtifactsSpec(_Strict):
    """Files that are kept of the job, also of one that failed."""

    paths: Annotated[list[ArtifactPattern], Field(min_length=1, max_length=MAX_PATTERNS)]
    """As in the shell, from the folder in which the steps run or absolute: `*`, `?` and `[…]`, regular files only."""
    max_mb: float = Field(default=16, gt=0, le=MAX_ARTIFACTS_MB)
    """All of them together."""

    def wish(self) -> ArtifactWish:
        return ArtifactWish(paths=self.paths, max_bytes=max(1, int(self.max_mb * MB)))


class NotifySpec(_Strict):
    """Who is told of the job's end."""

    mqtt: Id | None = None
    """On the topic `notify/<this>` under the farm's prefix."""
    webhook: Url | None = None
    """By HTTP POST, signed; it must be allowed in the broker's settings."""
    on: Annotated[list[Ending], Field(min_length=1)] = Field(default=["passed", "failed", "error", "cancelled"])

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.mqtt is None and self.webhook is None:
            raise ValueError("write mqtt, webhook or both")
        return self


class RoleSpec(_Strict):
    """What one role of a group wants and does. What is absent is that of the job."""

    count: int = Field(default=1, ge=1, le=MAX_GROUP)
    """So many boards."""
    labels: dict[ShortText, Any] = Field(default={})
    """What these boards must have, beside the job's own labels."""
    board: Id | None = None
    """This board and no other."""
    boot: BootSpec | None = None
    env: dict[EnvName, Text] = Field(default={})
    """Beside the job's own."""
    steps: Annotated[list[StepSpec], Field(min_length=1, max_length=MAX_STEPS_WRITTEN)] | None = None

    @field_validator("labels")
    @classmethod
    def _labels_can_be_asked_for(cls, labels: dict[str, Any]) -> dict[str, Any]:
        return _checked_labels(labels)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, given: Any) -> Any:
        return _short_steps_and_boot(given)

    @model_validator(mode="after")
    def _one_board_is_one(self) -> Self:
        if self.board is not None and self.count > 1:
            raise ValueError(f"count: {self.count} boards cannot all be {self.board}")
        return self


def _checked_labels(labels: dict[str, Any]) -> dict[str, Any]:
    for label, written in labels.items():
        try:
            Want.parse(label, written)
        except ValueError as error:
            raise ValueError(f"{label}: {error}") from None
    return labels


def _short_steps_and_boot(given: Any) -> Any:
    """A step that is its command, a boot that is a profile."""
    if not isinstance(given, dict):
        return given
    made = dict(given)
    if isinstance(steps := given.get("steps"), list):
        made["steps"] = [{"run": step} if isinstance(step, str) else step for step in steps]
    if isinstance(boot := given.get("boot"), str):
        made["boot"] = {"profile": boot}
    return made


class JobSpec(_Strict):
    """What a job wants and does. `attempts` counts only faults of the farm; a step that fails is never tried again."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    labels: dict[ShortText, Any] = Field(default={})
    """What the board must have."""
    board: Id | None = None
    """This board and no other."""
    priority: int = Field(default=0, ge=-1000, le=1000)
    """Higher goes first."""
    boot: BootSpec | None = None
    """What the board boots for this job; its standing profile afterwards."""
    env: dict[EnvName, Text] = Field(default={})
    """The environment of all steps."""
    files: Annotated[list[FileSpec], Field(max_length=MAX_FILES)] = Field(default=[])
    steps: Annotated[list[StepSpec], Field(min_length=1, max_length=MAX_STEPS_WRITTEN)]
    success: SuccessSpec = SuccessSpec()
    artifacts: ArtifactsSpec | None = None
    timeout_s: float = Field(default=3600, gt=0, le=WEEK_S)
    """From when the board takes the job until it must have ended."""
    attempts: int = Field(default=2, ge=1, le=20)
    """So often it is begun when the farm fails it: a board that restarts, or goes away."""
    queue_timeout_s: float | None = Field(default=None, gt=0, le=52 * WEEK_S)
    """It is given up when no board was free for so long."""
    notify: NotifySpec | None = None
    group: Annotated[dict[RoleName, RoleSpec], Field(min_length=1, max_length=MAX_GROUP)] | None = None
    """Several boards at once, all or none, by their roles."""
    call_timeout_s: float | None = Field(default=None, gt=0, le=WEEK_S)
    """A MultiNode call fails that waited so long; without it, it waits as long as its step may."""
    lava: bool | None = None
    """Whether the steps find the `lava-…` programs, and test cases that they tell count; as in a group."""

    @field_validator("labels")
    @classmethod
    def _labels_can_be_asked_for(cls, labels: dict[str, Any]) -> dict[str, Any]:
        return _checked_labels(labels)

    @model_validator(mode="before")
    @classmethod
    def _short_forms(cls, given: Any) -> Any:
        """A step that is its command, a boot that is a profile, artifacts that are their paths."""
        made = _short_steps_and_boot(given)
        if not isinstance(made, dict):
            return made
        group = given.get("group")
        if (
            isinstance(group, dict)
            and group
            and "steps" not in given
            and all(_has_steps(role) for role in group.values())
        ):
            made["steps"] = [{"run": ":"}]  # those of the roles are run
        if isinstance(artifacts := given.get("artifacts"), str | list):
            made["artifacts"] = {"paths": [artifacts] if isinstance(artifacts, str) else artifacts}
        return made

    @model_validator(mode="after")
    def _group_agrees(self) -> Self:
        if self.group is None:
            return self
        boards = [role.board for role in self.group.values() if role.board is not None]
        if self.board is not None:
            raise ValueError("group: a group has several boards: name them in its roles, or leave board out")
        if self.success.steps:
            raise ValueError("success.steps: the steps of a group are those of its roles: use continue_on_fail there")
        if len(set(boards)) < len(boards):
            raise ValueError("group: a board can play one role only")
        if (count := sum(role.count for role in self.group.values())) > MAX_GROUP:
            raise ValueError(f"group: {count} boards; a group may have {MAX_GROUP}")
        return self

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = self.step_names()
        for name in self.success.steps or []:
            if name not in names:
                raise ValueError(f"success.steps: there is no step {name!r}; the steps are {', '.join(names)[:300]}")
        patterns = len(self.success.output) + len(self.success.not_output) + sum(len(s.output) for s in self.steps)
        if patterns > MAX_PATTERNS:
            raise ValueError(f"{patterns} patterns for the output; a job may have {MAX_PATTERNS}")
        return self

    def wants(self) -> tuple[Want, ...]:
        """The requirements on labels, in a fixed order so that equal wishes compare equal."""
        return tuple(Want.parse(label, self.labels[label]) for label in sorted(self.labels))

    def step_names(self) -> list[str]:
        """The names of the steps, of nameless ones `step 3`."""
        return [step.name or f"step {n}" for n, step in enumerate(self.steps, 1)]

    @property
    def with_lava(self) -> bool:
        """Whether its boards get the `lava-…` programs."""
        return self.lava if self.lava is not None else self.group is not None


def _has_steps(role: Any) -> bool:
    return isinstance(role, dict) and "steps" in role


def _first_problem(error: ValidationError, lines: dict[YamlPath, int]) -> JobSpecError:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path: YamlPath = tuple(first["loc"])
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        problem = f"no such key: {'a job' if len(path) == 1 else 'this part'} has {_known_keys(path)}"
    if not path and problem.startswith("success.steps"):
        path, problem = ("success", "steps"), problem.removeprefix("success.steps: ")
    if not path and problem.startswith("group: "):
        path, problem = ("group",), problem.removeprefix("group: ")
    line = next((lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in lines), None)
    return JobSpecError(dotted(path), line, problem)


_PARTS: dict[str, type[BaseModel]] = {
    "steps": StepSpec,
    "boot": BootSpec,
    "files": FileSpec,
    "success": SuccessSpec,
    "artifacts": ArtifactsSpec,
    "notify": NotifySpec,
    "group": RoleSpec,
}


def _known_keys(path: YamlPath) -> str:
    if path[0] == "group" and len(path) > 3:  # group.ROLE.steps.1.KEY
        path = path[2:]
    model: type[BaseModel] = JobSpec if len(path) == 1 else _PARTS.get(str(path[0]), JobSpec)
    if path[0] == "boot" and len(path) > 2:  # boot.kernel.KEY
        model = RemoteFile
    return ", ".join(model.model_fields)


def parse_job(text: str) -> JobSpec:
    """A job from its YAML.

    Raises:
        JobSpecError: it is longer than `MAX_YAML_BYTES`, no YAML, or a key is unknown, missing or wrong.
    """
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_YAML_BYTES:
        raise JobSpecError("", None, f"{size} bytes are more than the {MAX_YAML_BYTES} a job may have")
    given, lines = load(text)
    if not isinstance(given, dict):
        raise JobSpecError("", None, "a job is a mapping: write at least 'name:' and 'steps:'")
    try:
        return JobSpec.model_validate(given)
    except ValidationError as error:
        raise _first_problem(error, lines) from None
