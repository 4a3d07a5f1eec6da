"""Errors by what the caller does next."""


class NetbootStartError(OSError):
    """A port or interface cannot be served: tell the operator, mend the settings or the host, start again."""


class SecretsNotSavedError(OSError):
    """The boot secrets could not be stored, so nothing was handed out: the client's next try tries again."""
