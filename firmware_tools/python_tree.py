"""Picks from an unpacked Python of a foreign architecture what one script needs to run, and nothing else.

Nothing of it is executed: imports are read from the syntax trees, shared libraries from the ELF files.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

from firmware_tools import elf

# Imported by the interpreter itself before any script; idna is what getaddrinfo encodes host names with.
ALWAYS = (
    "abc", "codecs", "io", "os", "site", "stat", "encodings.aliases", "encodings.ascii", "encodings.idna",
    "encodings.latin_1", "encodings.utf_8",
)  # fmt: skip
# Reached only through branches that a board's client never takes, and large.
NEVER = frozenset({
    "_hashlib", "_ssl", "asyncio", "ctypes", "distutils", "doctest", "email", "http", "multiprocessing", "pdb", "pydoc",
    "sqlite3", "ssl", "tkinter", "turtle", "unittest", "urllib", "xml",
})  # fmt: skip


class PythonTreeError(Exception):
    """The tree is not a Python that can be packed. The message names what is missing."""


def _imports(source: bytes, package: str) -> Iterator[str]:
    """Every module that the source may import, with what stands under `if TYPE_CHECKING:` left out."""
    todo: list[ast.AST] = [ast.parse(source)]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            todo.extend(node.orelse)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            full = ".".join([*base, *([node.module] if node.module else [])])
            if full:
                yield full
                yield from (f"{full}.{alias.name}" for alias in node.names)
        else:
            todo.extend(ast.iter_child_nodes(node))


def _find(stdlib: Path, name: str) -> Path | None:
    below = stdlib / name.replace(".", "/")
    for candidate in (below / "__init__.py", below.with_name(below.name + ".py")):
        if candidate.is_file():
            return candidate
    return next(iter(sorted((stdlib / "lib-dynload").glob(f"{name}.cpython-*.so"))), None)


def _module_files(stdlib: Path, script: Path) -> set[Path]:
    files: set[Path] = set()
    seen: set[str] = set()
    todo = [*ALWAYS, *_imports(script.read_bytes(), "")]
    while todo:
        name = todo.pop()
        if name in seen or name in NEVER or name.partition(".")[0] in NEVER:
            continue
        seen.add(name)
        if "." in name:
            todo.append(name.rpartition(".")[0])
        path = _find(stdlib, name)
        if path is None:  # built into the interpreter, or a name inside a module
            continue
        files.add(path)
        if path.suffix == ".py":
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            todo.extend(_imports(path.read_bytes(), package))
    return files


def _needed(program: Path) -> list[str]:
    try:
        return elf.needed_libraries(program.read_bytes())
    except elf.ElfError as error:
        raise PythonTreeError(f"{program}: {error}") from error


def _libraries(root: Path, programs: set[Path]) -> set[Path]:
    places = [root / "lib", *sorted((root / "lib").glob("*-linux-*"))]
    found: set[Path] = set()
    todo = list(programs)
    while todo:
        for name in _needed(todo.pop()):
            path = next((place / name for place in places if (place / name).exists()), None)
            if path is None:
                raise PythonTreeError(f"{root}: no {name}, which Python needs; delete the folder and fetch it again")
            if path not in found:
                found.add(path)
                todo.append(path)
    return found


def files_for(root: Path, script: Path) -> list[tuple[str, Path]]:
    """What `script` needs of the Python below `root`, as (path inside the root, file with the content).

    Symbolic links are followed: each path comes with the file that it leads to.

    Raises:
        PythonTreeError: `root` holds no Python, or a library is missing.
    """
    interpreter = root / "bin/python3"
    stdlib = next(iter(sorted((root / "lib").glob("python3.[0-9]*"))), None)
    if stdlib is None or not interpreter.exists():
        raise PythonTreeError(f"{root}: no bin/python3 and lib/python3.*; this is no Python root")
    modules = _module_files(stdlib, script)
    programs = {interpreter, *(path for path in modules if path.suffix == ".so")}
    chosen = programs | modules | _libraries(root, programs)
    # The dynamic loader is named in the program header, not in DT_NEEDED of everything.
    chosen.update(path for path in (root / "lib").glob("ld-linux*") if path.exists())
    # Python looks for its library from its own place upwards, but not in `/` itself: hence `usr`.
    return sorted(
        (str(Path("usr" if path in programs | modules else "", path.relative_to(root))), path.resolve())
        for path in chosen
    )
