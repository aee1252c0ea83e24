"""`tunesmith serve`: the OpenAI-compatible server in the foreground, until SIGTERM or Ctrl-C."""

import errno
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tunesmith.cli.desk import answering_while_loading, telling_where
from tunesmith.errors import PortInUse, TunesmithError

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tunesmith.serving.processes import EngineProcess
    from tunesmith.settings import Settings

app = typer.Typer(add_completion=False, rich_markup_mode=None)

PRIVATE_WEBHOOKS = typer.Option(
    None, "--allow-private-webhooks", help="Deliver webhooks to private addresses, and without TLS, too."
)

DATABASE_URL = typer.Option(
    None, metavar="URL", envvar="TUNESMITH_DATABASE_URL", help="PostgreSQL instead of a file: postgresql://user@host/name."
)
STORE = typer.Option(None, metavar="URL", envvar="TUNESMITH_STORE", help="S3 instead of the folder: s3://bucket/prefix.")


@app.command()
def serve(
    host: str = typer.Option(None, help="Address to listen on [default: 127.0.0.1]."),
    port: int = typer.Option(None, min=0, max=65535, help="Port; 0 takes a free one [default: 8040]."),
    data_dir: Path = typer.Option(None, help="Folder of database, files, runs and adapters [default: .tunesmith]."),
    database_url: str = DATABASE_URL,
    store: str = STORE,
    base: list[str] = typer.Option(None, help="Base model to train on and serve; may be repeated [default: tunesmith/tiny]."),
    alias: list[str] = typer.Option(None, metavar="NAME=MODEL", help="Another name of a model, for scripts; may be repeated."),
    embedding_model: str = typer.Option(None, metavar="BASE", help="Base that computes embeddings, whichever is asked."),
    moderation_model: str = typer.Option(None, metavar="MODEL", help="Model that judges for /v1/moderations [default: none]."),
    threads: int = typer.Option(None, min=0, help="CPU threads of the engine; 0 means all cores [default: 0]."),
    lazy: bool = typer.Option(None, "--lazy", help="Start engines when they are first asked, not at once."),
    replicas: int = typer.Option(None, min=1, help="Engines per base; the least busy one answers [default: 1]."),
    quantize: str = typer.Option(None, metavar="int8", help="Keep the embedded engine's weights in 8 bits, for speed on a CPU."),
    engine: str = typer.Option(None, metavar="embedded|vllm|openai", help="Who computes [default: embedded]."),
    upstream: str = typer.Option(None, metavar="URL", help="With --engine openai: the server's address."),
    upstream_key_env: str = typer.Option(None, metavar="NAME", help="Environment variable with the key for --upstream."),
    tensor_parallel: int = typer.Option(None, min=1, help="With --engine vllm: GPUs per engine [default: 1]."),
    quantization: str = typer.Option(None, metavar="Q", help="With --engine vllm: passed on as its --quantization."),
    allow_private_webhooks: bool = PRIVATE_WEBHOOKS,
    exit_with_parent: bool = typer.Option(False, "--exit-with-parent", help="Stop when the process that started this one ends."),
) -> None:
    """Serve the OpenAI-compatible API. Prints one line when it is ready."""
    from tunesmith.settings import Settings, to_aliases

    signal.signal(signal.SIGTERM, _leave)
    if exit_with_parent:
        _exit_with_parent()
    bases = tuple(_absolute(name) for name in base) if base else None
    settings = Settings.from_environment(
        host=host, port=port, data_dir=data_dir, database_url=database_url, store=store, bases=bases,
        threads=threads, lazy=lazy, replicas=replicas, quantize=quantize,
        engine=engine, upstream=upstream, upstream_key_env=upstream_key_env, tensor_parallel=tensor_parallel,
        quantization=quantization, aliases=_whole_paths(to_aliases(alias)) if alias else None,
        embedding_model=_absolute(embedding_model) if embedding_model else None,
        moderation_model=_absolute(moderation_model) if moderation_model else None,
        allow_private_webhooks=allow_private_webhooks,
    )
    # The port first: when it is taken, nothing has been made yet.
    with _listen(settings.host, settings.port) as listening:
        settings = settings.model_copy(update={"port": listening.getsockname()[1]})
        with answering_while_loading(listening):
            _check(settings)
            _first_key(settings)
            started = _start_engine(settings)
            app = _load(settings, started)
        with telling_where(settings.dirs, _address(listening)):
            _run(app, settings, listening)


def _listen(host: str, port: int) -> socket.socket:
    """Raises PortInUse, or TunesmithError for an address that is not ours."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        return socket.create_server(address[:2], family=family, backlog=2048)  # type: ignore[arg-type]
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUse(f"Port {port} on {host} is taken.", hint="Stop what listens there, or pass --port.") from error
        message = f"Cannot listen on {host}:{port}: {error.strerror or error}."
        raise TunesmithError(message, hint="Pass another --host or --port.") from error


def _check(settings: "Settings") -> None:
    """Raises NotFound for a base or an engine that is not here."""
    from tunesmith.models.catalog import find_base
    from tunesmith.serving.installs import python_of

    for name in (*settings.bases, *([settings.embedding_model] if settings.embedding_model else [])):
        find_base(name, settings.dirs.models)
    if settings.engine == "vllm" and settings.vllm_python is None:
        python_of("vllm", settings.dirs)


def _first_key(settings: "Settings") -> None:
    from tunesmith.db import keys
    from tunesmith.db.migrate import open_database

    database = open_database(settings.dirs.make().database, settings.database_url)
    with database.write() as connection:
        text = keys.create(connection, "first")[1] if keys.count(connection) == 0 else None
    database.close()
    if text is not None:
        print(f"API key (shown only now; `tunesmith keys create` makes more): {text}", flush=True)


def _start_engine(settings: "Settings") -> "EngineProcess | None":
    """The default base's engine, which imports while this process does; None where it is not ours, or not wanted yet."""
    from tunesmith.models.catalog import find_base
    from tunesmith.serving.memory import Memory, has_gpu, need_bytes
    from tunesmith.serving.orders import embedded_order
    from tunesmith.serving.processes import start_engine

    if settings.lazy or settings.engine != "embedded":
        return None
    base, is_int8 = find_base(settings.bases[0], settings.dirs.models), settings.quantize == "int8"
    Memory().check(f"The engine for {base.id}", need_bytes(base, "none", is_gpu=has_gpu(), is_int8=is_int8))
    return start_engine(embedded_order(settings, base.id, "none"))


def _load(settings: "Settings", started: "EngineProcess | None") -> "FastAPI":
    from tunesmith.api import logs
    from tunesmith.api.app import create_app

    logs.configure()
    return create_app(settings, started)


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _run(app: "FastAPI", settings: "Settings", listening: socket.socket) -> None:
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                print(f"Tunesmith is ready at {_address(listening)}/v1 ({', '.join(settings.bases)}).", flush=True)

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        proxy_headers=False,  # nobody's word on who asks but the socket's
        lifespan="on",
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
        server_header=False,
    )
    server = Server(config)
    server.run(sockets=[listening])
    if not server.started:
        raise TunesmithError("The server could not start.", hint="What it said stands above.")


def _absolute(base: str) -> str:
    """A local folder by its whole path, so that workers find it from anywhere; a name as it is."""
    return str(Path(base).expanduser().absolute()) if base.startswith((".", "/", "~")) else base


def _whole_paths(aliases: dict[str, str]) -> dict[str, str]:
    return {name: _absolute(meant) for name, meant in aliases.items()}


def _leave(*_: object) -> None:
    """SIGTERM is a normal end; uvicorn takes the signal over while it serves, and hands it on here when all is closed."""
    raise SystemExit(0)


def _exit_with_parent() -> None:
    import ctypes

    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGTERM)
