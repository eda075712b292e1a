# make demo: from nothing to a robot that follows a sentence.   make test: lint, format and every test.
# make page: steer the policy in the box by words, in a browser.
# make torture: runs that are killed, files that are damaged.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= $(shell nproc)

demo: $(VENV)/installed
	$(BIN)/python prepare.py
	$(BIN)/python train.py config/toy_nav_cpu.py
	$(BIN)/python sample_policy.py --out_dir=out-toy-nav-cpu --prompts=data/toy_nav/prompts.txt --gif
	$(BIN)/python sample_policy.py --out_dir=out-toy-nav-cpu --eval=test --eval_episodes=200

page: $(VENV)/installed
	$(BIN)/python sample_policy.py --serve

test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

lint: $(VENV)/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check

torture: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python tests/torture.py

venv: $(VENV)/installed

$(VENV)/installed: requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	touch $@

clean:
	rm -rf out* data/*/prepared data/*/archives

.PHONY: demo page test lint torture venv clean
