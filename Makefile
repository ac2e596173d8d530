# `make` lists the targets. Each does the set-up that it needs: a virtual environment in .venv with the packages of
# constraints.txt, and a release build of the Rust extension. What is up to date is not done again.

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := $(VENV)/packages.stamp
EXTENSION := $(VENV)/extension.stamp
RUST := $(shell find rust/pmu/src rust/judge/src rust/bindings/src -name '*.rs') \
	$(wildcard rust/pmu/Cargo.toml rust/judge/Cargo.toml rust/bindings/Cargo.toml) Cargo.toml Cargo.lock pyproject.toml
CARGO := cargo --locked
FUZZ_SECONDS ?= 60
RUNS ?= 10000
SEEDS ?= 20

export CARGO_TARGET_DIR := $(CURDIR)/target
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-python test-rust lint format fit stress bench fuzz random-runs check-long mutants proto readme wheel clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(PACKAGES): constraints.txt
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "pmulab needs Python 3.11 or later: put one on PATH, or make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) has no venv: install it (Debian: apt install python3-venv)" >&2; exit 1; }
	@command -v cargo >/dev/null || { echo "pmulab needs a Rust toolchain, 1.88 or later: no cargo on PATH" >&2; exit 1; }
	@cargo --version | awk '{ split($$2, version, "."); exit !(version[1] > 1 || version[2] >= 88) }' || \
		{ echo "pmulab needs Rust 1.88 or later, not $$(cargo --version)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement constraints.txt
	@touch $@

.PHONY: no-extension
$(EXTENSION): $(PACKAGES) $(RUST) $(if $(wildcard services/_pmu*.so),,no-extension)
	VIRTUAL_ENV=$(CURDIR)/$(VENV) PIP_CONSTRAINT=$(CURDIR)/constraints.txt PIP_QUIET=1 $(BIN)/maturin develop --quiet --release --locked
	@touch $@

setup: $(EXTENSION) ## the virtual environment and the extension, and nothing more

demo: $(EXTENSION) ## the published gzip experiment: emulated and partitioned vPMU side by side
	$(BIN)/pmulab run gzip-record

test: test-rust test-python ## all tests, Python and Rust

test-python: $(EXTENSION) ## the Python tests, on all cores
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

test-rust: $(PACKAGES) ## the Rust tests
	$(CARGO) test --workspace --quiet

lint: $(EXTENSION) ## ruff, mypy, rustfmt and clippy, and whether the generated code is in step with proto/
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest services._pmu
	$(BIN)/python -m pytest -q tests/wire
	cargo fmt --all --check
	$(CARGO) clippy --workspace --all-targets --quiet -- -D warnings

format: $(PACKAGES) ## put the source into its format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	cargo fmt --all

fit: $(EXTENSION) ## fit three numbers to one published benchmark, and print what they predict of two others, over HZ, counters and costs (about half an hour of CPU time)
	$(BIN)/python -m pmulab.fit gzip-record --grid

stress: $(EXTENSION) ## shares of host kernel and guest time while a guest records at 4000 Hz, over HZ and counters (about 2 minutes)
	$(BIN)/python -m pmulab.curve stress-record host.hz+guest.hz=250,1000 guest.counters=6,8,10 --set guest.task.seconds=0.25 \
		--show host-kernel,host-kernel-cputime,guest,guest-cputime

bench: $(EXTENSION) ## how fast the simulation is, and the core beside a floor; with BASE=REV beside that commit, in turn (about 3 minutes)
	$(BIN)/python -m benchmarks.speed $(if $(BASE),--base $(BASE))
	$(if $(BASE),,$(BIN)/python -m benchmarks.state_speed)
	$(if $(BASE),,$(BIN)/python -m benchmarks.core_speed)
	$(if $(BASE),,$(BIN)/python -m benchmarks.judge_speed)
	$(if $(BASE),,$(BIN)/python -m benchmarks.check_speed)

fuzz: $(EXTENSION) ## the property tests with many more cases than `make test` has, and the core against its reference
	$(BIN)/python -m pytest -q --hypothesis-profile=long -m hypothesis
	PROPTEST_CASES=20000 $(CARGO) test --workspace --quiet
	rust/fuzz/run.sh $(FUZZ_SECONDS)

random-runs: $(EXTENSION) ## RUNS random worlds of each reference design, judged: what was found, and what could have been (10,000: some 5 to 30 minutes)
	$(BIN)/python -m tests.kvm.random_runs --runs $(RUNS)

check-long: $(EXTENSION) ## pmulab check of the reference designs, long (hours; what is done is kept in docs/check-long.jsonl and not done again), with SECONDS as much as that allows
	$(BIN)/python -m docs.check_long $(if $(SECONDS),--seconds $(SECONDS))

mutants: $(EXTENSION) ## what the search kills of the mutants of partitioned, with SEEDS orders of the decks (20: some hours of CPU time; it goes on where it was left)
	$(BIN)/python -m tests.mutation --seeds $(SEEDS) --alone --matrix --page --jobs $$(nproc)

proto: $(PACKAGES) ## generate the messages in services/wire from proto/
	$(BIN)/python proto/generate.py

readme: $(EXTENSION) ## paste what `make demo` and `make test` print into README.md, and write docs/traffic.md and the tables of docs/invariants.md
	$(BIN)/python docs/readme.py
	$(BIN)/python -m docs.traffic
	$(BIN)/python -m docs.invariants

wheel: $(EXTENSION) ## a wheel for this platform, in dist/
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin build --quiet --release --locked --out dist

clean: ## remove what was built, keep the virtual environment's packages
	rm -rf target dist .pytest_cache .mypy_cache .ruff_cache .hypothesis $(EXTENSION) services/_pmu*.so
	find pmulab services tests proto benchmarks -name __pycache__ -prune -exec rm -rf {} +

distclean: clean ## remove all that is not in the repository
	rm -rf $(VENV)
