# `make help` lists what there is. Everything a target needs is set up by the target itself.

SHELL := /bin/bash
TARGET := $(or $(CARGO_TARGET_DIR),target)
# The UI compiles in the answer types of query/api.
UI_SOURCES := $(shell find ui query/api -type d \( -name target -o -name dist -o -name dist.tmp \) -prune -o -type f -print 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help demo run test torture test-setup lint bench ui clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: release ## Start the server and the demo shop with its load; Ctrl-C ends everything
	@echo "Trefoil's UI: http://127.0.0.1:4319 (Ctrl-C ends the server, the shop and the load)"
	@exec $(TARGET)/release/trefoil demo

run: release ## Start the server alone, data in ./trefoil-data
	@echo "Trefoil's UI: http://127.0.0.1:4319"
	@exec $(TARGET)/release/trefoil serve

.PHONY: release
release: ui ## Build the release binaries, UI embedded
	cargo build --release --locked -p trefoil -p trefoil-examples --bins

ui: ui/dist/index.html ## Build the UI into ui/dist

# The macro that embeds ui/dist sees changed files, but not new ones: hence the touch.
ui/dist/index.html: $(UI_SOURCES)
	@scripts/setup ui
	cargo run --locked --manifest-path ui/Cargo.toml -p xtask -- build
	@touch $@ src/assets.rs

test: test-setup ui ## Run every test: unit, integration, real SDK clients, browser; prints the counts
	@scripts/test

torture: test-setup release ## The reliability tests at the sizes of a release (hours); see docs/reliability.md
	@scripts/torture

test-setup: ## Install what the tests need: Chromium, Prometheus, Python and npm packages
	@scripts/setup tests

lint: ## Formatting and clippy, warnings are errors
	cargo fmt --all -- --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

# Five minutes on two cores once it is built; BENCH="--scale 0.1" is a quick look. Building trefoil-bench beside the rest,
# and not alone, keeps the features and so the build of everything else as they are.
BENCH ?= --runs 3
bench: ui ## Measure ingest, sizes, restarts and checked queries (see docs/performance.md)
	cargo build --release --locked -p trefoil -p trefoil-examples -p trefoil-bench --bins
	$(TARGET)/release/trefoil-bench --dir $(TARGET)/bench $(BENCH)

clean: ## Remove what was built (not the data in ./trefoil-data)
	rm -rf ui/dist ui/target target tests/*/node_modules tests/clients/js/node_modules
	@if [ -n "$(CARGO_TARGET_DIR)" ]; then cargo clean; fi
