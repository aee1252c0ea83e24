"""Event files for TensorBoard in the run's folder: `tensorboard --logdir RUN/tensorboard`. An attempt that goes on adds one."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch.utils.tensorboard import SummaryWriter

from tunesmith.recipes.run import Recipe
from tunesmith.recipes.tracking import TensorBoard
from tunesmith.runfolder import RunFolder
from tunesmith.train.tracking import Log

NAME = "TensorBoard"
ERRORS = (OSError,)


@contextmanager
def started(wanted: TensorBoard, number: int, recipe: Recipe, folder: RunFolder) -> Iterator[Log]:
    with SummaryWriter(str(folder.root / "tensorboard"), flush_secs=10) as writer:

        def log(numbers: dict[str, float], step: int) -> None:
            for name, value in numbers.items():
                writer.add_scalar(name, value, step)

        yield log
