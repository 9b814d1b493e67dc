# Two commands do all the set-up on a fresh machine: make run, make test.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := hf,http,gates,mirror,report,trl,docs,dev
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile
PLUG_INS := backends evolve gates learn playground rewards serving trainers test_models.py test_paper_recipes.py test_served.py
CORE := src/eva/*.py,src/eva/formulas/*.py,src/eva/costs/*.py

.PHONY: run test check docs bench clean

run: .venv/ready
	$(BIN)/eva playground demo runs/demo

# The core is measured; measuring torch line by line would take three times as long.
test: .venv/ready
	$(TEST) --cov --cov-report= tests $(addprefix --ignore=tests/,$(PLUG_INS))
	$(BIN)/coverage report --include='$(CORE)' --fail-under=100 --skip-covered --show-missing
	$(TEST) $(addprefix tests/,$(PLUG_INS))

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
	rm -rf .venv build dist site runs .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis

# torch comes first and by pip, pinned by constraints.txt: a CPU build, instead of gigabytes of CUDA.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@
