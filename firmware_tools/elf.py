"""The little of ELF that packing an initramfs needs: a section's content and the libraries that a program names.

Bytes in, values out. Source: System V ABI, chapters 4 "Object Files" and 5 "Dynamic Linking".
"""

import struct
from dataclasses import dataclass

MAGIC = b"\x7fELF"
DT_NULL, DT_NEEDED = 0, 1
MAX_NAME_BYTES = 256  # of a section or a library; longer ones are nobody's


class ElfError(ValueError):
    """The bytes are no ELF file, or a cut one."""


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    data: bytes
    link: int


def is_elf(data: bytes) -> bool:
    return data.startswith(MAGIC)


def _sections(data: bytes) -> list[_Section]:
    if not is_elf(data) or len(data) < 52 or data[4] not in {1, 2} or data[5] not in {1, 2}:
        raise ElfError("this is no ELF file")
    wide, order = data[4] == 2, "<" if data[5] == 1 else ">"
    damaged = ElfError("this ELF file is cut or damaged: its section table cannot be read")
    try:
        table = struct.unpack_from(order + ("Q" if wide else "I"), data, 40 if wide else 32)[0]
        size, count, names_at = struct.unpack_from(order + "HHH", data, 58 if wide else 46)
        # sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size, sh_link
        layout = order + ("IIQQQQI" if wide else "IIIIIII")
        if (count and size < struct.calcsize(layout)) or table + size * count > len(data):
            raise damaged
        heads = [struct.unpack_from(layout, data, table + i * size) for i in range(count)]
        names_start = heads[names_at][4] if count else 0
    except (struct.error, IndexError):
        raise damaged from None
    found = []
    for name_at, kind, _, _, offset, length, link in heads:
        start = names_start + name_at
        name = data[start : start + MAX_NAME_BYTES].partition(b"\0")[0].decode("ascii", "replace")
        content = b"" if kind == 8 else data[offset : offset + length]  # 8: SHT_NOBITS has no bytes in the file
        found.append(_Section(name, content, link))
    return found


def section(data: bytes, name: str) -> bytes | None:
    """The content of the section `name`, or None when there is none.

    Raises:
        ElfError: as the class says.
    """
    return next((found.data for found in _sections(data) if found.name == name), None)


def needed_libraries(data: bytes) -> list[str]:
    """The DT_NEEDED names of a dynamically linked program or library; empty for a static one.

    Raises:
        ElfError: as the class says.
    """
    sections = _sections(data)
    dynamic = next((found for found in sections if found.name == ".dynamic"), None)
    if dynamic is None:
        return []
    if dynamic.link >= len(sections):
        raise ElfError("this ELF file is damaged: .dynamic names no string table")
    strings = sections[dynamic.link].data
    layout = ("<" if data[5] == 1 else ">") + ("qQ" if data[4] == 2 else "iI")
    usable = len(dynamic.data) - len(dynamic.data) % struct.calcsize(layout)
    needed = []
    for tag, value in struct.iter_unpack(layout, dynamic.data[:usable]):
        if tag == DT_NULL:
            break
        if tag == DT_NEEDED:
            needed.append(strings[value : value + MAX_NAME_BYTES].partition(b"\0")[0].decode("utf-8", "replace"))
    return needed
