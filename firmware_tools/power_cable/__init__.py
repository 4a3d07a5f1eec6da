"""The firmware of boardhand's own power cable, for a Raspberry Pi Pico with MicroPython: docs/power-cable.md.

It runs on the board as the package `power_cable`, so it keeps to MicroPython's subset of Python, imports its own
modules relatively, and has nothing in common with the driver on the host but the protocol.
"""
