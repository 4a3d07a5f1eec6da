"""Runs one target of `netboot_targets` under atheris, coverage-guided: `fuzz_netboot.py TARGET SECONDS CORPUS`.

atheris is in an environment of its own (`make fuzz`). What breaks a target is written to `crash-…` in CORPUS's parent.
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
# By name: it is in the environment of `make fuzz` alone, not among what the project declares.
atheris = importlib.import_module("atheris")
with atheris.instrument_imports(include=["netboot"]):
    from tests.fuzz import netboot_targets

LONGEST_INPUT_BYTES = 4096
SLOW_S = 10
"""An input that takes longer has found a loop."""


def main(arguments: list[str]) -> None:
    """Entry point; ends the process."""
    name, seconds, corpus = arguments[0], arguments[1], Path(arguments[2])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(netboot_targets.seeds(name)):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [
        f"-max_total_time={seconds}", f"-max_len={LONGEST_INPUT_BYTES}", f"-timeout={SLOW_S}", "-print_final_stats=1",
        f"-artifact_prefix={corpus.parent}/{name}-", "-verbosity=1", str(corpus),
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options], netboot_targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
