"""Puts the cable together, and runs it for ever."""

from .cable import Cable
from .pico import Pico

LOOK_MS = 20
"""How often LEDs and watchdog are seen to while nothing comes."""


def run() -> None:
    """Never returns, but where the last restart was for a REPL: the outlets are then as they were."""
    pico = Pico()
    if pico.wants_repl():
        return
    pico.take_over_tty()
    cable = Cable(pico.settings, pico, pico.bits, pico.stored)
    watchdog = pico.start_watchdog()
    while True:
        data = pico.read(LOOK_MS)
        if data:
            pico.write(cable.take(data, pico.now_ms()))
        cable.tick(pico.now_ms())
        if watchdog is not None:
            watchdog.feed()
        pico.restart_if_due()
