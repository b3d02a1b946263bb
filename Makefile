# Everything a machine needs, installed, built and run from here. `make help` lists the targets.
SHELL := /bin/sh
CARGO ?= cargo
TARGET = $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),$(CURDIR)/target)
BIN = $(TARGET)/debug

.PHONY: help setup build models sample demo test fuzz soak bench check deny dist clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install the Debian packages that building, testing and the demo need (root or sudo)
	@packaging/setup.sh

build: setup ## build the four programs
	$(CARGO) build --locked --bins

models: build ## fetch the pinned models and convert Whisper
	@firmware-models/fetch.sh $(BIN)/salama

sample: setup ## make the synthetic sample call
	@packaging/sample/make.sh $(TARGET)/sample

demo: models sample ## one call in, one redacted transcript out, on a software TPM, fully confined
	@packaging/demo.sh $(BIN) $(TARGET)/sample

test: models sample check deny ## every test, against real parts
	SALAMA_SAMPLE=$(TARGET)/sample $(CARGO) test --locked

bench: models ## compare with named peers and write docs/PERFORMANCE.md; ROW=vad runs one row (quiet machine, 15 minutes)
	@benches/setup.sh $(TARGET)/bench
	$(CARGO) build --locked --bins --bench speech --bench core
	@python3 benches/bench.py --bin $(BIN) --work $(TARGET)/bench $(if $(ROW),$(ROW),--write docs/PERFORMANCE.md)

fuzz: setup ## one fuzz target for longer: TARGET=wav SECONDS=600
	@fuzz/run.sh "$(if $(filter command,$(origin TARGET)),$(TARGET))" "$(or $(SECONDS),600)"

soak: models ## a long run, at most 15 minutes: 200 calls while uploads, children and the daemon are cut off, then an account of what is left
	$(CARGO) test --locked --test faults -- soak

check: setup ## formatting and lints
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- --deny warnings

deny: setup ## licences, sources, duplicates and bans of the dependencies
	@packaging/deny.sh $(TARGET)/tools

dist: setup ## what packages ship
	$(CARGO) build --locked --bins --profile dist

clean: ## remove what was built
	$(CARGO) clean
