"""The YAML of a job file as plain values, with the line of each: strict, and safe against hostile text."""

import contextlib
import re
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

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


class _Bounded(Composer):  # over any parser: `check_event` and `peek_event` are its
    """Takes no aliases, of which nine lines can stand for a billion values, and no depth that none needs."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):  # type: ignore[attr-defined]
            raise JobSpecError("", self._line(), "aliases (*name) are not taken: write the value out")
        self._depth = getattr(self, "_depth", 0) + 1
        if self._depth > MAX_DEPTH:
            raise JobSpecError("", self._line(), f"nested deeper than {MAX_DEPTH} levels")
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def _line(self) -> int:
        return int(self.peek_event().start_mark.line) + 1  # type: ignore[attr-defined]


class _Loader(_Bounded, yaml.SafeLoader):
    """PyYAML's own parser: everywhere there, and its words are those of the errors."""


_ODD = re.compile("[\t\r\x85\u2028\u2029\ufeff]" r"|(?<![^\s\[{,])!(?![^\s\]},])|[|>][-+\d]*#")

_FastLoader: type[_Loader] | None = None
if yaml.__with_libyaml__:
    from yaml.cyaml import CParser  # type: ignore[attr-defined]  # it is there, and the stubs do not say so

    class _LibyamlLoader(_Bounded, CParser, SafeConstructor, Resolver):
        """The same over libyaml's parser, which reads a job several times as fast."""

        def __init__(self, text: str) -> None:
            CParser.__init__(self, text)
            Composer.__init__(self)
            SafeConstructor.__init__(self)
            Resolver.__init__(self)

    _FastLoader = _LibyamlLoader  # type: ignore[assignment]  # the same methods, by another parser


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
    """The values of a YAML text, and the line of each, from 1.

    Raises:
        JobSpecError: it is no YAML, or YAML that no job needs.
    """
    if _FastLoader is not None and _read_alike(text):
        # What libyaml will not take is read again by PyYAML: a fault has the same words, with libyaml or without.
        with contextlib.suppress(JobSpecError, UnicodeEncodeError):
            value, lines = _load(_FastLoader, text)
            if value is not None:  # of an empty text they count the lines differently
                return value, lines
    return _load(_Loader, text)


def _read_alike(text: str) -> bool:
    """Whether both parsers read it alike (found by comparing them on millions of texts): libyaml takes tabs in more
    places, question marks in flow style and a comment close behind `|`, counts line breaks in its own way, and has
    another meaning for a lone `!`."""
    flow = min((at for at in (text.find("["), text.find("{")) if at >= 0), default=len(text))
    return _ODD.search(text) is None and text.rfind("?") < flow


def _load(kind: type[_Loader], text: str) -> tuple[Any, dict[YamlPath, int]]:
    lines: dict[YamlPath, int] = {}
    try:
        loader = kind(text)
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
