# Two commands are all a newcomer needs: `make run` and `make test`. `make help` lists the others.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
# uv is needed only to write uv.lock.
UV     := 0.13.9
# Most tests wait for a process, so there are more workers than CPUs.
PYTEST_WORKERS ?= --numprocesses 8 --dist worksteal
OLDER_COMMIT := 6e2a4d4
OLDER := $(CURDIR)/target/older-$(OLDER_COMMIT)
# OpenSSL's headers: those of the system, or of OPENSSL_DIR. Without them OpenSSL is built too, which takes minutes.
OPENSSL := $(or $(OPENSSL_DIR),$(wildcard /usr/include/openssl/ssl.h),$(shell pkg-config --silence-errors --cflags-only-I --libs openssl))
BUNDLED := $(if $(OPENSSL),,yes)
# For the wheel: the same library, but its archive.
OPENSSL_LIBS := $(shell pkg-config --silence-errors --variable=libdir openssl)
STATIC_OPENSSL := $(if $(wildcard $(OPENSSL_LIBS)/libssl.a),OPENSSL_STATIC=1 OPENSSL_LIB_DIR=$(OPENSSL_LIBS) \
	OPENSSL_INCLUDE_DIR=$(shell pkg-config --silence-errors --variable=includedir openssl))
FEATURES := $(if $(BUNDLED),--features postillion-tls/vendored)
export MATURIN_PEP517_ARGS := $(if $(BUNDLED),--features vendored-openssl)
QUEUE_BENCHES := decisions journal restart listing drain injection disk
SOURCES := $(shell find rust python -name '*.rs' -o -name '*.toml' -o -name '*.py' -o -name '*.pyi' -o -name '*.cf') Cargo.toml Cargo.lock pyproject.toml

.PHONY: help run test build lint words docs rust-test python-test tests-under-load differential proofs older examples fuzz wheel \
	deny instructions bench bench-queue profile simulation lock clean

## This list.
help:
	@awk -f .ci/help.awk $(MAKEFILE_LIST)

## A complete server in ./var: SMTP on 127.0.0.1:2525, a first message, its log lines; then it serves until Ctrl-C.
## ONCE=1 stops after the first message; the exit status says whether it arrived.
run: build
	$(BIN)/python -m postillion.commands.firstrun var $(if $(ONCE),--once)

## Every gate and every test. Tests whose peers are not installed are skipped with a reason; PEERS=required forbids that.
test: build lint rust-test python-test

## The extension, release profile, and an editable install in .venv.
build: $(STAMP)

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.tools: $(BIN)/python uv.lock pyproject.toml .ci/requirements.py
	$(BIN)/python .ci/requirements.py dev > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --requirement $(VENV)/requirements.txt
	$(if $(wildcard /usr/include/ldap.h),$(BIN)/python .ci/requirements.py ldap > $(VENV)/ldap.txt && \
		$(BIN)/python -m pip install --quiet --requirement $(VENV)/ldap.txt)
	touch $@

$(STAMP): $(VENV)/.tools $(SOURCES)
	$(if $(BUNDLED),@echo "OpenSSL's headers are missing (Debian package libssl-dev): OpenSSL is built too")
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $@

## Formatters, linters, type checkers and House English; nothing is changed.
lint: build words
	cargo fmt --check
	cargo fmt --check --manifest-path rust/fuzz/Cargo.toml
	cargo clippy --quiet --locked --workspace --all-targets $(FEATURES) -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest postillion._core

## House English: the words to replace in comments, docs, texts and names. FILES="a b": these alone; WORD=NAME: this
## word alone; COUNT=1: the number in each file.
words:
	$(PYTHON) tests/words.py $(if $(COUNT),--count) $(if $(WORD),--only "$(WORD)") $(FILES)

## Rust's tests, with cargo-nextest where it is installed. CI requires it.
rust-test:
	if [ -n "$(CI)" ] || cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --locked --workspace $(FEATURES); else cargo test --locked --workspace $(FEATURES); fi

## Python's tests, on eight workers. PYTEST_ARGS="tests/test_smtpd.py -k bdat": these alone. COVERAGE=1 prints what they run.
python-test: build examples
	POSTILLION_PEERS=$(PEERS) $(BIN)/python -m pytest $(PYTEST_WORKERS) \
		$(if $(COVERAGE),--cov --cov-report=term:skip-covered) $(PYTEST_ARGS)

## Drawn configurations, asked of Debian's Postfix and of Postillion. CASES=2000: that many of each kind, the default.
differential: build
	POSTILLION_CASES=$(or $(CASES),2000) POSTILLION_PEERS=required $(BIN)/python -m pytest $(PYTEST_WORKERS) \
		$(PYTEST_ARGS) tests/test_differential_*.py

## The crash proofs in their long form, hours: FAULTS (500) kills of programs and in calls, power cuts, reloads under load,
## 1,000 damaged journals, every error of the disk; and an upgrade under load from the release with queue version 1.
proofs: build examples older
	POSTILLION_FAULTS=$(or $(FAULTS),500) POSTILLION_PEERS=required $(BIN)/python -m pytest $(PYTEST_ARGS) \
		tests/test_kill.py tests/test_kill_calls.py tests/test_kill_calls_site.py tests/test_cut.py tests/test_reload_load.py
	POSTILLION_OLDER=$(OLDER)/$(BIN)/python POSTILLION_PEERS=required $(BIN)/python -m pytest $(PYTEST_ARGS) \
		tests/test_upgrade.py
	cargo test --quiet --locked --package postillion-core --release --test damaged_journals -- --ignored
	POSTILLION_FAULTS=all cargo test --quiet --locked --package postillion-core --release error_matrix

# The last release whose queue has version 1, built once: a copy of the commit, with an environment of its own.
older: $(OLDER)/.built

$(OLDER)/.built:
	rm -rf $(OLDER)
	mkdir -p $(OLDER)
	git archive $(OLDER_COMMIT) | tar -x -C $(OLDER)
	CARGO_TARGET_DIR=$(CURDIR)/target/older-build $(MAKE) -C $(OLDER) build
	touch $@

# The Rust programs that Python's tests run: cargo would build them in the middle of a test.
examples:
	cargo build --quiet --locked --package postillion-core --package postillion-maps --examples
	cargo build --quiet --locked --package postillion-core --release --example instructions

## Rust's and Python's tests RUNS times (10) while stress-ng keeps every CPU busy (Debian's stress-ng package).
tests-under-load: build examples
	stress-ng --quiet --cpu 0 & load=$$!; trap "kill $$load" EXIT; \
	for run in $$(seq $(or $(RUNS),10)); do \
		echo "run $$run under load" && $(MAKE) --no-print-directory rust-test python-test || exit 1; done

## Every fuzz target for its share of SECONDS, the build not counted. An input that fails is kept and its path printed.
## TARGETS="cleanup data": these alone.
fuzz:
	cargo clippy --quiet --locked --manifest-path rust/fuzz/Cargo.toml --target-dir target/fuzz -- -D warnings
	$(PYTHON) rust/fuzz/run.py --seconds $(or $(SECONDS),120) $(TARGETS)

## A wheel in dist/, with OpenSSL inside.
wheel: $(VENV)/.tools
	$(STATIC_OPENSSL) $(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

## Licences, duplicates and sources of the Rust dependencies, by deny.toml (needs cargo-deny). ADVISORIES=1 also asks the
## advisory database, over the network.
deny:
	for manifest in Cargo.toml rust/fuzz/Cargo.toml; do \
		cargo deny --locked --manifest-path $$manifest check -A unmatched-skip -A license-exception-not-encountered \
			bans licenses sources $(if $(ADVISORIES),advisories) || exit 1; done

## Instructions a message in each core, against benches/instructions.json (needs valgrind). RECORD=1 writes that anew.
instructions:
	$(PYTHON) benches/instructions.py $(if $(RECORD),--record)

## The network side, Postfix and Postillion in turn (needs Debian's postfix package and root): relaying, TLS, latency, lookups,
## into docs/measured.md. QUICK=1: the short forms, which write nothing.
bench: build
	$(BIN)/python benches/measured.py $(if $(QUICK),--quick) relay relay_tables relay_tls domains idle_tls latency tables resolver

## All benches of the queue; the tables of docs/measured.md. QUICK=1: the short forms, which write nothing.
## Needs root, Debian's postfix and strace packages, 6 GB under /var/tmp, and half an hour of a quiet machine.
bench-queue: build
	$(BIN)/python benches/measured.py $(if $(QUICK),--quick) $(or $(BENCHES),$(QUEUE_BENCHES))

## Where the CPU time goes, with perf (Debian's linux-perf and postfix packages, root). NAME=after writes the tables of that
## name into docs/profile.md; without it they are only printed.
profile: build
	$(BIN)/python benches/cpu.py --load new $(if $(NAME),--write $(NAME))
	$(BIN)/python benches/cpu.py --load reused $(if $(NAME),--write $(NAME)-reused)

# Not with --quiet: then mkdocs counts no warnings, and --strict passes them.

## The documentation site, in site/; a warning is an error. PLOTS=1: with the plots of the simulation.
docs: $(VENV)/.docs
	$(if $(PLOTS),$(MAKE) simulation)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.docs: $(BIN)/python uv.lock pyproject.toml .ci/requirements.py
	$(BIN)/python .ci/requirements.py docs > $(VENV)/docs.txt
	$(BIN)/python -m pip install --quiet --requirement $(VENV)/docs.txt
	touch $@

## The tables and plots of docs/simulation.md: a million messages on a virtual clock.
simulation: build
	$(BIN)/python benches/simulate.py

## Write uv.lock anew from pyproject.toml (asks PyPI). UPGRADE=1 takes the newest versions that pyproject.toml allows.
lock: $(BIN)/python
	$(BIN)/python -m pip install --quiet uv==$(UV)
	$(BIN)/uv lock $(if $(UPGRADE),--upgrade)

## Remove everything that was built.
clean:
	rm -rf target dist site $(VENV) var
