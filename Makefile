.PHONY: demo test lint types docs clean
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Set up once; again whenever the list of dependencies changes.
$(VENV)/.ready: pyproject.toml constraints.txt scripts/install.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python scripts/install.py
	touch $@

demo: $(VENV)/.ready
	$(BIN)/braid compare sft grpo chord --task arithmetic --seeds 3 --budget steps=80 --output runs/demo --eval-every 20

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.ready
	$(BIN)/python scripts/make_docs.py --check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.ready
	$(BIN)/mypy

# The generated pages, then the whole book as a site in site/.
docs: $(VENV)/.ready
	$(BIN)/python scripts/make_docs.py
	$(BIN)/python -c "import mkdocs" 2>/dev/null || $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:
	rm -rf runs/demo site
