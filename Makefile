# All set-up happens in a virtual environment of this folder; nothing else is touched.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Compiled modules are kept: without them each of the many processes of a study and of the tests compiles all of them.
unexport PYTHONDONTWRITEBYTECODE
BENCH_VENV ?= .venv-bench
BENCH_READY := $(BENCH_VENV)/.ready

.PHONY: compose-secrets run test coverage test-more test-slow test-matrix test-cluster test-image test-wheel chaos chaos-slow lint types setup lock wheel
.PHONY: docs docs-pages accuracy-picture clean help
.PHONY: bench-peers bench-floor bench-memory bench-pruning bench-ledger bench-hundreds bench-recovery bench-showing bench-checkpoint bench-start bench-options bench-threads bench-folder bench-searches bench-watching

run: $(READY)            ## train the default study with as many workers as cores, and test the winner
	$(BIN)/fmnist-optuna run

test: $(READY)           ## the tests; three to seven minutes on two cores
	$(BIN)/python -m pytest -n logical --maxprocesses=4 --dist loadfile --no-loadscope-reorder

coverage: $(READY)       ## these and test-more, and how many lines of the package they run, child processes included; half an hour
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -m "not slow and not chaos and not matrix and not cluster" -n logical --maxprocesses=4 --dist loadfile --no-loadscope-reorder
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report >build/coverage/lines.txt; status=$$?; cat build/coverage/lines.txt; exit $$status
	! grep ' 0%' build/coverage/lines.txt  # a module that no test imports

test-more: $(READY)      ## further whole commands, training against Keras, pauses, secrets, the browser, histories of the ledger; ten minutes
	$(BIN)/python -m pytest -m "more and not slow" -n logical --maxprocesses=4 --dist loadfile --no-loadscope-reorder

test-slow: $(READY)     ## the tests that take minutes, those of the documents' blocks among them
	$(BIN)/python -m pytest -m "slow and not chaos"

test-matrix: $(READY)    ## what people bring, trained here and by stock fit, and with a pause; four minutes
	$(BIN)/python -m pytest -m matrix -n logical --maxprocesses=4 tests/integration/test_training_matrix.py \
	  tests/integration/test_checkpoint.py

test-image: $(READY)     ## the image built and the compose file's services run by podman, as root; ten to twenty minutes
	FMNIST_TEST_IMAGE_NEEDED=1 $(BIN)/python -m pytest -m slow tests/containers --durations=5

test-cluster: $(READY)   ## a stand-in for Slurm, two nodes of Ray, roles, a bucket; hosts whose network fails, as root; five minutes
	$(BIN)/python -m pytest -m "cluster and not slow" -n logical --maxprocesses=4 --dist loadfile --no-loadscope-reorder

test-wheel: $(READY)     ## the built wheel, installed into an environment of its own where the source is not; two minutes
	tests/wheel/run $(BIN)/python

chaos: $(READY)          ## kills, stalls, outages and full disks, on SQLite and Postgres; five to seven minutes
	$(BIN)/python -m pytest -m "chaos and not slow" -n logical --maxprocesses=4 tests/chaos

chaos-slow: $(READY)     ## a thousand kills a database, a soak, a larger search of the protocol; half an hour
	$(BIN)/python -m pytest -m "chaos and slow" tests/chaos

lint: $(READY)           ## ruff, on code and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)          ## mypy --strict on the package, the tests and the benchmarks
	$(BIN)/mypy
	for folder in acceptance chaos integration unit; do $(BIN)/mypy tests/$$folder/conftest.py || exit 1; done

setup: $(READY)          ## the virtual environment, with the locked dependencies

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] <= (3, 13) else "Python 3.11 to 3.13 is needed, but $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(READY)

# The other tools are large and bring much: they get an environment of their own.
$(BENCH_READY): benchmarks/requirements.lock pyproject.toml
	$(PYTHON) -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r benchmarks/requirements.lock
	$(BENCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(BENCH_READY)

lock:                    ## the lock files anew, from the ranges in pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra postgres --extra s3 --extra ray --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-header --quiet --output-file requirements.lock
	uv pip compile pyproject.toml --extra postgres --extra s3 --universal --python-version 3.11 --constraints requirements.lock \
	  --generate-hashes --no-header --quiet --output-file deploy/requirements.lock
	uv pip compile --group build --universal --python-version 3.11 --constraints requirements.lock \
	  --generate-hashes --no-header --quiet --output-file deploy/build.lock
	uv pip compile pyproject.toml --extra postgres --extra s3 --extra bench --group dev --universal --python-version 3.11 \
	  --generate-hashes --no-header --quiet --output-file benchmarks/requirements.lock

wheel: $(READY)          ## the wheel, into dist/
	$(BIN)/python -m build --no-isolation --wheel

docs: $(READY)           ## the pages in docs/, into build/site; nothing is fetched
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

docs-pages: $(READY)     ## the parts of the pages that the program knows: the keys of a study file, the commands' help
	$(BIN)/python docs/generate.py

accuracy-picture: $(READY) ## the picture of docs/accuracy.md, from the entries in docs/accuracy.toml; needs Chromium
	$(BIN)/python benchmarks/accuracy_picture.py

compose-secrets:         ## passwords for docker-compose.yml, into ./secrets, once
	$(PYTHON) deploy/make_secrets.py

bench-peers: $(BENCH_READY) ## 8 cells here and by other tools, 20 minutes; SIZE=short: five minutes, SIZE=full: two hours
	$(BENCH_VENV)/bin/python benchmarks/peers.py --size $(or $(SIZE),small)

bench-floor: $(READY)    ## an epoch of the engine over the kernels in it; ten minutes
	$(BIN)/python benchmarks/floor.py

bench-options: $(READY)  ## what each option of a training adds to an epoch; fifteen minutes
	$(BIN)/python benchmarks/options.py

bench-memory: $(READY)   ## what 1 to 16 workers take; five minutes
	$(BIN)/python benchmarks/memory.py

bench-pruning: $(READY)  ## what pruners save and cost: the default grid with five seeds, then replayed; half an hour
	for seed in 0 1 2 3 4; do $(BIN)/python benchmarks/pruning.py record $(VENV)/seed-$$seed.json --seed $$seed || exit 1; done
	$(BIN)/python benchmarks/pruning.py replay $(VENV)/seed-0.json
	$(BIN)/python benchmarks/pruning.py ladder $(VENV)/seed-?.json $(CURVES)
	$(BIN)/python benchmarks/pruning.py league $(VENV)/seed-?.json $(CURVES)

bench-ledger: $(READY)   ## bookkeeping with a stub objective: SQLite and Postgres, 4 to 64 workers; ten minutes
	$(BIN)/python benchmarks/ledger.py

bench-hundreds: $(READY) ## two hundred workers on one Postgres, 20 ms away, and what the database does alone; ten minutes
	$(BIN)/python benchmarks/alone.py
	$(BIN)/python benchmarks/hundreds.py growth
	$(BIN)/python benchmarks/hundreds.py paced --workers 50 --round-trip-ms 20
	$(BIN)/python benchmarks/hundreds.py busy --workers 16
	$(BIN)/python benchmarks/hundreds.py long --trials 200 --seconds 30 --round-trip-ms 20
	$(BIN)/python benchmarks/hundreds.py short --workers 16 --trials 10000 --seconds 0.1

bench-recovery: $(READY) ## how long the cell of a killed worker waits for another; eight minutes
	$(BIN)/python benchmarks/recovery.py

bench-showing: $(READY)  ## what it costs to look: report, dashboard, watcher; needs Chromium; six minutes
	$(BIN)/python benchmarks/showing.py

bench-checkpoint: $(READY) ## a checkpoint written, read and restored, and a training resumed from memory; one minute
	$(BIN)/python benchmarks/checkpoint.py

bench-start: $(READY)    ## what a short study waits for: first claim, first epoch, end; OTHER=COMMAND beside it; two minutes
	$(BIN)/python benchmarks/start.py $(if $(OTHER),--other $(OTHER))

bench-folder: $(READY)   ## a folder of 10,000 pictures from disk to arrays; a minute
	$(BIN)/python benchmarks/folder.py

bench-threads: $(READY)  ## one worker a core beside one with all cores, dense and convolutional nets; ten minutes
	$(BIN)/python benchmarks/threads.py

bench-watching: $(READY) ## what events, metrics and a monitor cost a short study; ten minutes
	$(BIN)/python benchmarks/watching.py

bench-searches: $(READY) ## how long TPE thinks about a point beside up to 1,000 others; a minute
	$(BIN)/python benchmarks/searches.py suggest

clean:                   ## remove the virtual environment and what tools leave
	rm -rf $(VENV) $(BENCH_VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

help:                    ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

