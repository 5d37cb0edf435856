# Each target is a command that works without make. PYTHON=/path/to/python names another Python for the environment.
.PHONY: setup data train test lint format bench clean
export PYTHON

setup: ## make .venv/ with all that is needed
	@sh setup.sh

data: setup ## fetch, verify and cache Fashion-MNIST
	@.venv/bin/python -m cnn data

train: data ## train the chapter's CNN and look inside it
	.venv/bin/python -m experiments.fashion_cnn

test: lint data ## everything that is checked
	.venv/bin/python -m pytest

lint: setup ## style and types
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/pyright

bench: data ## the numbers in the README, beside Keras in an environment of its own; some 40 minutes
	@test -e .venv-peers/set-up || { .venv/bin/python -m venv --clear .venv-peers && \
		.venv-peers/bin/pip install --quiet -r benchmarks/peers.txt && touch .venv-peers/set-up; }
	.venv/bin/python -m benchmarks.epoch
	.venv/bin/python -m benchmarks.seeds
	.venv/bin/python -m benchmarks.readme

format: setup ## put the code into the one format
	.venv/bin/ruff check --fix . && .venv/bin/ruff format .

clean: ## remove the environment; data, cached elsewhere, and runs/ stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis *.egg-info
