"""Secrets of controllers: read from the file or the environment variable that the settings name, when needed."""

import os
from pathlib import Path

from agent.power.errors import ConfigurationError


def read_secret(controller: str, what: str, file: Path | None, env: str | None) -> str:
    """The secret, without white space around it. Read at each use, so that a new one is taken without a restart.

    Raises:
        ConfigurationError: the file cannot be read, the variable is not set, or what they hold is empty.
    """
    if file is not None:
        where = str(file)
        try:
            secret = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as problem:
            reason = problem.strerror if isinstance(problem, OSError) else "it is no text"
            raise ConfigurationError(
                f"{what} cannot be read from {where}: {reason}",
                controller=controller,
                do="write it there, readable for the agent's user only",
            ) from problem
    else:
        where = f"environment variable {env}"
        secret = os.environ.get(env or "", "").strip()
    if not secret:
        raise ConfigurationError(f"{what}: {where} is empty or not set", controller=controller, do="set it")
    return secret
