"""Compile `pump.c`: `python netboot/native/build.py [extra compiler flags]`. The build hook in hatch_build.py calls it.

A plain shared library without a line of Python's API: one file serves every interpreter, and no headers are needed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("pump.c")
LIBRARY = SOURCE.with_suffix(".so")
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-shared", "-fPIC")
TIMEOUT_S = 120
OFF = "BOARDHAND_PUMP"
"""Set to 0 in the environment of an installation: nothing is compiled, and a wheel serves every machine."""


class CompileError(Exception):
    """There is no pump; the message says why. Boardhand works without."""


def build(library: Path = LIBRARY, flags: Sequence[str] = ()) -> Path:
    """Make `library`, which is replaced in one step: a worker may just have the old one open.

    Raises:
        CompileError: it is not wanted, there is no compiler, this is no Linux, or the compiler refuses.
    """
    if os.environ.get(OFF) == "0":
        raise CompileError(f"{OFF}=0 says that none is wanted")
    if not sys.platform.startswith("linux"):
        raise CompileError(f"it is for Linux, and this is {sys.platform}")
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc")
    if compiler is None:
        raise CompileError("there is no C compiler (Debian: gcc and libc6-dev)")
    new = library.with_name(f"{library.name}.{os.getpid()}")
    command = [compiler, *FLAGS, *flags, "-o", str(new), str(SOURCE)]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if result.returncode:
            raise CompileError(f"{' '.join(command)} failed: {result.stderr.strip()[-1000:]}")
        new.replace(library)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CompileError(f"{compiler} cannot be run: {error}") from error
    finally:
        new.unlink(missing_ok=True)
    return library


if __name__ == "__main__":
    try:
        print(build(flags=sys.argv[1:]))  # noqa: T201 -- a program to be called by hand
    except CompileError as problem:
        sys.exit(f"no pump: {problem}")
