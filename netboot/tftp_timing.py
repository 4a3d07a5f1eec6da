"""Times and limits of a transfer, with their reasons. Times are seconds."""

INITIAL_RTO_S = 0.1
"""Before anything is measured. A slow board gets one small packet twice; half of what a shelf waits for on a bad cable
is such first packets."""
MAX_DOUBT_RTO_S = 0.2  # a board that acknowledges copies pauses; for longer than this, none is asked to wait for it
MIN_RTO_S = 0.02
"""In lockstep a resent block costs one packet. A board that pauses for longer shows it by acknowledging both copies,
and each time its own least is doubled, up to MAX_DOUBT_RTO_S."""
MIN_WINDOW_RTO_S = 0.05  # a window that is sent twice costs more, and gaps are told by ACKs long before
MAX_RTO_S = 4.0
GIVE_UP_S = 30.0  # U-Boot retries a lost link for as long
MAX_TRIES = 15
MAX_COLLAPSES = 16
"""Progress after a timeout takes the back-off back, so often without a new measurement: with many losses there is none
for long, and each loss would cost MAX_RTO_S. Then Karn's rule holds, for a client that has become slower."""
QUIET_END_S = 6.0
"""Some boot ROMs never acknowledge the last block: repeated for so long, it counts as received. Longer than the 5 s
after which clients repeat their last ACK."""
GUARD_S = 0.01
"""Windowed clients acknowledge every packet that follows a gap; one answer per guard time is enough."""
MAX_GUARDED_RESENDS = 10  # per window; beyond, only the timer resends (EDK2 clients made gigabytes of it)
LOSSES_IN_A_ROW = 3  # windows; with 1 % of random loss and windows of 16, one in 300 comes so far
CLEAN_IN_A_ROW = 8  # windows without loss, after which bursts grow again
MIN_BURST = 2  # blocks
MIN_GAP_S = 0.001  # epoll waits whole milliseconds
MAX_GAP_S = 0.02
STEADY_SAMPLES = 8  # round trips measured before the fast lane opens
RESENT_FACTOR = 16
RESENT_GRACE = 256
"""A transfer ends when it resent more than RESENT_FACTOR times its blocks and RESENT_GRACE: a client that cannot
count must not make us flood the network."""
