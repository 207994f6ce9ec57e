# make demo    install, then BC, TD3+BC and PRDC on a built-in dataset: table and curves
# make test    install, then the fast tests (10 minutes at most on two cores)
# make proof   the long tests: toys, coverage of intervals, kills
# make lint    ruff and mypy
# make referee  an environment with the d4rl package, which tests/envs/test_referee.py then asks
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
REFEREE := .venv-d4rl
# One intra-op thread a process: two on a busy two-core machine are several times slower.
export OMP_NUM_THREADS := 1

.PHONY: demo test proof lint referee install clean

demo: $(VENV)/installed
	$(BIN)/orbs demo

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

proof: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -q -m proof

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

referee: $(REFEREE)/installed

# Without its dependencies (mujoco-py, dm_control, ...): the tables and the views need none of them. (Its import makes the folder of datasets.)
$(REFEREE)/installed: constraints.txt
	$(PYTHON) -m venv $(REFEREE)
	$(REFEREE)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps d4rl==1.1 gym==0.24.1 gym-notices termcolor tqdm numpy h5py
	D4RL_SUPPRESS_IMPORT_ERROR=1 D4RL_DATASET_DIR=$(REFEREE)/datasets $(REFEREE)/bin/python -c 'import d4rl' 2>/dev/null
	@touch $@

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "orbs needs Python 3.11 or newer, found $$($(PYTHON) --version 2>&1); run: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "orbs needs Python's venv module; on Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,minari,robotics,tensorboard,video]'
	@touch $@

clean:
	rm -rf $(VENV) $(REFEREE) build dist *.egg-info
