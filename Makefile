# make demo   sets everything up and runs the main job
# make test   sets everything up and passes the tests
# make test-long  what takes minutes and seldom changes: the control of the demo
# make test-faults  kills every kind of run at every durable action, and compares (hours)
# make test-vllm  tests the vLLM driver against the real one (minutes)
# make clients  the official OpenAI clients that the tests use beside the installed one
# make fuzz   much hostile input for every operation of the API
# make check  style, types, floors, docs
# make bench-serve  the engine beside its peers (VLLM_PYTHON=... and ARGS="--only ..." if wanted)
# make bench-train  the trainer beside its peers: DATA=FOLDER of alpaca_en_demo.json and lamini_docs_train_1260.jsonl (LLAMAFACTORY_PYTHON=...)
# make bench-api  the gateway beside LiteLLM's proxy (LITELLM_PYTHON=... if wanted)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo serve test test-long test-faults test-vllm fuzz bench-serve bench-train bench-api check clients setup setup-dev clean

demo: setup
	$(BIN)/tunesmith demo

serve: setup
	$(BIN)/tunesmith serve

# Two processes, file by file, in the order of their names: the longest (e2e) begin early. Most of the time goes into starts of
# engines and workers, which use one core each.
test: setup-dev clients
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-long: setup-dev
	$(BIN)/python -m pytest -m long

test-faults: setup-dev
	$(BIN)/python -m pytest -m faults -s tests/train/test_faults.py

bench-serve: setup-dev
	$(BIN)/python -m bench.serve $(ARGS)

bench-train: setup-dev
	$(BIN)/python -m bench.train --data $(DATA) $(ARGS)

bench-api: setup-dev
	$(BIN)/python -m bench.api $(ARGS)

# Valid and hostile input for every operation of the API, thirty times as much as `make test` sends (an hour).
fuzz: setup-dev
	FUZZ_EXAMPLES=100 $(BIN)/python -m pytest --timeout 3600 tests/api/test_hostile_input.py

# The driver of vLLM against the real thing, in the environment of TUNESMITH_VLLM_PYTHON or of `tunesmith engines install vllm`.
test-vllm: setup-dev
	$(BIN)/python -m pytest -m vllm tests/serving

check: setup-dev
	$(BIN)/ruff check src tests scripts examples bench
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs tests/test_house.py

# An older Python client, and Node's where there is Node. Without them their tests are skipped, and say so.
OPENAI_2 := $(VENV)/clients/openai-2.54
NODE_CLIENT := $(VENV)/clients/node
clients: $(OPENAI_2)/.installed $(NODE_CLIENT)/.installed

$(OPENAI_2)/.installed: | $(VENV)/.installed
	@$(BIN)/pip install --quiet --target $(OPENAI_2) openai==2.54.0
	@touch $@

$(NODE_CLIENT)/.installed:
	@mkdir -p $(NODE_CLIENT)
	@if command -v npm >/dev/null; then npm install --silent --no-package-lock --no-audit --no-fund --prefix $(NODE_CLIENT) openai@6.49.0; fi
	@touch $@

setup: $(VENV)/.installed
setup-dev: $(VENV)/.installed-dev

# The stamp comes last, so an install that was interrupted is simply run again.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV) (a few minutes the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .tunesmith build dist src/*.egg-info
