"""The steps of a job as they are offered: those that bring its files, then its own.

Files travel inside ordinary steps, written by the board's own shell. So every client can do it, also one of an older
release, and what went wrong stands in the job's log.
"""

from broker.groups.lava_tools import bring_script
from broker.jobs.spec import FileSpec, JobSpec
from wire.payloads import Step

BRING_NAME = "boardhand: files"
BRING_TIMEOUT_S = 900.0
# `sh -c` takes 128 KiB (MAX_ARG_STRLEN), a step 65,536 letters.
MAX_SCRIPT_BYTES = 60_000
PIECE_BYTES = 20_000

_FETCH = r"""fetch() {
    rm -f "$2.part"
    if command -v curl >/dev/null 2>&1; then
        curl -fsSL --connect-timeout 30 --retry 2 -o "$2.part" "$1"
    elif command -v wget >/dev/null 2>&1; then
        wget -q -O "$2.part" "$1"
    elif command -v python3 >/dev/null 2>&1; then
        python3 -c 'import shutil,sys,urllib.request as u
shutil.copyfileobj(u.urlopen(sys.argv[1],timeout=60),open(sys.argv[2],"wb"))' "$1" "$2.part"
    else
        echo "$2: this board has none of curl, wget and python3 to fetch it with"
        exit 1
    fi || { echo "$2: cannot be fetched from $1"; exit 1; }
    sum=$(sha256sum <"$2.part")
    [ "${sum%% *}" = "$3" ] || { echo "$2: has the checksum ${sum%% *}, not $3"; rm -f "$2.part"; exit 1; }
    mv "$2.part" "$2"
}
"""


def bring_count(spec: JobSpec) -> int:
    """How many of the offered steps bring files."""
    return len(_bringing(spec))


def wire_steps(spec: JobSpec) -> list[Step]:
    """The steps as an offer carries them: named and with a timeout each."""
    bringing = [
        Step(name=BRING_NAME, run=script, timeout_s=min(BRING_TIMEOUT_S, spec.timeout_s)) for script in _bringing(spec)
    ]
    own = [
        Step(
            name=name,
            run=step.run,
            timeout_s=step.timeout_s or spec.timeout_s,
            exit_codes=step.exit_codes if step.exit_codes != [0] else None,
            continue_on_fail=step.continue_on_fail,
        )
        for name, step in zip(spec.step_names(), spec.steps, strict=True)
    ]
    return bringing + own


def quoted(text: str) -> str:
    """`text` as one word of a POSIX shell."""
    return "'" + text.replace("'", "'\\''") + "'"


def _bringing(spec: JobSpec) -> list[str]:
    return ([bring_script()] if spec.with_lava else []) + _scripts(spec.files)


def _scripts(files: list[FileSpec]) -> list[str]:
    scripts: list[str] = []
    lines, size = ["set -e"], 0
    for file in files:
        for line in _lines(file, first=not any(_FETCH in known for known in lines)):
            cost = len(line.encode())
            if size + cost > MAX_SCRIPT_BYTES:
                scripts.append("\n".join(lines))
                lines, size = ["set -e"], 0
                if line.startswith("fetch "):
                    line = _FETCH + line  # noqa: PLW2901  # a new script knows nothing of the one before
            lines.append(line)
            size += cost
    return [*scripts, "\n".join(lines)] if files else []


def _lines(file: FileSpec, *, first: bool) -> list[str]:
    path = file.path if file.path.startswith("/") else f"./{file.path}"
    target, folder = quoted(path), quoted(path.rpartition("/")[0] or "/")
    lines = [f"mkdir -p {folder}"]
    if file.url is not None and file.sha256 is not None:
        lines.append((_FETCH if first else "") + f"fetch {quoted(file.url)} {target} {file.sha256.lower()}")
    else:
        pieces = _pieces(file.text or "")
        lines += [f"printf %s {quoted(piece)} {'>>' if n else '>'}{target}" for n, piece in enumerate(pieces)]
    return [*lines, f"chmod {file.mode} {target}"]


def _pieces(text: str) -> list[str]:
    """The text in pieces whose words fit a script: a letter takes 4 bytes at most, which also holds for a quote."""
    step = PIECE_BYTES // 4
    return [text[at : at + step] for at in range(0, len(text), step)] or [""]
