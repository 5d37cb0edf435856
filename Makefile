# Each target is a command that works without make. PYTHON=/path/to/python names another Python for the environment.
.PHONY: setup data train browser test lint format peers bench ladder tutorial torture fuzz clean
export PYTHON

setup: ## make .venv/ with all that is needed
	@sh setup.sh

data: setup ## fetch, verify and cache Fashion-MNIST
	@.venv/bin/python -m cnn data

train: data ## train the chapter's CNN and look inside it
	.venv/bin/python -m experiments.fashion_cnn

browser: ## Chromium for the tests of the report, where it is missing and apt may install it
	@if { command -v chromium || command -v google-chrome; } > /dev/null 2>&1 && command -v chromedriver > /dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && DEBIAN_FRONTEND=noninteractive sh -c \
		'apt-get update && apt-get install --yes --no-install-recommends chromium chromium-driver' > /dev/null 2>&1; then :; \
	else echo 'no Chromium: the tests that open the report in it are skipped; on Debian, as root:' \
		'apt-get install chromium chromium-driver'; fi

test: lint data browser ## everything that is checked
	.venv/bin/python -m pytest

lint: setup ## style and types
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/pyright

peers: data ## an environment for Keras and PyTorch, which bench measures
	@cmp -s benchmarks/peers.txt .venv-peers/set-up || { python=.venv/bin/python; \
		if python3.11 -c 'import ensurepip' 2>/dev/null; then python=python3.11; fi; $$python -m venv --clear .venv-peers && \
		.venv-peers/bin/pip install --quiet -r benchmarks/peers.txt && cp benchmarks/peers.txt .venv-peers/set-up; }

bench: peers ## the numbers of the README and docs/; some two hours on two cores
	.venv/bin/python -m benchmarks.rungs
	.venv/bin/python -m benchmarks.epoch
	.venv/bin/python -m benchmarks.epoch --precision bfloat16 --rounds 3 --images 12000
	.venv/bin/python -m benchmarks.inference
	.venv/bin/python -m benchmarks.time_to_result
	.venv/bin/python -m benchmarks.startup
	.venv/bin/python -m benchmarks.roofline
	.venv/bin/python -m benchmarks.scaling
	.venv/bin/python -m benchmarks.devices
	.venv/bin/python -m benchmarks.seeds
	.venv/bin/python -m benchmarks.play
	.venv/bin/python -m benchmarks.readme

# The rungs of --rows-of, and benchmarks.ablation, are trained on an accelerator.
ladder: data ## the numbers of docs/ladder.md; some hours on two cores, and it goes on where it was stopped
	.venv/bin/python -m benchmarks.ladder --rungs softmax dense lstm fashion_cnn fashion_full
	.venv/bin/python -m benchmarks.ladder --rungs fashion_fast
	.venv/bin/python -m benchmarks.ladder --rungs alexnet efficientnet vit --rows-of benchmarks/results/accelerator.json
	.venv/bin/python -m benchmarks.ladder --rungs resnet20 fashion_best --rows-of benchmarks/results/accelerator.json
	.venv/bin/python -m benchmarks.transfer
	.venv/bin/python -m benchmarks.draw
	.venv/bin/python -m benchmarks.readme

tutorial: data ## docs/tutorial/*.ipynb, made of the .py beside them and run; some minutes on two cores
	.venv/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[tutorial]'
	rm -rf docs/tutorial/runs
	.venv/bin/python docs/tutorial/build.py

torture: data ## kill training 200 times at random moments, and compare what it comes to; ten minutes
	.venv/bin/python -m tests.torture 200

fuzz: setup ## 20,000 drawn bad inputs: command lines, damaged runs, wrong values; some half an hour on two idle cores
	.venv/bin/python -m tests.fuzz --examples 20000

format: setup ## put the code into the one format
	.venv/bin/ruff check --fix . && .venv/bin/ruff format .

clean: ## remove the environment; data, cached elsewhere, and runs/ stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis *.egg-info
