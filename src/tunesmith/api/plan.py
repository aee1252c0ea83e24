"""/v1/plan: what a job would do, before it is ordered: its rows, steps and numbers, its memory, and what it would cost on rented
machines; or everything that is wrong with its files.

Only what can be known without a tokenizer: tokens are estimated from bytes. The functions are those of `tunesmith plan`.
"""

from datetime import date as Day
from pathlib import Path
from tempfile import TemporaryDirectory

from fastapi import APIRouter

from tunesmith.api.bases import find_offered
from tunesmith.api.deps import DeskDep, KeyDep, needs
from tunesmith.api.files import find_for_training
from tunesmith.api.fine_tuning import read_order
from tunesmith.errors import InvalidRequest
from tunesmith.jobs import prepare
from tunesmith.jobs.prepare import Source
from tunesmith.models.catalog import Base
from tunesmith.plan.answer import Question, answer, best_offers, here
from tunesmith.plan.memory import peak, training
from tunesmith.plan.prices import load
from tunesmith.plan.shapes import of_folder
from tunesmith.plan.trained import trained
from tunesmith.recipes.auto import resolve
from tunesmith.recipes.run import Recipe
from tunesmith.runfolder import RunFolder
from tunesmith.schemas.plan import Machine, Plan, PlannedFile, PlannedPhase, Rental, to_plan, tokens_per_epoch
from tunesmith.schemas.tuning_order import JobCreate
from tunesmith.serving.memory import gpu_free_bytes

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
    machine = _machine(chosen, base, files[0], num_rows)
    return to_plan(body.type, body.part.hyperparameters.model_dump(), chosen, held_out, files, machine)


def _machine(recipe: Recipe, base: Base, file: PlannedFile, num_rows: int) -> Machine | str:
    """What the job would take here and on rented GPUs; a sentence for an architecture that is not planned for."""
    try:
        shape = of_folder(base.folder, base.id)
    except InvalidRequest as error:
        return error.message
    what, on_gpu = trained(shape, recipe.adapter), bool(gpu_free_bytes())
    length = max(1, min(tokens_per_epoch(file, num_rows) // max(1, num_rows), recipe.method.max_length or base.max_positions))
    method = recipe.method
    question = Question(
        shape, what, recipe.quantization, method=method.type, longest=length, mean=length, rows=num_rows,
        epochs=method.epochs or 1, batch_size=method.batch_size or 1, optimizer=recipe.compute.optimizer,
    )
    phases = training(shape, here(question, on_gpu=on_gpu))
    found = answer(question, load(), Day.today())
    return Machine(
        tokens_per_pass=here(question, on_gpu=on_gpu).tokens, peak_bytes=peak(phases).total,
        phases=[PlannedPhase(name=phase.name, bytes=phase.total, parts=phase.parts) for phase in phases],
        rentals=[
            Rental(
                gpu=option.gpu.name, count=option.count, provider=offer.price.provider, instance=offer.price.instance,
                spot=offer.spot, hours=offer.hours, usd=offer.usd, source=offer.price.source,
                price_date=offer.price.date.isoformat(), price_age=offer.age,
            )
            for option, offer in best_offers(found)
        ],
        rejected=found.rejected,
    )
