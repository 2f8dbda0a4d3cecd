# `make demo` and `make test` are all a newcomer needs; the rest is what they are made of.
# Build caches live outside the checkout, so that a fresh clone builds quickly the second time.
SHELL := /bin/bash
export CARGO_TARGET_DIR ?= $(HOME)/.cache/medledger-target
BIN := $(CARGO_TARGET_DIR)/release
# Where what draws dashboards is installed.
BOARDS := $(HOME)/.cache/medledger/boards

.PHONY: images help demo demo-short down test build programs contracts prepare lint deny bench boards simulate chaos chaos-short chaos-hour clean

help: ## what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## four organisations over a real Kafka, with processes killed under them; stays up
	$(BIN)/medledger demo

demo-short: build ## the same with short loads, then stopped: what CI runs
	$(BIN)/medledger demo --short --down

down: ## stops the network that `make demo` left up
	@test -x $(BIN)/medledger || { echo '$(BIN)/medledger is not built, so nothing can be stopped; `make programs` builds it' >&2; exit 1; }
	$(BIN)/medledger network down

# Always the whole workspace: a part of it would be built with other features, and everything twice.
test: build ## unit, property, simulation, and network tests on real Kafka
	cargo test --release --workspace

build: programs contracts ## all programs and contracts

programs: prepare
	cargo build --release --workspace --bins

contracts: prepare
	chaincode/build.sh

prepare: ## installs what is missing: packages, toolchain, wasm target
	@tools/prepare

lint: prepare ## formatting and clippy, warnings denied
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- -D warnings

deny: ## licences, sources and bans of the dependencies
	@command -v cargo-deny >/dev/null || { echo 'installing cargo-deny (some minutes, once)'; cargo install --locked --quiet cargo-deny; }
	cargo deny check bans licenses sources

bench: build ## the load table, beside the reference system's
	$(BIN)/medledger bench

boards: ## draws the dashboards from a Prometheus that scrapes a network (PROMETHEUS=http://127.0.0.1:9090)
	@test -x $(BOARDS)/bin/python || { python3 -m venv $(BOARDS) && $(BOARDS)/bin/pip install --quiet 'matplotlib>=3.8,<4'; }
	$(BOARDS)/bin/python grafana/draw.py --prometheus $${PROMETHEUS:-http://127.0.0.1:9090}

simulate: build ## the seeded simulation, SEEDS=500 of them
	SEEDS=$${SEEDS:-500} cargo test --release --workspace --test simulation -- --nocapture

# Any cluster that kubectl reaches: KUBECONFIG, NAMESPACE, RELEASE; docs/chaos.md tells the rest.
chaos: programs ## every fault of docs/chaos.md on a cluster with a release, under load; EXPERIMENTS="pod-peer drain" for some
	$(BIN)/medledger chaos run $(EXPERIMENTS) $(if $(WRITE),--write $(WRITE)) --report target/chaos/cluster.json

chaos-short: programs ## the same with one pod of each kind
	$(BIN)/medledger chaos run --short --report target/chaos/cluster.json

chaos-hour: build ## loops of kill -9 over every process under load for CHAOS_SECONDS (an hour), then the full check
	MEDLEDGER_CHAOS_SECONDS=$${CHAOS_SECONDS:-3600} MEDLEDGER_CHAOS_SEED=$${SEED:-1} \
		cargo test --release --workspace --test network_chaos -- --nocapture

images: build ## images of all roles as OCI archives in ~/.cache/medledger-images, without Docker
	images/build

clean: ## stops and removes networks, removes reports, keeps the build cache
	@for network in $(wildcard target/*/network.json); do \
		$(BIN)/medledger network down --network $$(dirname $$network) || { echo 'nothing was removed' >&2; exit 1; }; done
	rm -rf target
