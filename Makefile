# Berth. `make run` builds everything and opens a repository in a workspace; `make test` runs every test; `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
BERTH_HOME ?= $(if $(filter 0,$(shell id -u)),/var/lib/berth,$(HOME)/.local/share/berth)
REPO ?=
# Where `make run` serves Berth's own repository when REPO is not given.
GIT_LISTEN ?= 127.0.0.1:7171
HOST_TARGET := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
BIN := target/release
STATIC := target/$(HOST_TARGET)/static
WASM := $(or $(CARGO_TARGET_DIR),runtime/wasm/target)/$(HOST_TARGET)/release
export BERTH_HOME

.PHONY: help
help: ## What can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 22

.PHONY: deps
deps: ## Install the Debian packages that building and running need
	@deploy/install-deps

.PHONY: test-deps
test-deps: ## Install the Debian packages that tests and measurements use besides
	@deploy/install-deps tests

.PHONY: build
build: ## Build target/release/{berth,hull,berth-init}
	@$(CARGO) build --release --locked -p berth
	@# One at a time: built together, hull would get features of crates that only berth-init asks for, and pass 2 MiB.
	@for p in hull berth-init; do RUSTFLAGS='-C target-feature=+crt-static -C relocation-model=static -C link-args=-Wl,-T,runtime/no-unwind.ld,--no-eh-frame-hdr' $(CARGO) build --profile static --locked --target $(HOST_TARGET) -p $$p; done
	@for p in hull berth-init; do cmp -s $(STATIC)/$$p $(BIN)/$$p || install -m 755 $(STATIC)/$$p $(BIN)/$$p; done

.PHONY: wasm
wasm: ## Build target/release/hull-wasm, which runs WebAssembly in hull's containers
	@cd runtime/wasm && $(CARGO) build --release --locked -p hull-wasm
	@cmp -s $(WASM)/hull-wasm $(BIN)/hull-wasm || install -m 755 $(WASM)/hull-wasm $(BIN)/hull-wasm

.PHONY: run
run: deps build ## Open a repository in a workspace: make run [REPO=https://…]
	@BERTH_BIN=$(BIN) GIT_LISTEN=$(GIT_LISTEN) deploy/run "$(REPO)"

.PHONY: stop
stop: ## Stop the server; workspaces' disks stay
	@deploy/stop $(BIN)

.PHONY: engines
engines: ## Install the container engines, the registry and the kubectl that tests run
	@deploy/install-engines
	@deploy/install-kubectl

.PHONY: test
test: test-deps engines build tools test-wasm ## Run every test
	@$(CARGO) build --locked -p hull -p berth-init
	@# nextest runs no examples of documentation.
	@$(CARGO) test --doc --locked -q -p hull
	@deploy/run-tests

.PHONY: test-wasm
test-wasm: test-deps build wasm ## Run the tests of hull-wasm, in containers
	@# Not of the release: what aborts there unwinds in tests, and all of wasmtime would be built once more for speed.
	@cd runtime/wasm && $(CARGO) test --locked -q -p hull-wasm -p hull-sys-wasm
	@cd runtime/wasm && $(CARGO) test --locked -q -p hull-wasm-containers -- --nocapture

.PHONY: tools
tools: ## Install the programs that checks and tests use
	@command -v cargo-nextest >/dev/null || { echo "installing cargo-nextest (a few minutes, once)"; $(CARGO) install --quiet --locked cargo-nextest --version 0.9.143; }

.PHONY: lint
lint: ## Format and clippy, warnings denied
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@cd runtime/wasm && $(CARGO) fmt --all --check && $(CARGO) clippy --workspace --all-targets --locked -- -D warnings

.PHONY: deny
deny: ## Licences, bans and sources of dependencies
	@command -v cargo-deny >/dev/null || { echo "installing cargo-deny (a few minutes, once)"; $(CARGO) install --quiet --locked cargo-deny --version 0.20.2; }
	@cargo deny --locked check bans licenses sources
	@cargo deny --locked --config $(CURDIR)/deny.toml --manifest-path runtime/wasm/Cargo.toml check bans licenses sources

.PHONY: generate
generate: build ## Write the generated files: OpenAPI, CRDs, RBAC, every setting, hull's public interface
	@$(BIN)/berth internal generate .
	@BERTH_UPDATE=1 $(CARGO) test --quiet --locked -p berth-api --test it the_committed_document
	@UPDATE_API=1 $(CARGO) test --quiet --locked -p hull --test it public_interface

.PHONY: drift
drift: build ## Fail when a generated file is not what the code makes
	@$(BIN)/berth internal generate --check .

.PHONY: check-api
check-api: test-deps build ## Check the API's document, and a server against it with schemathesis, which comes from PyPI
	@deploy/check-api $(BIN)

.PHONY: ci
ci: test-deps lint deny drift test ## What decides whether a change lands

.PHONY: man
man: build ## hull's man pages and shell completions, in target/share
	@rm -rf target/share && $(BIN)/hull man --output target/share && ls target/share/man/man8 | tr '\n' ' '; echo

.PHONY: conformance
conformance: ## Run the OCI conformance suite: make conformance RUNTIME=/usr/bin/crun
	@$(CARGO) run --quiet --release --locked -p hull-conformance --bin hull-conformance -- --runtime $(or $(RUNTIME),$(BIN)/hull)

.PHONY: conformance-vm
conformance-vm: build ## Run it for hull, crun and runc on cgroups of version 2, with and without systemd, in a virtual machine; writes the results
	@$(CARGO) build --quiet --release --locked -p hull-conformance --bin hull-conformance
	@runtime/conformance/vm/conformance target/release/hull-conformance runtime/conformance/results $(BIN)/hull crun runc

.PHONY: fuzz
fuzz: ## Fuzz a parser: make fuzz TARGET=spec [SECONDS=300] [FUZZ=services/scm/fuzz]
	@deploy/fuzz $(or $(FUZZ),runtime/fuzz) $(TARGET) $(or $(SECONDS),300)

.PHONY: suite-runc
suite-runc: ## Run runc's integration tests: make suite-runc RUNTIME=/usr/sbin/runc [SYSTEMD=1] [VM=1]
	@runtime/conformance/suites/runc $(or $(RUNTIME),$(BIN)/hull)

.PHONY: suite-crun
suite-crun: ## Run crun's own tests: make suite-crun RUNTIME=/usr/bin/crun
	@runtime/conformance/suites/crun $(or $(RUNTIME),$(BIN)/hull)

.PHONY: suite-runtime-tools
suite-runtime-tools: ## Run the validation of OCI's runtime-tools: make suite-runtime-tools RUNTIME=/usr/sbin/runc
	@runtime/conformance/suites/runtime-tools $(or $(RUNTIME),$(BIN)/hull)

.PHONY: suite-podman
suite-podman: ## Run Podman's system tests: make suite-podman RUNTIME=/usr/bin/crun [VM=1 [ROOTLESS=1]]
	@runtime/conformance/suites/podman $(or $(RUNTIME),$(BIN)/hull)

.PHONY: suite-critest
suite-critest: ## Run the tests of Kubernetes' runtime interface below containerd: make suite-critest RUNTIME=/usr/sbin/runc
	@runtime/conformance/suites/critest $(or $(RUNTIME),$(BIN)/hull)

.PHONY: suite-containerd
suite-containerd: ## Run the tests of containerd's client and shim: make suite-containerd RUNTIME=/usr/sbin/runc [VM=1]
	@runtime/conformance/suites/containerd $(or $(RUNTIME),$(BIN)/hull)

.PHONY: suite-docker
suite-docker: ## Compare Docker's containers with runc's: make suite-docker RUNTIME=/usr/bin/crun [USERNS=1]
	@runtime/conformance/suites/docker $(or $(RUNTIME),$(BIN)/hull) runc

.PHONY: bench
bench: build ## Measure starts, stops, the API and memory; writes docs/performance.md
	@deploy/bench

.PHONY: bench-runtime
bench-runtime: test-deps build ## Measure hull beside crun and runc; writes docs/performance.md
	@$(CARGO) run --quiet --release --locked -p hull-conformance --bin hull-bench -- --hull $(BIN)/hull $(if $(PEERS),--peers $(PEERS)) --write docs/performance.md

.PHONY: bench-wasm
bench-wasm: test-deps build wasm ## Measure WebAssembly below hull; writes docs/performance.md
	@cd runtime/wasm && $(CARGO) run --quiet --locked -p hull-wasm-containers --bin hull-wasm-bench -- --write ../../docs/performance.md

.PHONY: services
services: ## Build the services as processes of their own
	@$(CARGO) build --release --locked -p berth -p berth-api -p berth-scm -p berth-automations -p berth-billing -p berth-ws-manager -p berth-gateway -p berth-node

.PHONY: images
images: build services ## Build the images of docker-compose.yml from Debian packages and our binaries
	@deploy/images/build $(BIN)
