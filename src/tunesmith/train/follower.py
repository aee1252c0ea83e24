"""One of the processes that share a run's steps, but the first: it makes steps, and tells and writes nothing.

    python -m tunesmith.train.follower RUN_FOLDER MODELS_DIR < RECIPE        started by `processes.started`
"""

import json
import sys
from pathlib import Path
from typing import Any

from tunesmith.recipes.run import parse
from tunesmith.runfolder import RunFolder
from tunesmith.train import processes
from tunesmith.train.methods import METHODS
from tunesmith.train.tools import Tools


def quiet(*_: Any, **__: Any) -> None:
    """The first process tells all events, and says when to stop."""


def main() -> None:
    processes.end_with_first()
    folder, models_dir = sys.argv[1:]
    recipe = parse(json.loads(sys.stdin.read()))
    METHODS[recipe.method.type](recipe, RunFolder(Path(folder)), Tools(quiet, quiet, Path(models_dir) if models_dir else None))


if __name__ == "__main__":
    main()
