"""The house's rules that no other tool holds, read off the source with ast. design.md, sections 3 and 6, in code.

Each table of exceptions names a file and the reason; an entry that is no longer used is itself a failure.
"""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "tunesmith"
FILES = {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text()) for path in sorted(SOURCE.rglob("*.py"))}

MAX_LINES = 50
"""Of a function, its docstring included."""

BROAD_EXCEPT: dict[str, str] = {
    "worker.py": "a process boundary: whatever a run dies of becomes its last event",
    "api/middleware.py": "a process boundary: a client gets OpenAI's error body, the log gets the traceback",
    "api/asking.py": "the boundary of a task that nobody waits for: the response says that it failed, the log why",
    "engine/core.py": "the boundary between one request and the others: one that fails fails alone",
    "jobs/loops.py": "a thread's outermost boundary: one bad job must not stop the others",
}

IMPORTS_INSIDE_FUNCTIONS = ("cli/", "worker.py", "__init__.py")
"""Where starting quickly, or without torch, is worth it."""

LOADS_WEIGHTS: dict[str, str] = {
    "models/loader.py": "the one loader of bases",
    "models/weights.py": "the same files as tensors, where no model code is wanted",
    "engine/adapters.py": "an adapter's few tensors, after models/artifact.py has checked its folder",
    "models/export.py": "an adapter under PEFT, to be merged into its base",
    "train/saved.py": "an adapter under PEFT, after models/artifact.py has checked its folder",
    "train/checkpoints.py": "a run's own tensors, from bytes that matched the manifest's sha256",
}
READS_TOKENIZER: dict[str, str] = {
    "data/tokenizer.py": "a tokenizer holds no weights; this is the one place that makes one",
}
WEIGHT_READERS = {"load", "load_file", "load_model", "safe_open"}

STARTS_ENGINE = "serving/processes.py"

NEVER_IMPORTS: dict[str, set[str]] = {
    "train": {"db", "api", "jobs", "engine"},
    "evals": {"db", "api", "jobs", "engine"},
    "batches": {"db", "api", "jobs", "engine"},
    "engine": {"db", "api", "jobs"},
    "worker.py": {"db", "api", "jobs"},
    "serving": {"engine"},
    "jobs": {"engine", "train"},
    "api": {"engine", "train"},
    "cli": {"engine"},
}
"""Directions that the floors alone do not forbid: the workshop knows no SQL, and nobody holds an engine but its process."""


def walk(file: str, kind: type | tuple[type, ...]) -> Iterator[ast.AST]:
    return (node for node in ast.walk(FILES[file]) if isinstance(node, kind))


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that is imported, `from a import b` as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def called(node: ast.Call) -> str:
    """The dotted name that is called: `torch.load`, `from_pretrained`."""
    return ast.unparse(node.func)


def found(test: Callable[[str], Iterator[int]], *, allowed: dict[str, str] | None = None) -> list[str]:
    """`file:line` of what `test` finds outside the allowed files; an allowed file where it finds nothing is reported too."""
    allowed = allowed or {}
    places = {file: list(test(file)) for file in FILES}
    wrong = [f"{file}:{line}" for file, lines in places.items() if file not in allowed for line in lines]
    return wrong + [f"{file} is allowed but needs no exception" for file in allowed if not places.get(file)]


def test_no_pickle_is_written_or_read() -> None:
    pickles = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}

    def bad(file: str) -> Iterator[int]:
        yield from (line for line, name in imported(FILES[file]) if name.split(".")[0] in pickles)
        for node in walk(file, ast.Call):
            allows = any(k.arg == "allow_pickle" and getattr(k.value, "value", None) is not False for k in node.keywords)
            if called(node) in {"torch.load", "torch.save", "torch.jit.load", "pandas.read_pickle"} or allows:
                yield node.lineno

    assert found(bad) == []


def test_nothing_of_the_libraries_that_train_is_assigned_to() -> None:
    """TRL, transformers, peft and accelerate are subclassed and called: an assignment would change them for all, unseen."""
    libraries = ("trl", "transformers", "peft", "accelerate")

    def bad(file: str) -> Iterator[int]:
        names = {alias.asname or alias.name.split(".")[0] for node in walk(file, (ast.Import, ast.ImportFrom))
                 for alias in node.names if (getattr(node, "module", None) or alias.name).split(".")[0] in libraries}
        for node in walk(file, (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete)):
            targets = getattr(node, "targets", None) or [node.target]
            parts = [part for target in targets for part in (target.elts if isinstance(target, ast.Tuple) else [target])]
            if any(isinstance(part, ast.Attribute | ast.Subscript) and root(part) in names for part in parts):
                yield node.lineno
        for node in walk(file, ast.Call):
            if called(node) in {"setattr", "delattr", "patch", "patch.object"} and root(node.args[0]) in names:
                yield node.lineno

    assert found(bad) == []


def root(node: ast.AST) -> str:
    """The name that an expression such as `a.b[c].d` begins with; empty for one that begins otherwise."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def test_the_trainer_saves_nothing_and_reads_nothing_of_its_own() -> None:
    """Its optimizer.pt, rng_state.pth and training_args.bin are pickle; that none ever exists, tests/train/faults.py sees."""
    names = {"save_model", "_save_checkpoint", "save_state", "resume_from_checkpoint", "_save_optimizer_and_scheduler"}

    def bad(file: str) -> Iterator[int]:
        yield from (node.lineno for node in walk(file, ast.Attribute) if node.attr in names)
        for node in walk(file, ast.keyword):
            saves = node.arg == "save_strategy" and getattr(node.value, "value", None) != "no"
            if saves or node.arg in names:
                yield node.value.lineno

    assert found(bad) == []
    assert any(node.arg == "save_strategy" for node in walk("train/trainer.py", ast.keyword))


def test_no_model_brings_code_of_its_own() -> None:
    def bad(file: str) -> Iterator[int]:
        for node in walk(file, ast.keyword):
            if node.arg == "trust_remote_code" and getattr(node.value, "value", None) is not False:
                yield node.value.lineno

    assert found(bad) == []


def test_weights_are_loaded_in_one_place() -> None:
    def bad(file: str) -> Iterator[int]:
        yield from (line for line, name in imported(FILES[file]) if name.startswith("safetensors")
                    and name.rsplit(".", 1)[-1] in WEIGHT_READERS)
        for node in walk(file, ast.Call):
            if called(node).endswith(".from_pretrained") and file not in READS_TOKENIZER:
                yield node.lineno

    assert found(bad, allowed=LOADS_WEIGHTS) == []


def test_one_place_makes_tokenizers() -> None:
    def bad(file: str) -> Iterator[int]:
        for node in walk(file, ast.Call):
            if "Tokenizer" in called(node) and called(node).endswith((".from_pretrained", ".from_file")):
                yield node.lineno

    assert found(bad, allowed=READS_TOKENIZER) == []


def test_one_place_starts_the_engine() -> None:
    def bad(file: str) -> Iterator[int]:
        if not file.startswith("engine/"):  # it may say its own name
            yield from (node.lineno for node in walk(file, ast.Constant) if node.value == "tunesmith.engine")

    assert found(bad, allowed={STARTS_ENGINE: "the only place that starts an engine"}) == []


def test_one_place_asks_addresses_that_clients_named() -> None:
    """The others hold an upstream, the desk's own port, or a hub that the owner of the machine has set."""
    askers = ("http.client", "urllib.request", "requests", "httpx")

    def bad(file: str) -> Iterator[int]:
        yield from (line for line, name in imported(FILES[file]) if name.startswith(askers))

    allowed = {"fetch.py": "the one fetcher", "train/interruption.py": "asks this machine's own metadata service, nobody else"}
    assert found(bad, allowed=allowed) == []


def test_an_error_is_caught_by_name_except_at_a_process_boundary() -> None:
    def bad(file: str) -> Iterator[int]:
        for node in walk(file, ast.ExceptHandler):
            if isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None:
                continue  # cleans up and passes the error on
            types = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(each is None or ast.unparse(each) in {"Exception", "BaseException"} for each in types):
                yield node.lineno

    assert found(bad, allowed=BROAD_EXCEPT) == []


def test_nothing_is_asked_by_hasattr() -> None:
    assert found(lambda file: (node.lineno for node in walk(file, ast.Call) if called(node) == "hasattr")) == []


def test_imports_stand_at_the_top() -> None:
    def bad(file: str) -> Iterator[int]:
        if file.startswith(IMPORTS_INSIDE_FUNCTIONS):
            return
        for function in walk(file, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from (line for line, _ in imported(function))

    assert found(bad) == []


def test_a_function_fits_on_a_screen() -> None:
    def bad(file: str) -> Iterator[int]:
        for node in walk(file, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if node.end_lineno - node.lineno + 1 > MAX_LINES:
                yield node.lineno

    assert found(bad) == []


def test_a_module_opens_with_what_it_does() -> None:
    assert [file for file, tree in FILES.items() if tree.body and not ast.get_docstring(tree)] == []


@pytest.mark.parametrize("room", NEVER_IMPORTS)
def test_the_directions_between_rooms_hold(room: str) -> None:
    forbidden = {f"tunesmith.{other}" for other in NEVER_IMPORTS[room]}
    own = [file for file in FILES if file == room or file.startswith(f"{room}/")]
    wrong = [
        f"{file}:{line} imports {name}"
        for file in own
        for line, name in imported(FILES[file])
        if ".".join(name.split(".")[:2]) in forbidden
    ]
    assert wrong == []
