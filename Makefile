# make env         a virtual environment with the locked versions (PYTHON=python3.12 for another one)
# make quickstart  the whole method on this machine; the page is runs/quickstart/report/index.html
# make didactic    the paper's argument where all is known exactly: figures and verdicts in runs/didactic
# make rl          ORM-RL and PAV-RL from the quickstart's artefacts; runs/quickstart/rl_report
# make progress    whether progress pays where right answers are rare: RL with the same critic, with and without it; runs/progress/rl_report
# make test        all tests
# make everyday    those without whole stages
# make other       those on the other of Python 3.11 and 3.12 (.venv312), where it is found
# make compile     whether a config fits a slice of TPUs: CONFIG, TOPOLOGY; needs none (.venv-tpu)
# make pods        the same of all of the paper's configs on the slices they name; hours (ONLY='2b rl v5e')
# make peers       bytes a chip of a training step and what it sends, against plain steps on gemma's and Tunix's modules (.venv-peers)
# make benchmark   the rollout engine against other samplers, in an environment of its own (.venv-benchmark)
# make pages       README.md and docs/ from docs/templates and the committed records
# make locks       resolve the lock files anew

PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/quickstart
DIDACTIC ?= runs/didactic
PROGRESS ?= runs/progress
CONFIG ?= configs/paper/gemma2_2b_math.py
TOPOLOGY ?= v5e:4x4
ONLY ?=
TPU := .venv-tpu
FLAGS ?=

VERSION := $(shell $(PYTHON) -c 'import sys; print("%d%d" % sys.version_info[:2])')
LOCK := locks/py$(VERSION).txt
STAMP := $(VENV)/installed-$(VERSION)
# The other Python that is promised, and where it may be; pyenv's python3.12 is there and does not run where another is chosen.
OTHER := $(if $(filter 312,$(VERSION)),3.11,3.12)
PLACES = python$(OTHER) "$$(pyenv prefix $(OTHER))/bin/python3" "$$($(VENV)/bin/uv python find --no-python-downloads $(OTHER))"
# TensorFlow and XLA talk at start-up; neither says anything a user needs.
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: env quickstart rl progress didactic test everyday other tpu compile pods peers benchmark pages locks

env: $(STAMP) $(VENV)/bin/pav_jax

$(STAMP): $(LOCK)
	@echo "environment: $(VENV), $$($(PYTHON) --version), $(LOCK)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python -r $(LOCK)
	@touch $(STAMP)

# The package itself, and its command.
$(VENV)/bin/pav_jax: $(STAMP) setup.py
	@$(VENV)/bin/uv pip install --quiet --python $(VENV)/bin/python --no-deps -e .
	@touch $@

locks/py%.txt:
	@echo "error: $(PYTHON) is Python $(VERSION); locked are $(notdir $(basename $(wildcard locks/py*.txt))): name one, as in make PYTHON=python3.12" >&2; exit 2

quickstart: env
	@$(VENV)/bin/python -m pav_jax.main --config=configs/quickstart.py --workdir=$(WORKDIR) $(FLAGS)

rl: env
	@$(VENV)/bin/python -m pav_jax.main --config=configs/quickstart.py --config.stage=rl --workdir=$(WORKDIR) $(FLAGS)

progress: env
	@for stage in problems sft rollouts values verifier rl; do \
	  $(VENV)/bin/python -m pav_jax.main --config=configs/rare.py:rare --config.stage=$$stage --workdir=$(PROGRESS) \
	    --config.verifier.kinds=q, --config.rl.arms=outcome_critic,progress --config.rl.seeds=0,1,2 $(FLAGS) || exit; done

didactic: env
	@for figure in theorem best_of_k proposition map search fig3c fig3b decline fig3a; do \
	  $(VENV)/bin/python -m pav_jax.main --config=configs/didactic/$$figure.py --workdir=$(DIDACTIC) $(FLAGS) || exit; done

test: env
	@$(VENV)/bin/python -m pytest -q $(FLAGS) tests

everyday: env
	@$(VENV)/bin/python -m pytest -q -m "not slow" $(FLAGS) tests

other: env
	@python=$$(for place in $(PLACES); do \
	  "$$place" -c 'import ensurepip, sys; assert "%d.%d" % sys.version_info[:2] == "$(OTHER)"; print(sys.executable)' && break; \
	done 2>/dev/null); \
	if [ -z "$$python" ]; then echo "Python $(OTHER) is not here: the everyday tests have not run on it"; exit; fi; \
	echo "everyday tests on Python $(OTHER), $$python"; \
	$(MAKE) --no-print-directory everyday PYTHON="$$python" VENV=.venv$(subst .,,$(OTHER))

tpu:
	@$(MAKE) --no-print-directory env VENV=$(TPU)
	@$(TPU)/bin/uv pip install --quiet --python $(TPU)/bin/python "jax[tpu]==$$($(TPU)/bin/python -c 'import jax; print(jax.__version__)')"

compile: tpu
	@$(TPU)/bin/python -m pav_jax.main --mode=compile --config=$(CONFIG) --topology=$(TOPOLOGY) $(FLAGS)

pods: tpu
	@$(TPU)/bin/python tests/benchmarks/pods.py --only='$(ONLY)' $(FLAGS)

peers: TPU = .venv-peers
peers: tpu
	@.venv-peers/bin/uv pip install --quiet --python .venv-peers/bin/python -r tests/benchmarks/requirements_peers.txt
	@.venv-peers/bin/python tests/benchmarks/peers_compile.py --results=tests/benchmarks/peers_compile.jsonl $(FLAGS)

benchmark:
	@$(MAKE) --no-print-directory env VENV=.venv-benchmark
	@.venv-benchmark/bin/uv pip install --quiet --python .venv-benchmark/bin/python --torch-backend cpu -r tests/benchmarks/requirements.txt || .venv-benchmark/bin/uv pip install --quiet --python .venv-benchmark/bin/python -r tests/benchmarks/requirements.txt
	@# PyTorch's GPU compiler registers LLVM's options a second time beside XLA's, which ends the process.
	@.venv-benchmark/bin/uv pip uninstall --quiet --python .venv-benchmark/bin/python triton || true
	@.venv-benchmark/bin/python tests/benchmarks/rollouts.py $(FLAGS)

pages: env
	@$(VENV)/bin/python docs/pages.py

locks:
	for v in 11 12 13; do $(VENV)/bin/uv pip compile -q setup.py --extra test --extra launch --python-version 3.$$v --no-header -o locks/py3$$v.txt; done
