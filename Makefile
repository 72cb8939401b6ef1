# Penstock. Needs Python 3.11 or newer, git and make; everything else goes into .venv.
#
#   make demo          Brook tells what happens in a film while it plays   (JSON=1: one JSON object a line)
#   make test          checks, then all tests                                     (SLOW=1: the long ones as well)
#   make check         ruff and pyright
#   make features      docs/families.md, every-model.md and compositions.md, from runs of the families' tests and models
#   make life          the drawings of docs/life.md, from the table of a reply's life
#   make picture       docs/page.png and docs/page.webp, from the real page          (needs Chromium)
#   make reference     docs/reference/, from the docstrings of the public classes
#   make brook         teaches Brook from nothing, into taught/: two hours   (OUT=FOLDER, DEVICE=cuda)
#   make venv          only the environment
#
# TORCH_INDEX is the index that torch is taken from. For a CPU build, which is 1.5 GB smaller on Linux:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
TORCH_INDEX ?=
SLOW ?=
JSON ?=

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
START := $(shell date +%s)
PYRIGHT = $(BIN)/pyright --pythonpath $(BIN)/python
SHARE = $(BIN)/python -m pytest -q -p tests.features -p tests.shares --claims $$claims
PIP := $(BIN)/python -m pip --disable-pip-version-check
PIN = $(shell sed -n 's/^$(1)==/$(1)==/p' constraints.txt)

.PHONY: demo test check features life picture reference brook venv clean
.NOTPARALLEL:

demo: $(STAMP)
	@PENSTOCK_STARTED=$(START) $(BIN)/python -m penstock.demos.show $(if $(JSON),--json)

# Side by side: the types, and three runs that share the tests (tests/shares.py). They begin with what waits for a clock
# or a browser, with what starts processes of its own, and with what computes; then each takes what is left.
test: $(STAMP)
	@start=$$(date +%s); logs=$$(mktemp -d); claims=$$logs/claims; mkdir $$claims; \
	trap 'kill $$beside 2>/dev/null; rm -rf $$logs' EXIT; trap 'exit 130' INT TERM; \
	$(BIN)/ruff check . && $(BIN)/ruff format --check . || exit; \
	export PENSTOCK_THREADS=1 OMP_NUM_THREADS=1; \
	nice -n 3 $(PYRIGHT) >$$logs/types 2>&1 & beside=$$!; \
	for first in tests/brook tests/reference; do \
		$(SHARE) --begin $$first >$$logs/$${first##*/} 2>&1 & beside="$$beside $$!"; \
	done; \
	$(SHARE) --begin tests/page; code=$$?; \
	for job in $$beside; do wait $$job || code=$$?; done; cat $$logs/types $$logs/brook $$logs/reference; \
	$(if $(SLOW),[ $$code != 0 ] || $(BIN)/python -m pytest -q -m "slow and not gpu" || code=$$?;) \
	echo "make test: $$(( $$(date +%s) - start )) s"; exit $$code

check: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(PYRIGHT)

features: $(STAMP)
	@$(BIN)/python -m pytest -q -p tests.features --families write tests/reference tests/engine/test_oracle[1234].py \
		tests/engine/test_prompt_media.py tests/engine/test_mutations.py
	@$(BIN)/python -m tests.families.census
	@$(BIN)/python -m tests.families.compositions

life: $(STAMP)
	@$(BIN)/python -m tests.docs.life

picture: $(STAMP)
	@$(BIN)/python tests/page/picture.py

reference: $(STAMP)
	@$(BIN)/python tests/docs/reference.py

# Prints the time that it took.
brook: $(STAMP)
	@command -v espeak-ng >/dev/null || { echo "make brook: expected espeak-ng, which says the words, got none" >&2; exit 1; }
	@$(MAKE) --no-print-directory -j2 -f demos/brook/recipe.mk BIN=$(BIN)
	@echo "make brook: $$(( $$(date +%s) - $(START) )) s"

venv: $(STAMP)

# The wheels of torchvision and torchaudio are installed without their dependencies: beside a CPU build of torch they
# would otherwise pull the CUDA build in. The link lets editors and pyright find `penstock`, which is this very folder.
$(STAMP): pyproject.toml constraints.txt
	@echo "Setting up .venv. Unless pip has them already, this downloads once, before anything starts:" >&2
	@echo "  torch: about 200 MB (CPU build) or 2 to 3 GB (CUDA build, PyPI's default on Linux);" >&2
	@echo "  everything else (transformers, PyAV, numba, tools): about 300 MB, on Linux 500 MB. No model is downloaded." >&2
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) >&2
	@$(PIP) install -q $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) "$(call PIN,torch)" >&2
	@$(PIP) install -q --no-deps "$(call PIN,torchvision)" "$(call PIN,torchaudio)" >&2
	@$(PIP) install -q -e ".[test]" -c constraints.txt >&2
	@ln -sfn "$(CURDIR)" "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/penstock"
	@touch $@

clean:
	rm -rf $(VENV) build dist penstock.egg-info
