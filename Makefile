# Two commands are all a newcomer needs: `make run` and `make test`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
QUEUE_BENCHES := decisions journal restart listing drain injection disk
SOURCES := $(shell find rust python -name '*.rs' -o -name '*.toml' -o -name '*.py' -o -name '*.pyi' -o -name '*.cf') Cargo.toml Cargo.lock pyproject.toml

.PHONY: run test build wheel docs lint words rust-test python-test fuzz instructions bench bench-queue profile simulation clean

## A complete server in ./var: SMTP on 127.0.0.1:2525, a first message, its log lines; then it serves until Ctrl-C.
## ONCE=1 stops after the first message; the exit status says whether it arrived.
run: build
	$(BIN)/python -m postillion.commands.firstrun var $(if $(ONCE),--once)

## Every gate and every test. Tests whose peers are not installed are skipped with a reason; PEERS=required forbids that.
test: build lint rust-test python-test

build: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt pip

$(VENV)/.tools: $(BIN)/python constraints.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev
	touch $@

$(STAMP): $(VENV)/.tools $(SOURCES)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable .
	touch $@

lint: build
	cargo fmt --check
	cargo fmt --check --manifest-path rust/fuzz/Cargo.toml
	cargo clippy --quiet --locked --workspace --all-targets -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest postillion._core

## House English: words to replace in comments, docs, texts and names. FILES="a b": these alone; COUNT=1: the number in each file.
words:
	$(PYTHON) tests/words.py $(if $(COUNT),--count) $(if $(WORD),--only "$(WORD)") $(FILES)

rust-test:
	if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --locked --workspace; else cargo test --locked --workspace; fi

python-test: build
	POSTILLION_PEERS=$(PEERS) $(BIN)/python -m pytest $(PYTEST_ARGS)

## Every fuzz target for its share of SECONDS, the build not counted. An input that fails is kept and its path printed.
## TARGETS="cleanup data": these alone.
fuzz:
	cargo clippy --quiet --locked --manifest-path rust/fuzz/Cargo.toml --target-dir target/fuzz -- -D warnings
	$(PYTHON) rust/fuzz/run.py --seconds $(or $(SECONDS),120) $(TARGETS)

wheel: $(VENV)/.tools
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

## Instructions a message in each core, against benches/instructions.json (needs valgrind). RECORD=1 writes that anew.
instructions:
	$(PYTHON) benches/instructions.py $(if $(RECORD),--record)

## The network side, Postfix and Postillion in turn (needs Debian's postfix package and root): relaying and latency, into
## docs/measured.md. QUICK=1: the short forms, which write nothing.
bench: build
	$(BIN)/python benches/measured.py $(if $(QUICK),--quick) relay latency

## All benches of the queue; the tables of docs/measured.md. QUICK=1: the short forms, which write nothing.
## Needs root, Debian's postfix and strace packages, 6 GB under /var/tmp, and half an hour of a quiet machine.
bench-queue: build
	$(BIN)/python benches/measured.py $(if $(QUICK),--quick) $(or $(BENCHES),$(QUEUE_BENCHES))

## Where the CPU time goes, with perf (Debian's linux-perf and postfix packages, root). NAME=after writes the tables of that
## name into docs/profile.md; without it they are only printed.
profile: build
	$(BIN)/python benches/cpu.py --load new $(if $(NAME),--write $(NAME))
	$(BIN)/python benches/cpu.py --load reused $(if $(NAME),--write $(NAME)-reused)

## The documentation site, in site/; a warning is an error. PLOTS=1: with the plots of the simulation.
docs: $(VENV)/.docs
	$(if $(PLOTS),$(MAKE) simulation)
	$(BIN)/mkdocs build --quiet --strict

$(VENV)/.docs: $(BIN)/python constraints.txt pyproject.toml
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	touch $@

## The tables and plots of docs/simulation.md: a million messages on a virtual clock.
simulation: build
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group plots
	$(BIN)/python benches/simulate.py

clean:
	rm -rf target dist site $(VENV) var
