"""A boot loader's variables: how they are asked for, set and read from what it prints."""

import re

from firmware_tools.bootloader.dialect import Dialect, Kind
from firmware_tools.bootloader.errors import WordsError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:#-]{0,127}")
"""U-Boot takes all but `=`; what hush would expand or split is of no use at a prompt."""
_LINE = re.compile(r"([^\s=][^=\s]{0,255})=(.*)")
_SIZE = re.compile(r"Environment size: \d+/\d+ bytes")
_BAREBOX_LINE = re.compile(r"[* ] ?([A-Za-z_][\w.]{0,127}): (.*)")
PRINTED_MOST = 250
"""U-Boot prints one variable through a buffer (CONFIG_SYS_PBSIZE, 270 octets and more) and cuts what does not fit
without a word; all variables it prints whole."""
VALUE_MOST = 4096
"""Characters; U-Boot's whole environment is 8 kB on small boards."""


def check_name(name: str) -> str:
    """`name`, which can be typed.

    Raises:
        WordsError: it cannot.
    """
    if _NAME.fullmatch(name) is None:
        raise WordsError(f"{name!r} is no variable's name: letters, digits, '_', '.', ':', '#' and '-'")
    return name


def check_value(name: str, value: str) -> str:
    """`value`, which can be typed on one line.

    Raises:
        WordsError: it cannot.
    """
    if not value.isascii() or not value.isprintable() or len(value) > VALUE_MOST:
        raise WordsError(f"{name}: a value is one line of at most {VALUE_MOST} printable ASCII characters")
    return value


def read_command(dialect: Dialect, name: str) -> str:
    """Asks for one variable."""
    return f"printenv {name}" if dialect.kind is Kind.U_BOOT else f'echo "{name}=${{{name}}}"'


def set_command(dialect: Dialect, name: str, word: str) -> str:
    """Sets one in RAM to a quoted `word`; an empty word takes it away."""
    if dialect.kind is Kind.U_BOOT:
        return f"setenv {name} {word}".rstrip()
    for space in ("global", "nv"):
        if name.startswith(f"{space}."):
            bare = name.removeprefix(f"{space}.")
            return f"{space} {bare}={word}" if word else f"{space} -r {bare}"
    return f"{name}={word}"


def one_value(name: str, output: str) -> str | None:
    """The value in the answer to `read_command`, of one or several lines; None where it is not set."""
    begin = output.find(f"{name}=")
    if begin < 0 or (begin and output[begin - 1] != "\n"):
        return None
    return output[begin + len(name) + 1 :]


def all_values(dialect: Dialect, output: str) -> dict[str, str]:
    """The variables in the answer to `read_all`.

    U-Boot prints them sorted by name (lib/hashtable.c, hexport_r), which tells further lines of a value from the next
    variable: a line that would break the order is no variable. A value whose second line looks like a variable that
    fits there is cut; asking for it by name gives it whole.
    """
    found: dict[str, str] = {}
    if dialect.kind is Kind.BAREBOX:
        for line in output.split("\n"):
            if (match := _BAREBOX_LINE.fullmatch(line)) is not None:
                found[match[1]] = match[2]
        return found
    lines = output.split("\n")
    ends = [number for number, line in enumerate(lines) if _SIZE.fullmatch(line.strip())]
    if ends:
        lines = lines[: ends[-1]]
        while lines and not lines[-1]:
            lines.pop()
    last: str | None = None
    names = [match[1] if (match := _LINE.fullmatch(line)) else None for line in lines]
    for number, (line, name) in enumerate(zip(lines, names, strict=True)):
        if name is not None and (last is None or last < name) and not _leaps(name, names, number):
            found[name] = line[len(name) + 1 :]
            last = name
        elif last is not None:
            found[last] += "\n" + line
    return found


def _leaps(name: str, names: list[str | None], number: int) -> bool:
    """Whether `name` jumps over the names that follow: a value's line such as `z=1` would swallow all that is sorted
    between. Names that follow and are smaller are more than those that are greater."""
    following = [other for other in names[number + 1 : number + 9] if other is not None]
    smaller = sum(other <= name for other in following)
    return smaller * 2 > len(following)
