# Two commands for a fresh machine: `make demo` shows the product at work, `make test` passes the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check format bench sim plant kills faults fuzz clean help

help:
	@echo 'make demo    set everything up; a broker with real lines, killed with -9 and restarted'
	@echo 'make test    set everything up; checks and tests'
	@echo 'make check   format, lint, types, layers'
	@echo 'make bench   speed of this machine (some minutes)'
	@echo 'make sim     300 seeds of the simulator (SEEDS=a..b: those, into the ledger; SEED=n: one again, shrunk if it fails)'
	@echo 'make plant   bugs planted into the code, each found by the simulator (most of an hour; NAME=part of a name)'
	@echo 'make kills   a broker killed 300 times under load, every promise checked (some minutes; KILLS=n SEED=n)'
	@echo 'make faults  power cuts, failing system calls, full disks, cut networks, broken clusters: real ones (root; SEED=n ONLY=cluster)'
	@echo 'make fuzz    every decoder against damaged input (EXECUTIONS=n SEED=n)'
	@echo 'make clean   remove what the others made'

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'zmqmq needs Python 3.11 or newer; $(PYTHON) is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	@touch $@

demo: $(READY)
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: check
	$(BIN)/python -m pytest
	$(SIM)

check: $(READY)
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(READY)
	$(BIN)/ruff format --quiet .
	$(BIN)/ruff check --quiet --fix .

bench: $(READY)
	$(BIN)/python benchmarks/run.py

SIM := $(BIN)/python -m zmqmq.testing.sim
sim: $(READY)
	$(SIM) $(if $(SEED),$(SEED) --trace,$(if $(SEEDS),$(SEEDS) --ledger tests/sim/ledger.jsonl))

plant: $(READY)
	$(BIN)/python tests/sim/plant.py $(if $(NAME),'$(NAME)')

KILLS ?= 300
kills: $(READY)
	$(BIN)/python tests/kill/run.py --kills $(KILLS) $(if $(SEED),--seed $(SEED))

faults: $(READY)
	$(BIN)/python tests/faults/faults_run.py $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only '$(ONLY)')

EXECUTIONS ?= 10000000
fuzz: $(READY)
	$(BIN)/python tests/fuzz/fuzz_run.py --executions $(EXECUTIONS) $(if $(SEED),--seed $(SEED))

clean:
	rm -rf $(VENV) .demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
