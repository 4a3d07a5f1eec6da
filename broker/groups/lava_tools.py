"""The `lava-…` programs as a step of the offer brings them to a board.

They travel with each job that wants them, so a board needs no newer client when they change.
"""

from functools import cache
from pathlib import Path

NAMES = (
    *("lava-self", "lava-role", "lava-group", "lava-send", "lava-wait", "lava-wait-all", "lava-sync", "lava-network"),
    *("lava-echo-ipv4", "lava-test-case", "lava-test-set", "lava-test-raise"),
)
_END = "END_OF_LAVA_CALLS"


@cache
def bring_script() -> str:
    """A script that lays the programs into the folder that stands in the PATH of the steps."""
    program = (Path(__file__).parent / "lava_calls.sh").read_text(encoding="utf-8")
    lines = [line for n, line in enumerate(program.split("\n")) if n == 0 or not line.lstrip().startswith("# ")]
    return "\n".join(
        [
            "set -e",
            'if [ -z "$BOARDHAND_BIN" ]; then echo "this board\'s client is too old for the lava programs"; exit 1; fi',
            f"cat >\"$BOARDHAND_BIN/lava-calls\" <<'{_END}'",
            "\n".join(lines).rstrip("\n"),
            _END,
            'chmod 755 "$BOARDHAND_BIN/lava-calls"',
            f'for name in {" ".join(NAMES)}; do ln -sf lava-calls "$BOARDHAND_BIN/$name"; done',
        ]
    )
