"""What the `model` of a request means: a base, a fine-tuned model of the caller's project, or an alias of either.

The one place where names of models are looked up: chat, jobs and judges ask here.
"""

from dataclasses import replace

from fastapi.concurrency import run_in_threadpool

from tunesmith.api.bases import find_offered
from tunesmith.api.deps import Desk
from tunesmith.db import models
from tunesmith.errors import InvalidRequest
from tunesmith.serving.routing import Target, base_target, to_target


def resolve(desk: Desk, model: str, project: str) -> Target:
    """The target, which bears the name that was asked. Reads database and shelf: call it in a worker thread.

    Raises NotFound with code `model_not_found`.
    """
    meant = desk.settings.aliases.get(model, model)
    return _named(desk, meant, project) if meant == model else replace(_named(desk, meant, project), model_id=model)


def _named(desk: Desk, model: str, project: str) -> Target:
    if _is_started_base(desk, model):
        return base_target(model)
    with desk.database.read() as connection:
        tuned = models.find(connection, model, project)
    if tuned is not None:
        return to_target(tuned, desk.settings.dirs.root)
    if desk.settings.engine == "openai":
        return base_target(model)  # the server elsewhere knows whether it has it
    return base_target(find_offered(desk, model).id)


async def target_of(desk: Desk, model: object, project: str) -> Target:
    """The same for the field of a body, on the event loop; a base that the server was started with costs no thread.

    Raises InvalidRequest for a value that is no name.
    """
    if not isinstance(model, str) or not model:
        code = "missing_required_parameter" if model is None else "invalid_value"
        raise InvalidRequest("You must provide a model.", hint="GET /v1/models lists them.", param="model", code=code)
    if _is_started_base(desk, desk.settings.aliases.get(model, model)):
        return resolve(desk, model, project)
    num_writes = desk.database.num_writes
    target = desk.names.get(model, project, num_writes)
    if target is None:
        target = await run_in_threadpool(resolve, desk, model, project)
        desk.names.put(model, project, target, num_writes)
    return target


def _is_started_base(desk: Desk, model: str) -> bool:
    return model in desk.settings.bases and model not in desk.withdrawn
