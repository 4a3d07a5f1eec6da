"""Hatchling's hook: compiles the optional TFTP pump where a C compiler is (netboot/native/build.py says how and when).

Without one the installation goes on, and says so; `pip install -v` shows it, and so does the agent's log.
"""

import importlib.util
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags

_RECIPE = Path(__file__).parent / "netboot/native/build.py"


class PumpHook(BuildHookInterface[Any]):  # type: ignore[misc, unused-ignore]  # hatchling is not in the environment
    """Adds `netboot/native/pump.so` to wheels and to editable installations."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # as hatchling calls it
        """Before the files are collected."""
        if self.target_name != "wheel":
            return
        spec = importlib.util.spec_from_file_location("pump_recipe", _RECIPE)
        if spec is None or spec.loader is None:
            raise RuntimeError(f"{_RECIPE} cannot be loaded")
        recipe = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(recipe)
        try:
            library = recipe.build()
        except recipe.CompileError as error:
            recipe.LIBRARY.unlink(missing_ok=True)  # an older one could be of another source
            self.app.display_warning(f"boardhand: the TFTP pump is not compiled, pure Python serves instead: {error}")
            return
        build_data["pure_python"] = False
        # No Python is inside, so the wheel is good for every interpreter of this machine's kind.
        kind = next(tag.platform for tag in sys_tags() if tag.platform.startswith("linux_"))
        build_data["tag"] = f"py3-none-{kind}"
        build_data["force_include"][str(library)] = "netboot/native/pump.so"
