"""Signs of life that a board gives without a client or a console: its link, its neighbour entry, its USB device.

The kernel tells of them over netlink when they happen; nothing is polled.
"""
