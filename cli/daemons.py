"""`agent` and `broker` in the foreground, and `check` of their settings file."""

import json
import os
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from cli.exits import CliError, Exit, usage


def become(module: str, settings: Path, more: Sequence[str] = ()) -> NoReturn:
    """Become the daemon: signals, exit code and output are its own then.

    Raises:
        CliError: the settings file is not there.
    """
    if not settings.is_file():
        raise usage(f"settings file {settings} is not there, or is no file", "mend --settings")
    sys.stdout.flush()
    arguments = [sys.executable, "-m", module, "--settings", str(settings), *more]
    os.execv(sys.executable, arguments)  # noqa: S606 -- no shell wanted


def check(settings: Path, *, as_json: bool) -> int:
    """Read a settings file as agent and broker would, and start nothing.

    Raises:
        CliError: one of them would refuse it; the text is `FILE:LINE: key: what`.
    """
    if not settings.is_file():
        raise usage(f"settings file {settings} is not there, or is no file", "name another")
    from agent.settings import load as load_agent
    from broker.settings import read_settings as load_broker
    from daemon.settings_file import SettingsError

    loaders: dict[str, Callable[[Path], object]] = {"broker": load_broker}
    if _has_table(settings, "agent"):  # every table of the broker's has defaults; the agent must have a name
        loaders["agent"] = load_agent
    for daemon, load in loaders.items():
        try:
            load(settings)
        except SettingsError as error:
            raise CliError(Exit.USAGE, f"{daemon}: {error}") from None
    checked = sorted(loaders)
    if as_json:
        print(json.dumps({"ok": True, "checked": checked}))
    else:
        print(
            f"{settings}: {' and '.join(checked)} would take it"
            if len(checked) > 1
            else f"{settings}: broker would take it; it has no [agent]"
        )
    return Exit.OK


def _has_table(settings: Path, name: str) -> bool:
    try:
        return name in tomllib.loads(settings.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # the daemon's own reader says it better, with the line
