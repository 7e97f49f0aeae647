# Everything that a working copy can do; `make help` lists it. What takes more than a few lines is in scripts/.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
# The steps share apt's lock and cargo's; each is parallel inside.
.NOTPARALLEL:
.DEFAULT_GOAL := help

# rustup's directory, for shells that have not read its profile yet.
export PATH := $(PATH):$(HOME)/.cargo/bin

# Given on the command line or in the environment, handed to the scripts.
PORT ?= 8080
# Another port of the demo's, with TLS; empty: none.
TLS_PORT ?=
CONNECTIONS ?= 15000
ROUNDS ?= 10
MINUTES ?= 30
SECONDS ?= 60
# Which nginx the module is for: empty (the one that the build compiles), `debian`, or a directory with nginx's source.
NGINX ?=
# Which cases of the Autobahn test suite; empty: 1 to 10.
CASES ?=
# Not empty: over wss.
TLS ?=
# Which engine of the backend the tests are for: empty (parked, and the backend's own tests for both), or `tasks`.
ENGINE ?=
# The revision of the Debian packages; of which Debian the tests of the packages are (empty: 12 and 13).
REVISION ?= 1
SUITE ?=
ifneq ($(ENGINE),)
export WS_HANDOFF_TEST_ENGINE := $(ENGINE)
endif
# nginx itself would take this variable of the environment for sockets that it inherits.
unexport NGINX
export PORT TLS_PORT

# Every cargo command covers the whole workspace in the release profile: another selection of packages or another
# profile gives nginx-sys another fingerprint, and nginx would be compiled once more for it.
CARGO := cargo
CARGO_FLAGS := --release --locked --workspace

# Of the Python environment, complete.
VENV := build/venv/installed
PROMTOOL := build/promtool/promtool
PROMETHEUS := build/promtool/prometheus

.PHONY: help
help: ## List the targets
	@echo 'Usage: make TARGET [VARIABLE=VALUE]'
	@echo
	@sed -nE 's/^([a-z-]+):.*## (.*)$$/  \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 12

.PHONY: deps
deps: ## Install missing Debian packages (as root; else print the command)
	@scripts/deps.sh build test

.PHONY: build
build: ## Build nginx, the module and the backend into build/
	@scripts/deps.sh build
	@$(CARGO) build $(CARGO_FLAGS) --message-format=json-render-diagnostics | python3 scripts/stage.py build

.PHONY: examples
examples: ## Build the services of examples/ into build/examples/
	@scripts/deps.sh build
	@$(CARGO) build $(CARGO_FLAGS) --examples --message-format=json-render-diagnostics | python3 scripts/stage.py build examples

.PHONY: run
run: build $(VENV) ## Run the demo on http://127.0.0.1:8080 until Ctrl-C (PORT=9090; TLS_PORT=8443: https, too)
	@exec scripts/run.sh

.PHONY: module
module: ## Build the module for another nginx: NGINX=debian, or NGINX=DIR with its source
	@scripts/module.sh "$(or $(NGINX),$(error make module NGINX=debian, or NGINX=DIR with the source of an nginx release))"

.PHONY: test
test: ## Check format and lints, then run every test (ENGINE=tasks); with NGINX= the end-to-end tests, against that nginx
	@scripts/deps.sh build test
	@$(MAKE) --no-print-directory build examples $(VENV) $(PROMTOOL)
ifeq ($(NGINX),)
	@$(MAKE) --no-print-directory lint
	@scripts/test.sh $(CARGO_FLAGS)
else
	@scripts/module.sh "$(NGINX)" --with-nginx
	@scripts/test.sh --against "$$(scripts/module.sh "$(NGINX)" --where)" $(CARGO_FLAGS)
endif

.PHONY: test-asan
test-asan: build examples $(VENV) $(PROMTOOL) ## Run the end-to-end tests under AddressSanitizer and LeakSanitizer
	@scripts/deps.sh test
	@scripts/asan.sh $(CARGO_FLAGS)

.PHONY: test-valgrind
test-valgrind: build examples $(VENV) $(PROMTOOL) ## Run end-to-end tests under valgrind's memcheck
	@scripts/deps.sh test valgrind
	@scripts/valgrind.sh $(CARGO_FLAGS)

.PHONY: test-ktls
test-ktls: build $(VENV) ## Run the end-to-end tests of TLS, and the Autobahn test suite, with --tls kernel under a kernel that has it
	@scripts/deps.sh test autobahn
	@tests/autobahn/install.sh build/autobahn
	@scripts/ktls.sh $(CARGO_FLAGS)

.PHONY: fuzz
fuzz: ## Fuzz everything that reads bytes from outside, each target for SECONDS=60
	@scripts/deps.sh build fuzz
	@scripts/fuzz.sh $(SECONDS)

.PHONY: test-browser
test-browser: build build/venv-tests/installed ## Test the demo page in Chromium, also with TLS
	@scripts/deps.sh browser
	@build/venv-tests/bin/python -m pytest -p no:cacheprovider tests/browser

.PHONY: test-docker
test-docker: build/venv-tests/installed ## Test the compose demo (needs a Docker engine)
	@scripts/deps.sh docker browser
	@build/venv-tests/bin/python -m pytest -p no:cacheprovider tests/docker

.PHONY: test-monitoring
test-monitoring: build build/venv-tests/installed $(PROMTOOL) $(PROMETHEUS) ## Test the dashboard and the alerts with a real Prometheus
	@build/venv-tests/bin/python -m pytest -p no:cacheprovider tests/monitoring

.PHONY: test-autobahn
test-autobahn: build ## Run the Autobahn test suite through nginx and the backend (TLS=1 or TLS=kernel, CASES="12.* 13.*", ENGINE=tasks)
	@scripts/deps.sh autobahn
	@tests/autobahn/install.sh build/autobahn
	@python3 tests/autobahn/run.py --suite build/autobahn --engine "$(or $(ENGINE),parked)" $(if $(TLS),--tls=$(or $(filter kernel,$(TLS)),user)) $(foreach case,$(CASES),'$(case)')

.PHONY: test-clients
test-clients: build $(VENV) ## Test wss with clients in Go and Node (installs both)
	@scripts/deps.sh test go node
	@cd tests/clients/go && test -z "$$(gofmt -l . | tee /dev/stderr)" && export GOCACHE=$(CURDIR)/build/go/cache && go vet . && \
		go build -buildvcs=false -o ../../../build/go/client .
	@$(CARGO) test $(CARGO_FLAGS) --test tests -- --ignored tls_languages::

.PHONY: test-static
test-static: build examples $(VENV) ## Build nginx with --add-module and --add-dynamic-module, and run the end-to-end tests on both
	@scripts/deps.sh build test
	@tests/static/run.sh $(CARGO_FLAGS)

.PHONY: test-docs
test-docs: build $(VENV) ## Follow README's quick start, and test the Go example (installs Go)
	@scripts/deps.sh test go
	@tests/docs/quickstart.sh
	@cd examples/go && test -z "$$(gofmt -l . | tee /dev/stderr)" && export GOCACHE=$(CURDIR)/build/go/cache && go vet . && \
		go build -buildvcs=false -o ../../build/go/backend .
	@$(CARGO) test $(CARGO_FLAGS) --test tests -- --ignored other_languages::in_go

.PHONY: deb
deb: ## Build the Debian packages of the module and the backend into build/deb/ (REVISION=2)
	@scripts/deb.sh $(REVISION)

.PHONY: test-deb
test-deb: build/venv-tests/installed ## Build, install, use, upgrade and purge the packages in clean Debian roots (as root; SUITE=trixie)
	@tests/deb/run.sh $(SUITE)

.PHONY: test-all
test-all: ## Every test there is: also other nginx versions, a browser, Docker, clean Debian roots (as root)
	@scripts/test-all.sh $(if $(WITHIN),--within $(WITHIN))

.PHONY: lint
lint: ## Check format (rustfmt) and lints (clippy); say so where one is not installed
	@scripts/deps.sh build
	@scripts/lint.sh $(CARGO_FLAGS)

.PHONY: check
check: ## Type-check everything, tests included
	@scripts/deps.sh build
	@$(CARGO) check $(CARGO_FLAGS) --all-targets

.PHONY: fmt
fmt: ## Format the sources
	@$(CARGO) fmt --all
	@$(CARGO) fmt --manifest-path handoff-protocol/fuzz/Cargo.toml
	@$(CARGO) fmt --manifest-path handoff-websocket/fuzz/Cargo.toml
	@$(CARGO) fmt --manifest-path handoff-tls/fuzz/Cargo.toml

.PHONY: bench
bench: bench-throughput bench-fanout bench-idle bench-handshakes bench-tls bench-report ## Take every figure of docs/performance.md, and write them there

.PHONY: bench-throughput
bench-throughput: build ## Messages a second, latency and CPU time: handed over, direct, proxied (ROUNDS=10)
	@python3 bench/throughput.py --rounds $(ROUNDS)

.PHONY: bench-fanout
bench-fanout: build ## Deliveries a second in a room of 8,000 clients (ROUNDS=10)
	@python3 bench/fanout.py --rounds $(ROUNDS)

.PHONY: bench-idle
bench-idle: build ## Memory of idle connections, handed over, direct and proxied (CONNECTIONS=15000)
	@python3 bench/idle.py --connections $(CONNECTIONS)

.PHONY: bench-handshakes
bench-handshakes: build ## CPU time of opening connections, handed over and proxied (ROUNDS=10)
	@python3 bench/handshakes.py --rounds $(ROUNDS)

.PHONY: bench-tls
bench-tls: build ## The same of wss: messages, memory and handshakes, handed over and proxied (CONNECTIONS=15000 ROUNDS=10)
	@python3 bench/throughput.py --tls --rounds $(ROUNDS)
	@python3 bench/idle.py --tls --connections $(CONNECTIONS)
	@python3 bench/handshakes.py --tls --rounds $(ROUNDS)

.PHONY: bench-soak
bench-soak: build ## Clients that come, talk and go: whether memory stays where it is (MINUTES=30)
	@python3 bench/soak.py --minutes $(MINUTES)

.PHONY: bench-report
bench-report: ## Write the tables and plots of docs/performance.md from the last results
	@python3 bench/report.py

.PHONY: clean
clean: ## Remove what was built (build/ and cargo's target directory)
	@rm -rf build
	@$(CARGO) clean

# The WebSocket client that the tests and the demo's one-liner use, apart from the system's Python.
$(VENV): scripts/requirements.txt
	@scripts/deps.sh venv
	@echo 'Installing the Python client into build/venv'
	@python3 -m venv build/venv
	@build/venv/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# The same with what drives a browser and Docker.
build/venv-tests/installed: tests/requirements.txt
	@scripts/deps.sh venv
	@echo 'Installing the Python tests'"'"' packages into build/venv-tests'
	@python3 -m venv build/venv-tests
	@build/venv-tests/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# Prometheus's checker of metrics, and Prometheus; without the service that its package starts.
$(PROMTOOL) $(PROMETHEUS): scripts/promtool.sh
	@scripts/promtool.sh $@
	@touch --no-dereference $@
