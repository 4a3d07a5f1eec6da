"""What the cable needs of its board. `pico.Pico` is a real one. Outlets and their LEDs count from 0."""


class Edge:
    """A board. `cause`: why it started last: `power` or `watchdog` (which a restart by request is, too)."""

    unique_id = ""
    cause = "power"

    def switch(self, number: int, on: bool) -> None:
        """Drive the outlet's pin."""
        raise NotImplementedError

    def outlet_on(self, number: int) -> bool:
        """What is: at the outlet's sense pin where it has one, else at the output's own pad."""
        raise NotImplementedError

    def watts(self, number: int) -> float | None:
        """Watts now, or None where nothing is measured. Raises OSError where the meter does not answer."""
        raise NotImplementedError

    def set_led(self, number: int, place: int, on: bool) -> None:
        """Light one of the outlet's LEDs."""
        raise NotImplementedError

    def keep(self, word: int) -> None:
        """Keep 32 bits over a reset."""
        raise NotImplementedError

    def store(self, bits: int) -> None:
        """Keep the state over power that goes away. Where flash is full or worn, nothing is kept."""
        raise NotImplementedError

    def restart(self, repl: bool) -> None:
        """Restart when the answer is out; with `repl`, the firmware does not start then, and a REPL is at the tty."""
        raise NotImplementedError
