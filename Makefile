PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
SEED ?= 0
RUN ?= runs/quickstart$(if $(filter-out 0,$(SEED)),-$(SEED))

.PHONY: quickstart test clean

# The whole pipeline on the embedded default; report in runs/quickstart/report.html, of SEED=1 in runs/quickstart-1.
quickstart: $(VENV)/installed
	$(BIN)/drp quickstart --seed $(SEED) --output_dir $(RUN)

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m "not slow and not vllm"

# torch comes first, so that no other package chooses its build; an installed one (2.6 or newer) is kept.
$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
