"""How long the dialogue with a shell waits for what, and the keys that it types."""

TAIL_BYTES = 8192
"""Of what was heard outside of a command; a mark is far shorter."""
LOOK_S = 0.7
"""Who has asked something on a console is quiet then; boots are not, for so long, in the middle of a line."""
LOGIN_ANSWER_S = 6.0
"""After a name or a password, where no prompt stands there yet: slow boards hash for seconds."""
RETYPE_S = 0.3
"""After Ctrl-C: a shell's editor throws away what comes with it."""
PROBE_S = 3.0
APPROACH_S = 60.0
"""For everything between the first key and the shell: agetty waits long after a wrong password."""
ACK_S = 10.0
"""For the answer to one typed line, beside the time that it takes to be typed."""
TRANSFERS = 3
"""How often a script is typed anew when characters were lost."""
SUSPECT_S = 3.0
"""A prompt and then silence, while a command runs: perhaps a kernel's message stood in the mark of its end."""
GONE_S = 10.0
"""A login prompt for so long, while a command runs: its shell is gone."""
AWAY_S = 30.0
"""How long a port may be away in the midst of a command: an adapter that is plugged in again takes seconds."""
MAX_REFUSALS = 2
"""Of a login at one approach: more could lock the account."""

ENTER_KEY, CTRL_C, CTRL_U, CTRL_Z, QUIT = b"\r", b"\x03", b"\x15", b"\x1a", b"\x1c"
ASK = b""
KILL = b" kill -9 %%;wait" + ENTER_KEY
INTERRUPTS: tuple[tuple[bytes, float], ...] = (
    *((CTRL_C, 0.3), (ASK, 1.5), (CTRL_C, 0.3), (ASK, 1.5), (QUIT, 0.3), (ASK, 1.5)),
    *((CTRL_Z, 0.5), (KILL, 0.5), (ASK, 3.0), (ASK, 5.0)),
)
"""What is typed to get a shell back, in turn, and the seconds that it gets. A shell without job control, as that of an
initramfs on /dev/console, knows none of these keys."""
