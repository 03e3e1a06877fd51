PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0
SEED ?= 0
RUN ?= runs/quickstart$(if $(filter-out 0,$(SEED)),-$(SEED))

DATA ?= ../shared/data
SVAMP ?= $(DATA)/problems/svamp.jsonl
TRACES ?= $(DATA)/traces/gsm8k_test__deepseek-r1.jsonl

.PHONY: quickstart study test bench-teachers bench-trainer bench-eval bench-hub clean

# The whole pipeline on the embedded default; report in runs/quickstart/report.html, of SEED=1 in runs/quickstart-1.
# STUDENT=released trains nothing: it measures the student that comes with the package; its page is released.html there.
quickstart: $(VENV)/installed
	$(BIN)/drp quickstart --seed $(SEED) --output_dir $(RUN) $(if $(STUDENT),--student $(STUDENT))

# Every arm of the study that has no result in recipes/study/results yet; ARMS="5_drp 2_right" SEEDS="0 1" for some.
study: $(VENV)/installed
	$(BIN)/python -m recipes.study $(if $(ARMS),--arms $(ARMS)) $(if $(SEEDS),--seeds $(SEEDS)) \
		$(if $(wildcard $(SVAMP)),--svamp $(SVAMP))

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow and not vllm" -n auto --maxprocesses 8 --dist loadfile

# What the language-model teachers cost and survive; TRACES is a JSON Lines file of real traces. About 20 minutes.
bench-teachers: $(VENV)/installed
	$(BIN)/python benchmarks/teachers_tokens.py $(TRACES)
	$(BIN)/python benchmarks/teachers_throughput.py
	$(BIN)/python benchmarks/teachers_faults.py
	$(BIN)/python benchmarks/teachers_memory.py
	$(BIN)/python -c "import vllm" 2>/dev/null || .ci/setup_vllm $(VENV)
	$(BIN)/python benchmarks/teachers_vllm.py $(TRACES)

# What DRPTrainer costs over SFTTrainer, and what it guarantees.
bench-trainer: $(VENV)/installed
	$(BIN)/python benchmarks/trainer.py
	$(BIN)/python benchmarks/label_head.py
	$(BIN)/python benchmarks/trainer_invariance.py
	$(BIN)/python benchmarks/trainer_resume.py

# Whether evaluation can be trusted: answers checked, speed, memory, engines; DATA is a folder with traces/*.jsonl.
bench-eval: $(VENV)/installed
	$(BIN)/python benchmarks/eval_grading.py $(DATA)/traces
	$(BIN)/python benchmarks/eval_hostile.py
	$(BIN)/python benchmarks/eval_speed.py
	$(BIN)/python benchmarks/eval_memory.py
	$(BIN)/python -c "import vllm" 2>/dev/null || .ci/setup_vllm $(VENV)
	$(BIN)/python benchmarks/eval_engines.py
	$(BIN)/python benchmarks/eval_overhead.py

# How much memory publishing a corpus of a million rows takes. About 20 minutes.
bench-hub: $(VENV)/installed
	$(BIN)/python benchmarks/push_memory.py

# torch comes first, so that no other package chooses its build; an installed one (2.6 or newer) is kept.
$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info
