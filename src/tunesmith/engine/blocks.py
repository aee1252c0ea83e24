"""The stored blocks of prompts that were computed before: which there are, and what they hold. No torch: contents lie elsewhere."""

BLOCK = 16
"""Tokens of a block."""
