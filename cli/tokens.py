"""`boardhand token`: adds and removes tokens of the page and the HTTP API, in the file that `[web] tokens` names."""

import json
import os
import tempfile
from pathlib import Path

from broker.web.access import NAME, Person, Role, TokensError, digest, new_token, read_tokens
from cli.exits import CliError, Exit, usage

HEAD = "# Written by `boardhand token`. Only digests stand here: a token that was lost is made anew.\n"


def add(file: Path, name: str, role: str, *, as_json: bool) -> int:
    """Make a token for `name` and print it.

    Raises:
        CliError: the name is no name or has a token, or the file cannot be used.
    """
    if not NAME.fullmatch(name):
        raise usage(f"{name!r} is no name", "use a-z, 0-9 and '-', at most 63 characters")
    people = _read(file, missing_is_empty=True)
    if name in {person.name for person in people.values()}:
        raise usage(f"{name} has a token in {file}", f"remove it first: boardhand token remove {name}")
    token = new_token()
    people[digest(token)] = Person(name, Role(role))
    _write(file, people)
    if as_json:
        print(json.dumps({"name": name, "role": role, "token": token}))
    else:
        print(token)
    return Exit.OK


def remove(file: Path, name: str, *, as_json: bool) -> int:
    """Make the token of `name` worthless.

    Raises:
        CliError: there is none, or the file cannot be used.
    """
    people = _read(file, missing_is_empty=False)
    left = {stored: person for stored, person in people.items() if person.name != name}
    if len(left) == len(people):
        raise CliError(Exit.NO_ANSWER, f"{name} has no token in {file}", "see 'boardhand token list'")
    _write(file, left)
    print(json.dumps({"removed": name}) if as_json else f"{name}: removed")
    return Exit.OK


def show(file: Path, *, as_json: bool) -> int:
    """Who has a token.

    Raises:
        CliError: the file cannot be read.
    """
    people = sorted(_read(file, missing_is_empty=False).values(), key=lambda person: person.name)
    if as_json:
        print(json.dumps({"tokens": [{"name": person.name, "role": person.role.value} for person in people]}))
    for person in () if as_json else people:
        print(f"{person.name:<24} {person.role.value}")
    return Exit.OK


def _read(file: Path, *, missing_is_empty: bool) -> dict[str, Person]:
    try:
        return read_tokens(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing_is_empty:
            return {}
        raise usage(
            f"{file} is not there", "make a token with 'boardhand token add NAME', or name another --file"
        ) from None
    except OSError as error:
        raise usage(f"{file}: {error.strerror}", "run as its owner, or name another --file") from None
    except (TokensError, UnicodeDecodeError) as error:
        raise usage(f"{file}: {error}", "mend it by hand") from None


def tokens_text(people: dict[str, Person]) -> str:
    """The file's text for `people` by their token's digest."""
    rows = sorted(people.items(), key=lambda item: item[1].name)
    return HEAD + "".join(f'\n[{p.name}]\nrole = "{p.role.value}"\nsha256 = "{stored}"\n' for stored, p in rows)


def _write(file: Path, people: dict[str, Person]) -> None:
    """Replace the file in one step. Its owner and group stay, so that the broker can go on reading it."""
    text = tokens_text(people)
    try:
        old = file.stat() if file.exists() else None
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".tokens-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as new:
                new.write(text)
                new.flush()
                os.fsync(new.fileno())
                if old is not None:
                    os.fchmod(new.fileno(), old.st_mode & 0o777)
                    os.fchown(new.fileno(), old.st_uid, old.st_gid)
            Path(name).replace(file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise usage(
            f"{file}: cannot be written: {error.strerror}", "run as its owner, or name another --file"
        ) from None
