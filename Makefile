# Every target installs its requirements and can be run again.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)

help: ## Show targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | column -t -s "$$(printf '\t')"

demo: ## Install requirements and run the whole path; ARGS="--pause --keep".
	@scripts/setup demo
	@cumulet demo $(ARGS)

test: ## Install requirements and run the tests; ARGS="tests/kube -x".
	@scripts/setup test
	@python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-clients: ## Run tests with clients that are slow to install or run; ARGS="tests/clients -x".
	@scripts/setup clients
	@python -m pytest -m clients $(ARGS)

mutants: ## Run tests against mutants of the code; ARGS="--part scheduler --each 20".
	@scripts/setup mutants
	@.venv/mutants/bin/python scripts/mutants.py $(ARGS)

lint: ## Check format, lints, types and import directions.
	@scripts/setup test
	@ruff format --check . && ruff check . && mypy && lint-imports

bench-path: ## Measure the path against its bounds and its peers.
	@scripts/setup bench
	@python -m benchmarks.path $(ARGS)

bench-registry: ## Measure the registry against its bounds and a peer.
	@scripts/setup bench
	@python -m benchmarks.registry $(ARGS)

bench-kube: ## Measure the API server against its bounds and a peer.
	@scripts/setup bench
	@python -m benchmarks.kube $(ARGS)

bench-dns: ## Measure the name server against its bound.
	@scripts/setup bench
	@python -m benchmarks.dns $(ARGS)

bench-network: ## Measure Services in the kernel against their bounds.
	@scripts/setup bench
	@python -m benchmarks.network $(ARGS)

bench-policies: ## Measure changes of network policies against their bound.
	@scripts/setup bench
	@python -m benchmarks.policies $(ARGS)

.PHONY: help demo test test-clients mutants lint bench-path bench-registry bench-kube bench-dns bench-network bench-policies
