"""An arm64 "kernel" of a few octets, for boots over a cable so bad that Linux would take an hour.

It has the header of a Linux image (Documentation/arm64/booting.rst), so U-Boot's `booti` starts it as one. It writes
`MARKER` and then the device tree that it was given to the serial port, raw: the command line stands in there. Then it
switches the machine off.
"""

import struct

MARKER = "boardhand: the tiny kernel runs"
_UART = 0x0900  # the upper half of 0x09000000: the PL011 of QEMU's `virt` machine
_HEADER_BYTES = 64
_FLAGS = 0b1010  # little endian, 4 KiB pages, anywhere in memory

# Arm Architecture Reference Manual (DDI 0487), A64. x0 is the address of the device tree.
_CODE = (
    0xD2A00002 | _UART << 5,  # movz x2, #0x0900, lsl #16
    0x10000000 | (16 << 5) | 1,  # adr  x1, text (16 instructions on)
    0x38401423,  # next: ldrb w3, [x1], #1
    0x34000063,  # cbz  w3, tree
    0xB9000043,  # str  w3, [x2]
    0x17FFFFFD,  # b    next
    0xB9400404,  # tree: ldr w4, [x0, #4]: totalsize, big endian
    0x5AC00884,  # rev  w4, w4
    0x340000A4,  # byte: cbz w4, end
    0x38401403,  # ldrb w3, [x0], #1
    0xB9000043,  # str  w3, [x2]
    0x51000484,  # sub  w4, w4, #1
    0x17FFFFFC,  # b    byte
    0x52800100,  # end: movz w0, #8
    0x72B08000,  # movk w0, #0x8400, lsl #16: PSCI SYSTEM_OFF
    0xD4000002,  # hvc  #0
    0x17FFFFFD,  # b    end
)


def image(size: int = 4096) -> bytes:
    """The kernel, filled up to `size` octets.

    Raises:
        ValueError: `size` is too small for it.
    """
    text = f"\r\n{MARKER}\r\n".encode() + b"\0"
    body = struct.pack(f"<{len(_CODE)}I", *_CODE) + text
    if len(body) + _HEADER_BYTES > size:
        raise ValueError(f"the kernel needs {len(body) + _HEADER_BYTES} octets, not {size}")
    branch = 0x14000000 | _HEADER_BYTES // 4
    head = struct.pack("<IIQQQ", branch, 0, 0, size, _FLAGS) + bytes(24) + b"ARM\x64" + bytes(4)
    return (head + body).ljust(size, b"\0")
