"""What MicroPython starts: copied to the root of the board's files, beside the folder `power_cable`.

Should the firmware end by an error, the board restarts, and the outlets are set as they were.
"""

import sys
import time

import machine  # type: ignore[import-not-found]  # MicroPython's
import micropython  # type: ignore[import-not-found]
from power_cable import firmware  # type: ignore[import-not-found]  # this folder, as it is called on the board

SAY_S = 2
"""For who looks on at a terminal, and may break in by Ctrl-C meanwhile, as mpremote does."""

try:
    firmware.run()
except Exception as error:
    sys.print_exception(error)  # type: ignore[attr-defined]
    micropython.kbd_intr(3)
    time.sleep(SAY_S)
    machine.reset()
