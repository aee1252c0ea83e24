"""/v1/plan: what a job would do, before it is ordered: its rows, steps and numbers, or everything that is wrong with its files.

Only what can be known without a tokenizer or a GPU: the time and the memory that it takes are not told here.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi import APIRouter

from tunesmith.api.bases import find_offered
from tunesmith.api.deps import DeskDep, KeyDep, needs
from tunesmith.api.files import find_for_training
from tunesmith.api.fine_tuning import read_order
from tunesmith.jobs import prepare
from tunesmith.jobs.prepare import Source
from tunesmith.recipes.auto import resolve
from tunesmith.runfolder import RunFolder
from tunesmith.schemas.plan import Plan, PlannedFile, to_plan
from tunesmith.schemas.tuning_order import JobCreate

router = APIRouter(prefix="/v1/plan", dependencies=[needs("plans")])


@router.post("")
def create(body: JobCreate, desk: DeskDep, key: KeyDep) -> Plan:
    """Takes the body of a job. Raises InvalidData for files that would fail it."""
    recipe = read_order(body, desk, key)
    files = []
    with TemporaryDirectory(dir=desk.settings.dirs.runs, prefix=".plan-") as name:
        folder = RunFolder(Path(name))
        for param, target in (("training_file", recipe.data.train), ("validation_file", recipe.data.validation)):
            if target is not None:
                file = find_for_training(desk, getattr(body, param), param, key.project)
                source = Source(param, target, file)
                prepare.lay_out(folder, recipe, [source], desk.store)
                rows = prepare.check(folder, recipe, [source], min_examples=desk.settings.min_examples)
                files.append(PlannedFile(param=param, id=file.id, bytes=file.num_bytes, rows=rows))
    base = find_offered(desk, recipe.base)
    share = recipe.data.held_out if recipe.data.validation is None else 0
    held_out = max(1, round(files[0].rows * share)) if share else 0
    num_rows = files[0].rows - held_out
    chosen = resolve(recipe, hidden_size=base.hidden_size, num_rows=num_rows, max_positions=base.max_positions)
    return to_plan(body.type, body.part.hyperparameters.model_dump(), chosen, held_out, files)
