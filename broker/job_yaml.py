"""The YAML of a job file as plain values, with the line of each: strict, and safe against hostile text."""

from typing import Any

import yaml

# Deeper than any job; keeps the recursive YAML composer far from Python's own limit.
MAX_DEPTH = 20


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


YamlPath = tuple[str | int, ...]


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


def _taken_as_written(path: YamlPath) -> bool:
    """Whether a scalar at `path` is text by its place, whatever YAML would make of it."""
    match path:
        case ("name" | "board" | "boot",) | ("env", _) | ("steps", int()) | ("steps", int(), "name" | "run" | "output"):
            return True
        case ("steps", int(), "output", int()) | ("files", int(), "path" | "text" | "url" | "sha256" | "mode"):
            return True
        case ("boot", "profile" | "cmdline") | ("boot", _, "url" | "sha256" | "name"):
            return True
        case ("success", "steps" | "output" | "not_output") | ("success", "steps" | "output" | "not_output", int()):
            return True
        case ("artifacts",) | ("artifacts", int()) | ("artifacts", "paths") | ("artifacts", "paths", int()):
            return True
        case _:
            return False


def _plain(loader: _Loader, node: yaml.Node, path: YamlPath, lines: dict[YamlPath, int]) -> Any:
    lines[path] = node.start_mark.line + 1
    if node.tag.removeprefix(_YAML_TAG) not in _KNOWN_TAGS:
        raise JobSpecError(dotted(path), lines[path], f"tags such as {node.tag} are not taken")
    if isinstance(node, yaml.MappingNode):
        made: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise JobSpecError(dotted(path), line, "keys must be plain words")
            key = str(key_node.value)
            if key in made:
                raise JobSpecError(dotted((*path, key)), line, "stands there twice: remove one")
            made[key] = _plain(loader, value_node, (*path, key), lines)
            lines[(*path, key)] = line
        return made
    if isinstance(node, yaml.SequenceNode):
        return [_plain(loader, item, (*path, n), lines) for n, item in enumerate(node.value)]
    if any("\ud800" <= letter <= "\udfff" for letter in str(node.value)):
        raise JobSpecError(dotted(path), lines[path], "holds half a surrogate pair, which is no character")
    if _taken_as_written(path) and node.tag != f"{_YAML_TAG}null":
        return str(node.value)
    try:
        return loader.construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise JobSpecError(dotted(path), lines[path], f"cannot be read: {str(error).splitlines()[0]}") from None


def dotted(path: YamlPath) -> str:
    return ".".join(str(part) for part in path)


def load(text: str) -> tuple[Any, dict[YamlPath, int]]:
    lines: dict[YamlPath, int] = {}
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
