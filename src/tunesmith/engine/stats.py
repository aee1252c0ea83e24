"""The engine's figures, as one value."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stats:
    """How busy the engine is, and what it has done since it began."""

    running: int
    waiting: int
    """Of both priorities."""
    waiting_batch: int
    refused: int
    """Sequences that were turned away: the queue was full, the engine was draining, or they would never have fitted."""
    prompt_tokens: int
    """Of sequences that were begun, found or computed."""
    cached_prompt_tokens: int
    generated_tokens: int
    preemptions: int
    finished: dict[str, int]
    """Sequences by the reason why they ended."""
    steps: int
    prefix_queried_tokens: int
    """Tokens in whole blocks that were looked for in the prefix cache."""
    prefix_hit_tokens: int
    blocks_used: int
    blocks_total: int
    rows: int
    """Most sequences that may run at once."""
