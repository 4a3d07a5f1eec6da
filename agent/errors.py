"""Why an agent cannot run."""

from daemon.foreground import DaemonError


class AgentError(DaemonError):
    """The agent cannot run; the message says why and what to do."""
