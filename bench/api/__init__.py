"""`python -m bench.api`: the gateway between a client and an engine, beside LiteLLM's proxy. See docs/results.md."""
