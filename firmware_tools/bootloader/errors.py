"""What can go wrong in a dialogue, by what the caller does next."""


class DialogueError(Exception):
    """A dialogue did not come to its end. `lines`: the last of the console, oldest first."""

    def __init__(self, message: str, lines: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.lines = lines


class NotAtPromptError(DialogueError):
    """No boot loader answers: catch it first."""


class LeftError(DialogueError):
    """The board left the boot loader in the middle: it began anew, runs a kernel, or hangs. Catch it again.

    Attributes:
        again: it began anew, so that its countdown can be stopped again.
    """

    def __init__(self, message: str, lines: tuple[str, ...] = (), *, again: bool = False) -> None:
        super().__init__(message, lines)
        self.again = again


class CommandError(DialogueError):
    """The boot loader said no, and stands at its prompt."""


class WordsError(DialogueError):
    """What was asked for cannot be typed; mend it. Nothing was typed."""
