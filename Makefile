# Everything one does with a checkout. `make demo` and `make test` need python3 >= 3.11 and make, nothing else.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= cpu
SEEDS ?= 50
EXAMPLES ?= 1000
comma := ,
STAMP := $(VENV)/.ready-$(TORCH)
BENCH := build/bench-env
IMAGE ?= localhost/pvtv2-batch
PODMAN := podman --root $(CURDIR)/build/image/storage --runroot $(CURDIR)/build/image/run

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-sizes digits test drills cluster-demo chaos soak audit check format lint types parity exact bench-env
.PHONY: image-base image image-demo clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## make .venv with all that demo and test need (TORCH=cuda for a CUDA build of torch)

# uv installs in a third of pip's time. It knows where CPU builds of torch are, but not what pip is configured with, so that
# pip comes first for torch, and does the rest where uv reaches no index.
$(STAMP): pyproject.toml constraints.txt $(wildcard model/cpu/c/*)
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "python 3.11 is needed (PYTHON=python3.11 make ...), this is " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q uv
	@if [ "$(TORCH)" = cpu ]; then \
	  $(BIN)/pip install -q --no-compile "torch==$$(sed -n 's/^torch==//p' constraints.txt)+cpu" 2>/dev/null \
	  || $(BIN)/uv pip install -q --python $(BIN)/python --torch-backend cpu -c constraints.txt torch; \
	fi
	$(BIN)/uv pip install -q --python $(BIN)/python -c constraints.txt -e '.[dev]' \
	|| $(BIN)/pip install -q --no-compile -c constraints.txt -e '.[dev]'
	@# All at once and on all cores. Where PYTHONDONTWRITEBYTECODE is set, every process would compile what it imports.
	$(BIN)/python -m compileall -q -j 0 -x '/tests?/|/pip/' $(VENV)/lib > /dev/null || true
	@rm -f $(VENV)/.ready-*; touch $@

demo: setup  ## make sample shards, classify them on a local Ray, show rows and throughput
	$(BIN)/python examples/demo.py

demo-sizes: setup  ## compare sizes on digits: the table, the page, and the size that is chosen
	$(BIN)/python examples/sample_shards.py --out build/demo-sizes/shards
	$(BIN)/python jobs/evaluate.py --input build/demo-sizes/shards --weights weights/digits \
	  --output build/demo-sizes/output --sweep native,square:64,shorter:48,shorter:96,shorter:192
	@echo "page: build/demo-sizes/output/sizes.html"

digits: setup  ## train the weights of the demo again, into build/digits (minutes)
	$(BIN)/python examples/train_digits.py --out build/digits

# Two files of tests at a time, one thread each; long files come first.
test: setup  ## run the tests, but for the drills
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not drill"

drills: setup  ## run the long tests on a real Ray, most of which break a run (half an hour)
	$(BIN)/python -m pytest tests/chaos tests/jobs -m drill

cluster-demo: setup  ## a run on three nodes of different kinds, one of which is lost, told in words
	$(BIN)/python -m tests.chaos.three_nodes

chaos: setup  ## kill processes and break requests, seed by seed, and compare (SEEDS=50, or SEED=17 alone)
	$(BIN)/python -m tests.chaos.chaos $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

soak: setup  ## many more made-up nights, inputs and reports than `make test` has (EXAMPLES=1000)
	EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest tests/pipeline/run/test_nights.py tests/pipeline/read/test_inputs_at_random.py \
	  tests/pipeline/page/test_page.py

# AUDIT: further flags, see docs/operate/audit.md. A URI with a space in it takes the command itself.
audit: setup  ## count an output again: INPUT="URI ..." OUTPUT=URI [AUDIT="--strict ..."]
	@test -n "$(INPUT)" && test -n "$(OUTPUT)" || { echo 'usage: make audit INPUT="URI ..." OUTPUT=URI' >&2; exit 2; }
	@$(BIN)/python -m infra.audit --input $(INPUT) --output "$(OUTPUT)" $(AUDIT)

check: setup format lint types test  ## what CI runs: format, lint, types, tests

format: setup
	$(BIN)/ruff format --check .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

parity: setup  ## compare all seven variants at full size with transformers
	$(BIN)/python -m pytest -s tests/model/parity_full.py

exact: setup  ## compare packs of mixed sizes with the plain network, all seven variants at full size
	$(BIN)/python -m pytest -s tests/model/exact_full.py

bench-env: $(BENCH)/.ready  ## make build/bench-env, in which the benchmarks and all that they compare with run

# timm needs torchvision, and that a torch of its own version. CPU builds come by uv, which knows where they are; where it
# cannot reach them, pip takes what its index has, on Linux often a CUDA build of gigabytes, which runs on a CPU as well.
$(BENCH)/.ready: pyproject.toml benchmarks/constraints.txt
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install -q uv
	$(BENCH)/bin/uv pip install -q --python $(BENCH)/bin/python --torch-backend cpu -c benchmarks/constraints.txt torch torchvision \
	|| $(BENCH)/bin/pip install -q --no-compile -c benchmarks/constraints.txt torch torchvision
	$(BENCH)/bin/pip install -q --no-compile -c benchmarks/constraints.txt -e '.[bench]'
	$(BENCH)/bin/python -m compileall -q -j 0 -x '/tests?/|/pip/' $(BENCH)/lib > /dev/null || true
	touch $@

# These need root and podman, the first mmdebstrap too. PIP_CONF (a configuration of pip) and IMAGE_FLAGS (of podman) are for the
# build alone, RUN_FLAGS for podman in the demo; see docs/operate/image.md.
image-base:  ## make a base for the image of Debian's packages, where no registry is reached
	infra/image/base.sh localhost/pvtv2-base $(PODMAN)

image:  ## build the container image (BASE=localhost/pvtv2-base for one on that base, TORCH=cuda for GPUs)
	$(PODMAN) build --isolation chroot --file infra/image/Dockerfile $(if $(BASE),--build-arg BASE=$(BASE)) \
	  --build-arg TORCH=$(TORCH) --build-arg REVISION=$$(git rev-parse HEAD) \
	  $(if $(PIP_CONF),--secret id=pip$(comma)src=$(PIP_CONF)) $(IMAGE_FLAGS) --tag $(IMAGE) .
	$(PODMAN) history --format '{{.Size}}\t{{.CreatedBy}}' $(IMAGE)
	$(PODMAN) image inspect --format 'bytes {{.Size}}' $(IMAGE)

image-demo: setup  ## run the demo's job in the image, read-only and not as root, and stop one in the middle
	$(BIN)/python examples/sample_shards.py --out build/image/shards --shards 6 --images 200
	RUN_FLAGS="$(RUN_FLAGS)" infra/image/demo.sh build/image/shards build/image/output $(IMAGE) $(PODMAN)

clean:  ## remove .venv and what tools left behind
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +
