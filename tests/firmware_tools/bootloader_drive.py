"""What drives exchanges and flows against a U-Boot of ours, in simulated time."""

from firmware_tools.bootloader.catch import Catch, Manner
from firmware_tools.bootloader.dialect import DIALECTS, Kind
from firmware_tools.bootloader.pacing import Pace, Pacer
from firmware_tools.bootloader.shell import Line, identified

PIECE_S = 0.001


class Clock:
    """The simulated time of one test."""

    def __init__(self):
        self.now = 0.0
        self.typed = b""
        self.heard = b""
        self.pacer = None


def drive(exchange, fake, clock, *, pieces=lambda data: [data], pace=None, most_s=900.0):
    """Have `exchange` with `fake` to its end. `pieces` cuts and spoils what it says."""
    pacer = clock.pacer = clock.pacer or Pacer(pace or Pace())
    pacer.clear()
    over_s = clock.now + most_s
    pacer.put(exchange.begin(clock.now))
    while exchange.result is None:
        while typed := pacer.due(clock.now):
            clock.typed += typed
            fake.typed(typed, clock.now)
        times = [at for at in (exchange.wake_at, fake.next_at(), pacer.wake_at) if at is not None]
        assert times, "nobody will ever do anything"
        clock.now = max(clock.now, min(times))
        assert clock.now < over_s, f"no end: {clock.typed[-300:]!r} {clock.heard[-300:]!r}"
        data = fake.due(clock.now)
        clock.heard += data
        for piece in pieces(data) if data else ():
            if exchange.result is None:
                pacer.heard(piece)
                pacer.put(exchange.received(piece, clock.now))
            clock.now += PIECE_S
        if exchange.is_due(clock.now):
            pacer.put(exchange.tick(clock.now))
    return exchange.result


def follow(flow, fake, clock, **how):
    """Have a whole flow to its end."""
    try:
        exchange = next(flow)
        while True:
            exchange = flow.send(drive(exchange, fake, clock, **how))
    except StopIteration as end:
        return end.value


def markers():
    """8 characters, another for each call."""
    number = 0

    def make():
        nonlocal number
        number += 1
        return f"{0xAB000000 + number * 7919:08x}"

    return make


def line_of(pace=None, kind=Kind.U_BOOT, line_most=240):
    return Line(DIALECTS[kind], pace or Pace(), markers(), line_most)


def caught(fake, clock, manner=None, line=None, **how):
    """What comes of a catch alone."""
    line = line or line_of(how.get("pace"))
    return drive(Catch(line.dialect, line.marker(), manner or Manner(), line.pace), fake, clock, **how)


def at_prompt(fake, clock, line=None, manner=None, **how):
    """A shell on `fake`, whose power has just come on."""
    line = line or line_of(how.get("pace"))
    fake.power_on(clock.now)
    return follow(identified(line, caught(fake, clock, manner, line, **how)), fake, clock, **how)
