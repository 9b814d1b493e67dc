# Two commands do all the set-up on a fresh machine: make run, make test.
PYTHON ?= python3
BIN := .venv/bin
EXTRAS := hf,report,docs,dev

.PHONY: run test check docs bench clean

run: .venv/ready
	$(BIN)/eva playground demo runs/demo

test: .venv/ready
	$(BIN)/python -m pytest -n auto --dist loadfile --cov --cov-report= tests
	$(BIN)/coverage report --include='$(CORE)' --fail-under=100 --skip-covered
	$(BIN)/coverage report --skip-covered --skip-empty | tail -n 1

check: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/ready
	$(BIN)/mkdocs build --strict

bench: .venv/ready
	$(BIN)/python bench/sampler.py
	$(BIN)/python bench/pool.py

clean:
	rm -rf .venv build dist site runs .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The core: everything that needs neither torch nor a terminal.
CORE := src/eva/*.py,src/eva/formulas/*.py

# torch comes first and by pip, pinned by constraints.txt: a CPU build, instead of gigabytes of CUDA.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	touch $@
