"""The ELF reader, on real files of this machine and of arm64, and on damaged ones."""

import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_tools import elf
from firmware_tools.kernel_modules import read_module, resolve

PYTHON = Path(sys.executable).resolve()


def test_needed_libraries_are_among_those_that_the_loader_finds():
    needed = elf.needed_libraries(PYTHON.read_bytes())
    ldd = subprocess.run(["ldd", PYTHON], capture_output=True, text=True, check=True, timeout=60).stdout
    assert "libc.so.6" in needed
    assert all(name in ldd for name in needed)


def test_a_static_program_needs_nothing(busybox):
    assert elf.needed_libraries(busybox.read_bytes()) == []


def test_a_32_bit_big_endian_file():
    """Two sections: .modinfo and the names of sections."""
    names = b"\0.modinfo\0.names\0"
    content = b"depends=a,b\0"
    at = 52
    table = at + len(names) + len(content)
    ident = b"\x7fELF\x01\x02\x01" + bytes(9)
    head = ident + struct.pack(">HHIIIIIHHHHHH", 1, 8, 1, 0, 0, table, 0, 52, 0, 0, 40, 3, 2)
    modinfo = (1, 1, 0, 0, at + len(names), len(content), 0, 0, 0, 0)
    sections = [(0,) * 10, modinfo, (10, 3, 0, 0, at, len(names), 0, 0, 0, 0)]
    data = head + names + content + b"".join(struct.pack(">10I", *section) for section in sections)
    assert elf.section(data, ".modinfo") == content
    assert elf.section(data, ".text") is None
    assert elf.needed_libraries(data) == []


NO_ELF = [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(20), b"\x7fELF\x09\x01" + bytes(90)]


@pytest.mark.parametrize("data", NO_ELF)
def test_what_is_no_elf_file_is_said_to_be_none(data):
    with pytest.raises(elf.ElfError):
        elf.section(data, ".modinfo")


@pytest.fixture(scope="module")
def failover(kernel):
    return read_module(resolve(kernel.modules_dir, ["failover"])[0])


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damage_is_an_error_or_an_answer(failover, data):
    module = bytearray(failover)
    for _ in range(3):
        module[data.draw(st.integers(0, 63))] = data.draw(st.integers(0, 255))
    try:
        elf.section(bytes(module), ".modinfo")
        elf.needed_libraries(bytes(module[: data.draw(st.integers(0, len(module)))]))
    except elf.ElfError:
        pass
