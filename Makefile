# make riff   everything from a folder of riffs to new ones: train, generate, check, draw, evaluate
# make test   the tests          make lint   style and types of the code
# Python 3.10 to 3.13; another interpreter: make riff PYTHON=python3.12. More options for pip: PIP_ARGS="..."
PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin

.PHONY: riff test lint clean

riff: .venv/ready
	$(BIN)/python train_vae.py
	$(BIN)/python train_diffusion.py
	$(BIN)/python generate.py
	$(BIN)/python check_midi.py
	$(BIN)/python visualize_tokens.py
	$(BIN)/python evaluate.py
	@echo
	@echo "Open: runs/riff_2bar/generated_riff_long.mid   a verse made of the first new riff, for any player or DAW"
	@echo "      runs/riff_2bar/riffs/                    one file for each riff"
	@echo "      runs/riff_2bar/pictures/samples.png      real riffs, their reconstructions and new ones"
	@echo "      runs/riff_2bar/evaluation/               how good, how varied and how copied the new ones are"

test: .venv/ready-tests
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/ready-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis

.venv/ready: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r requirements.txt
	touch $@

.venv/ready-tests: .venv/ready tests/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -r tests/requirements.txt
	touch $@
