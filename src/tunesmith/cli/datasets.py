"""Brings a recipe's rows here, whatever names them: a bar for what a hub sends. Shared by `data check` and `train`."""

from functools import partial
from typing import TYPE_CHECKING

from tunesmith.paths import DataDir
from tunesmith.recipes.data import DataRecipe

if TYPE_CHECKING:
    from tunesmith.data.sources import Brought, HubName


def located(data: DataRecipe, dirs: DataDir, *, quiet: bool = False) -> DataRecipe:
    """The recipe with files in place of every other source (see `data/sources.py`). Raises what that says."""
    from tunesmith.data import sources

    return sources.located(data, partial(_bring, dirs=dirs, quiet=quiet))


def _bring(name: "HubName", *, dirs: DataDir, quiet: bool) -> "Brought":
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

    from tunesmith.data.hub_dataset import bring

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=quiet) as bars:
        task = bars.add_task(f"Ask the hub for {name.repo}", total=None)
        return bring(
            name, dirs.datasets,
            lambda file, done, total: bars.update(task, description=file, completed=done, total=total),
        )
