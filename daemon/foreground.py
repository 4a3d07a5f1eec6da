"""A daemon in the foreground, until SIGTERM or SIGINT: what `python -m agent` and `python -m broker` have in common."""

import argparse
import asyncio
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TypeVar

from daemon.logs import LEVELS, LogFormat, LogTable, set_up
from daemon.service_notify import ServiceNotify, StopEvent
from daemon.settings_file import FileSettings, SettingsError
from daemon.store import StoreError

EXIT_FAILED = 1
EXIT_SETTINGS = 2

S = TypeVar("S", bound=FileSettings)

log = logging.getLogger(__name__)


class DaemonError(Exception):
    """A daemon cannot run; the message says why and what to do."""


def run_daemon(
    name: str,
    description: str,
    read_settings: Callable[[Path], S],
    serve: Callable[[S, asyncio.Event], Awaitable[None]],
    arguments: Sequence[str] | None = None,
) -> int:
    """Read the settings, serve until a signal sets the event, and return the exit code.

    0 after a clean stop; 1 when `serve` raised `DaemonError` or `StoreError`; 2 for bad settings. Both are one line on
    standard error, as is every record of the log: see `daemon.logs`.
    """
    parser = argparse.ArgumentParser(prog=f"boardhand {name}", description=description)
    parser.add_argument("--settings", type=Path, required=True, metavar="FILE", help="its settings, TOML")
    parser.add_argument("--log-level", choices=LEVELS, help="as [log] says if not given")
    parser.add_argument("--log-format", choices=list(LogFormat), help="as [log] says if not given")
    options = parser.parse_args(arguments)
    table = _log_table(LogTable(), options)
    set_up(table)
    try:
        settings = read_settings(options.settings)
    except SettingsError as error:
        return _last_words(name, error, EXIT_SETTINGS, table)
    table = _log_table(settings.log, options)
    set_up(table)
    try:
        asyncio.run(_until_signalled(settings, serve))
    except (DaemonError, StoreError) as error:
        return _last_words(name, error, EXIT_FAILED, table)
    return 0


def _log_table(table: LogTable, options: argparse.Namespace) -> LogTable:
    given = {"level": options.log_level, "format": options.log_format}
    return LogTable.model_validate(table.model_dump() | {key: value for key, value in given.items() if value})


def _last_words(name: str, error: Exception, code: int, table: LogTable) -> int:
    if table.format is LogFormat.JSON:
        log.critical("boardhand %s: %s", name, error)
    else:
        print(f"boardhand {name}: {error}", file=sys.stderr)  # noqa: T201  # for whoever started it
    return code


async def _until_signalled(settings: S, serve: Callable[[S, asyncio.Event], Awaitable[None]]) -> None:
    notify = ServiceNotify.from_environment(os.environ, os.getpid())
    stop = StopEvent(notify.ready)

    def stopped() -> None:
        notify.stopping()
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped)
    # Would end the process; a daemon that can reload puts its own handler in place of this one.
    loop.add_signal_handler(signal.SIGHUP, log.info, "SIGHUP: this daemon reads its settings at its start alone")
    beating = asyncio.create_task(notify.beat(), name="watchdog")
    try:
        await serve(settings, stop)
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
