"""Reads an `image.toml`, and the files that it names; what is wrong is said with the line."""

import re
import tomllib
from pathlib import Path

from pydantic import ValidationError

from cli.exits import CliError, Exit
from daemon.settings_file import locate_keys, nearest
from firmware_tools.image.recipe import Recipe

MAX_FILE_BYTES = 1024 * 1024
MAX_NAMED_BYTES = 256 * 1024 * 1024
"""A file to lay in that is larger is a mistake, or belongs into a package."""


def _wrong(message: str) -> CliError:
    return CliError(Exit.USAGE, message)


def load(path: Path) -> Recipe:
    """The recipe in a file.

    Raises:
        CliError: it cannot be read, is no TOML, or a key is unknown, missing or wrong.
    """
    try:
        raw = path.read_bytes()
        if len(raw) > MAX_FILE_BYTES:
            raise _wrong(f"{path}: is larger than {MAX_FILE_BYTES} bytes: this is no recipe")
        text = raw.decode()
        tables = tomllib.loads(text)
    except OSError as error:
        raise _wrong(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise _wrong(f"{path}:{raw[: error.start].count(10) + 1}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        where = re.search(r"\(at line (\d+), column \d+\)", str(error))
        line = where[1] if where else str(text.count("\n") + 1)
        raise _wrong(f"{path}:{line}: not TOML: {str(error).split(' (at ', 1)[0]}") from None
    try:
        return Recipe.model_validate(tables)
    except ValidationError as error:
        raise _wrong(_explained(error, path, text)) from None


def _explained(error: ValidationError, path: Path, text: str) -> str:
    """One line. A key that nobody knows comes first: it is the misspelt one that another error says is missing."""
    first = min(error.errors(include_url=False, include_context=False), key=lambda e: e["type"] != "extra_forbidden")
    wanted = tuple(str(part) for part in first["loc"])
    lines = locate_keys(text)
    message = re.sub(r"^(Value error|Assertion failed), ", "", first["msg"])
    if first["type"] == "extra_forbidden":
        message = "there is no such key; correct it or take it out"
    more = error.error_count() - 1
    rest = f" (and {more} more)" if more else ""
    return f"{path}:{lines.get(nearest(lines, wanted), 1)}: {'.'.join(wanted) or 'recipe'}: {message}{rest}"


class NamedFiles:
    """The files that a recipe names, relative to it."""

    def __init__(self, recipe_path: Path) -> None:
        self._path = recipe_path

    def path(self, name: str) -> Path:
        """Where such a file is."""
        return self._path.parent / name

    def read(self, name: str) -> bytes:
        """Its content.

        Raises:
            CliError: it cannot be read, or is too large; with the line of the recipe that names it.
        """
        path = self.path(name)
        try:
            if path.stat().st_size > MAX_NAMED_BYTES:
                raise _wrong(f"{self._at(name)}: {path} is larger than {MAX_NAMED_BYTES} bytes")
            return path.read_bytes()
        except OSError as error:
            raise _wrong(f"{self._at(name)}: {path} cannot be read: {error.strerror}") from None

    def _at(self, name: str) -> str:
        for number, line in enumerate(self._path.read_text(encoding="utf-8").splitlines(), start=1):
            if name in line:
                return f"{self._path}:{number}"
        return str(self._path)
