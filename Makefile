# Every target works as the first command after a clone: it makes .venv if there is none.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
JOBS ?= 3
SECONDS ?= 600
MINUTES ?= 10

.PHONY: help install run test check format bench conformance soak chaos sessions loris scale fuzz replacements failover clean
.DEFAULT_GOAL := help

help:  ## show what can be made
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev]'
	touch $(STAMP)

install: $(STAMP)  ## make .venv and install Aegis with all it needs

run: $(STAMP)  ## chronos, aegis and the exporter in the foreground (Ctrl-C ends all three)
	$(BIN)/honcho start

test: $(STAMP)  ## run every test this machine has the programs for
	$(BIN)/python -m pytest -n $(JOBS) --dist loadgroup

check: $(STAMP)  ## format, lint, types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

bench: $(STAMP)  ## Aegis and its peers side by side; QUICK=1, ROWS=churn,bulk, PEERS=…, ROUNDS=5
	$(BIN)/python -m ops.bench $(if $(QUICK),--quick) --rows="$(ROWS)" --peers="$(PEERS)" \
		$(if $(ROUNDS),--rounds=$(ROUNDS))

conformance: $(STAMP)  ## redis', redis-py's and pymemcache's own tests, direct and through Aegis (needs tcl)
	$(BIN)/python -m ops.conformance

soak: $(STAMP)  ## hot pipes under faults, every reply checked: SECONDS=600 SEED=1
	$(BIN)/python -m tests.faults.soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

chaos: $(STAMP)  ## one whole proxy under load while everything is harmed: MINUTES=5 SEED=1
	$(BIN)/python -m tests.faults.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

sessions: $(STAMP)  ## a million short sessions through one worker: memory and fds stay flat
	$(BIN)/python -m ops.bench.short_sessions

loris: $(STAMP)  ## 8,000 clients that never finish a request: the p99 of the others, alone and beside
	$(BIN)/python -m ops.bench.slow_loris

scale: $(STAMP)  ## what a request costs with 1, 2 and 8 workers, and how soon Aegis serves
	$(BIN)/python -m ops.bench.scale

fuzz: $(STAMP)  ## MINUTES=10 of any bytes for each parser in turn; build/fuzz keeps what it finds
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo,dev,fuzz]'
	$(BIN)/python -m tests.fuzz.run $(MINUTES)

failover: $(STAMP)  ## what clients notice when servers die, hang, come and go, beside HAProxy and Envoy
	$(BIN)/python -m ops.bench.failover $(if $(ROUNDS),--rounds $(ROUNDS))

replacements: $(STAMP)  ## reloads, upgrades, kills and scalings under load, HAProxy's reload beside
	$(BIN)/python -m ops.bench.replacements

format: $(STAMP)  ## rewrite the sources as ruff formats them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove .venv and everything built
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache data
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
