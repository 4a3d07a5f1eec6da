"""A riscv64 "kernel" of a few octets, as `tiny_kernel` is for arm64: Debian 12 has no Linux for riscv64.

It has the header of a Linux image (Documentation/arch/riscv/boot-image-header.rst), so U-Boot's `booti` starts it as
one. By SBI calls it writes `tiny_kernel.MARKER` to the console and switches the machine off.
"""

import struct

from virtual_lab.tiny_kernel import MARKER

_HEADER_BYTES = 64
_LOAD_OFFSET = 0x200000  # from the start of memory, as Linux has it
_VERSION = 2  # of the header: 0.2

# The RISC-V instruction set manual, RV64I; calls by the SBI specification, 5.2 (legacy console) and 10.1 (reset).
_CODE = (
    0x00000417,  # auipc s0, 0
    0x03C40413,  # addi s0, s0, text (15 instructions on)
    0x00044503,  # next: lbu a0, (s0)
    0x00050A63,  # beqz a0, end
    0x00100893,  # li a7, 1: console putchar
    0x00000073,  # ecall
    0x00140413,  # addi s0, s0, 1
    0xFEDFF06F,  # j next
    0x535258B7,  # end: lui a7, 0x53525
    0x35488893,  # addi a7, a7, 0x354: system reset, "SRST"
    0x00000813,  # li a6, 0
    0x00000513,  # li a0, 0: shutdown
    0x00000593,  # li a1, 0: no reason
    0x00000073,  # ecall
    0x0000006F,  # j here
)
_JUMP_OVER_HEADER = 0x0400006F  # j 64


def image(size: int = 4096) -> bytes:
    """The kernel, filled up to `size` octets."""
    text = f"\r\n{MARKER}\r\n".encode() + b"\0"
    head = struct.pack(
        "<IIQQQIIQ8sII", _JUMP_OVER_HEADER, 0, _LOAD_OFFSET, size, 0, _VERSION, 0, 0, b"RISCV", 0x05435352, 0
    )
    return (head + struct.pack(f"<{len(_CODE)}I", *_CODE) + text).ljust(size, b"\0")
