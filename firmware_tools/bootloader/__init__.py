"""The dialogue with a board's boot loader over its console: caught, asked, told to boot from the net.

All of it is without I/O and without a clock: bytes and times in, bytes and deadlines out. An `Exchange` is one thing
said and answered; a flow is a generator that yields exchanges and is sent their results. `agent/bootloader_line.py` is
the adapter that has a serial port and a clock.
"""
