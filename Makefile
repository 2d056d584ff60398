# Every target installs what it needs by itself, and can be run again.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PATH := $(CURDIR)/.venv/bin:$(PATH)

help: ## Show the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | column -t -s "$$(printf '\t')"

demo: ## Install what is needed and walk the whole path; ARGS="--pause --keep".
	@scripts/setup demo
	@cumulet demo $(ARGS)

test: ## Install what the tests need and run them; ARGS="tests/kube -x".
	@scripts/setup test
	@python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-clients: ## Run the clients that take long to install or to run; ARGS="tests/clients -x".
	@scripts/setup clients
	@python -m pytest -m clients $(ARGS)

lint: ## Formatting, lints, types and the direction of imports.
	@scripts/setup test
	@ruff format --check . && ruff check . && mypy && lint-imports

bench: ## Measure the path against its bounds and its peers.
	@scripts/setup bench
	@python -m benchmarks.path $(ARGS)

bench-registry: ## Measure the registry side by side with a peer.
	@scripts/setup bench
	@python -m benchmarks.registry $(ARGS)

bench-kube: ## Measure the API server.
	@scripts/setup bench
	@python -m benchmarks.kube $(ARGS)

.PHONY: help demo test test-clients lint bench bench-registry bench-kube
