"""How far something with octets is: a bar on a terminal, nothing elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from netboot.roots.importing import say_nothing
from netboot.roots.store import Progress


@contextmanager
def bar(*, hidden: bool) -> Iterator[Progress]:
    """A `Progress` that is drawn on standard error while the block runs, if that is a terminal."""
    if hidden or not sys.stderr.isatty():
        yield say_nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), DownloadColumn(),
               TransferSpeedColumn(), TimeRemainingColumn())  # fmt: skip
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        task = bars.add_task("", total=None)
        said = ""

        def tell(what: str, done: int, of: int | None) -> None:
            nonlocal said, task
            if what != said:
                said = what
                bars.remove_task(task)
                task = bars.add_task(what, total=of)
            bars.update(task, completed=done, total=of)

        yield tell
