"""What an agent's settings say about roots, for commands that work on its store."""

from pathlib import Path

from agent.settings import AgentSettings, load
from cli.exits import usage
from daemon.settings_file import SettingsError


def _loaded(path: Path) -> AgentSettings:
    try:
        return load(path)
    except SettingsError as error:
        raise usage(str(error), "see 'boardhand check'") from error


def store_folder(path: Path) -> Path:
    """Where the agent with these settings keeps its roots.

    Raises:
        CliError: the settings are wrong, or have no table [roots].
    """
    roots = _loaded(path).roots
    if roots is None:
        raise usage(f"{path}: has no table [roots], so its agent keeps none", "say --dir DIR")
    return roots.dir


def profiles_with(path: Path, root: str) -> list[str]:
    """The profiles of these settings that boot `root`.

    Raises:
        CliError: the settings are wrong.
    """
    profiles = _loaded(path).profiles
    return sorted(name for name, profile in profiles.items() if profile.root == root)
