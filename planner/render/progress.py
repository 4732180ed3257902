"""A bar on standard error while something takes its time; nothing where that is no terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from planner.render.text import printable


@contextmanager
def progress(action: str) -> Iterator[Callable[[str, int, int], None]]:
    """While the block runs, a bar: call what is given with what runs now, how many are done, and how many there are."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    words = TextColumn("{task.description}", markup=False)
    with Progress(words, BarColumn(bar_width=20), TimeElapsedColumn(), console=console, transient=True) as bar:
        task = bar.add_task(action, total=None)

        def report(now: str, done: int, total: int) -> None:
            bar.update(task, description=printable(f"{action}: {now}"), completed=done, total=max(total, 1))

        yield report
