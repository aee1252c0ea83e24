"""How the server's log looks: one event per line, `key=value`, tracebacks without the values of variables (they hold secrets)."""

import sys

import structlog


def configure() -> None:
    """For the whole process; to stderr."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.KeyValueRenderer(key_order=["timestamp", "level", "event"], repr_native_str=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
