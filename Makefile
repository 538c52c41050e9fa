# Each target installs its requirements into .venv (other interpreters: .venv-3.12 and so on) if pyproject.toml has changed.
# Prerequisites: make, and CPython 3.11 or newer with pip. PYTHON=... selects an interpreter; the default is the first one.

# --quiet twice prints only errors; pip's warnings here are about the pip configuration of the machine.
PIP := bin/python -m pip install --quiet --quiet --no-input --disable-pip-version-check
# An editable install keeps the version and the requirements of the moment when it was made.
METADATA := pyproject.toml neuralbox_async/_version.py
PYTEST_ARGS ?=
# Compiled once, not in each worker and in each process that a test starts.
unexport PYTHONDONTWRITEBYTECODE
# Processes that run tests at the same time. Most tests wait more than they compute.
WORKERS ?= 4
# A process that has nothing left to do takes tests of another: without that, a few long tests keep one core idle at the
# end.
PYTEST := -m pytest --numprocesses=$(WORKERS) --dist=worksteal
# What a change of the SDK can break, with a quarter of the generated examples. CI runs the rest, too.
TEST := --hypothesis-profile=quick -m "not programs and not slow and not timing"
# Tests that measure time run after the others, so that no load fails them. They wait more than they compute.
TIMING := -m pytest --numprocesses=2 -m timing
# Fakes instead of sockets for the most part, in this process, without long waits and without generated examples.
FAST_TESTS := $(wildcard tests/test_*.py) $(addprefix tests/,call internals)
FAST := "not process and not signals and not slow and not timing and not hypothesis and not long"
# The tests of the packages, for other interpreters and other versions of the required packages: the command, the local
# server, the hosts, the pages and the benchmarks add nothing there, and faults and batches take the most time. Generated
# examples of values do not depend on the interpreter. Processes and signals do, but not on the versions of packages.
PACKAGE_TESTS := $(wildcard tests/test_*.py) $(addprefix tests/,call http internals sync)
OTHER_PYTHON := "not slow and not timing and not hypothesis"
OTHER_VERSIONS := "not process and not slow and not timing"
# The fast paths are in the core: the facade adds nothing there. The property tests of both paths show that they agree.
CORE_TESTS := $(wildcard tests/test_*.py) $(addprefix tests/,batch call faults http internals)
CORE := "not process and not signals and not slow and not timing and not hypothesis"
BENCH_ARGS ?=
# Other SDKs and HTTP clients to measure, each in a virtual environment of its own.
OTHER_SDKS := requests httpx openai anthropic
# Tools that reach models through the gateway, each in a virtual environment of its own.
GATEWAY_TOOLS := langchain-openai litellm llm shell-gpt


.PHONY: help demo test test-fast test-process test-thorough test-timing coverage test-general test-oldest test-next test-others test-newest test-whole test-all test-gateway test-gateway-tools test-ray lint format bench bench-other-sdks bench-gateway docs dist clean
# Otherwise make removes these stamps at the end, as intermediate files of a pattern rule.
.PRECIOUS: .venv-%/.test .venv-%/.packages-test

help: ## show this list
	@sed -n 's/^\([a-z%.-]*\):[^#]*## /\1\t/p' Makefile | expand -t 20

demo: .venv/.demo ## show a generation, a stream, a blocking call and a batch, on a local server
	.venv/bin/neuralbox demo

test: .venv/.dev ## run the tests of the SDK, without slow ones (PYTEST_ARGS="-k sse": only these)
	.venv/bin/python $(PYTEST) $(if $(PYTEST_ARGS),$(PYTEST_ARGS),$(TEST))

test-fast: .venv/.dev ## run the quick tests of the core: no process, no generated examples, nothing long
	.venv/bin/python $(PYTEST) $(FAST_TESTS) -m $(FAST) $(PYTEST_ARGS)

test-thorough: .venv/.dev ## run the property tests with 1000 random examples each
	.venv/bin/python $(PYTEST) --hypothesis-profile=thorough -m hypothesis $(PYTEST_ARGS)

test-process: .venv/.dev ## run the tests that start processes, except slow ones and those that measure time
	.venv/bin/python $(PYTEST) -m "process and not slow and not timing" $(PYTEST_ARGS)

test-timing: .venv/.dev ## run the tests that measure time, on a machine that does nothing else
	.venv/bin/python $(TIMING) $(PYTEST_ARGS)

coverage: .venv/.dev ## run the tests that start no process and are not slow, and require a coverage of 95 %
	.venv/bin/python -m coverage erase
	.venv/bin/python -m coverage run $(PYTEST) -m "not process and not slow and not timing"
	.venv/bin/python -m coverage combine --quiet
	.venv/bin/python -m coverage report

test-general: .venv/.dev ## run the tests of the core without the fast paths
	NEURALBOX_FAST_PATHS=off .venv/bin/python $(PYTEST) $(CORE_TESTS) -m $(CORE) $(PYTEST_ARGS)

# The command as well: it has requirements of its own.
test-oldest: .venv-oldest/.test ## run the tests of the packages and the command with the lowest versions that pyproject.toml allows
	.venv-oldest/bin/python $(PYTEST) $(PACKAGE_TESTS) tests/cli -m $(OTHER_VERSIONS) $(PYTEST_ARGS)

test-next: .venv-next/.test ## run the tests of the packages with pre-releases of the required packages; may fail
	.venv-next/bin/python $(PYTEST) $(PACKAGE_TESTS) -m $(OTHER_VERSIONS) $(PYTEST_ARGS)

test-gateway: .venv-gateway/.test ## run the tests of the gateway with OpenAI's own client
	.venv-gateway/bin/python $(PYTEST) tests/gateway_clients/test_openai.py $(PYTEST_ARGS)

# Their imports and connections give warnings, which are not ours.
test-gateway-tools: $(GATEWAY_TOOLS:%=.venv-tool-%/.test) ## run the tests of the gateway with LangChain, LiteLLM, llm and shell-gpt
	@status=0; for tool in $(GATEWAY_TOOLS); do \
		.venv-tool-$$tool/bin/python $(PYTEST) --override-ini=filterwarnings=default \
			tests/gateway_clients/test_$${tool%%-*}.py $(PYTEST_ARGS) || status=1; \
	done; exit $$status

# Not in .ci/run: half a gigabyte of packages. In one process: the tests start clusters.
test-ray: .venv-ray/.test ## run the tests of Ray, on clusters of several nodes on this machine
	.venv-ray/bin/python -m pytest --numprocesses=0 tests/ray $(PYTEST_ARGS)

test-%: .venv-%/.test ## run all tests on another CPython of this machine: make test-3.12
	.venv-$*/bin/python $(PYTEST) $(PYTEST_ARGS)

# "3.12 3.13": the CPythons of this machine without that of .venv.
OTHERS = $$(.ci/interpreters | sed "/^$$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])') /d; s/ .*//")

test-packages-%: .venv-%/.packages-test # run the tests of the packages on another CPython of this machine
	.venv-$*/bin/python $(PYTEST) $(PACKAGE_TESTS) -m $(OTHER_PYTHON) $(PYTEST_ARGS)

test-others: .venv/.dev ## run the tests of the packages on the other CPythons of this machine, from 3.11 on
	@others="$(OTHERS)"; [ -z "$$others" ] || \
	$(MAKE) --no-print-directory --keep-going $$(printf 'test-packages-%s ' $$others)

test-newest: .venv/.dev ## do the same on the newest of them
	@newest=$$(printf '%s\n' $(OTHERS) | tail -n 1); [ -z "$$newest" ] || \
	$(MAKE) --no-print-directory "test-packages-$$newest"

test-whole: .venv/.dev # run all tests, those that measure time last
	.venv/bin/python $(PYTEST) -m "not timing"
	.venv/bin/python $(TIMING)

test-all: .venv/.dev ## run all tests, slow ones as well, on every CPython of this machine, from 3.11 on
	@$(MAKE) --no-print-directory --keep-going test-whole $$(printf 'test-%s ' $(OTHERS))

lint: .venv/.dev ## check style, format, types and workflows
	@status=0; \
	for check in 'ruff check' 'ruff format --check' mypy 'pyright --pythonpath .venv/bin/python' \
			'ty check --quiet --python .venv' 'pyrefly check --python-interpreter-path .venv/bin/python' 'zizmor --offline --quiet .github'; do \
		echo "$$check"; .venv/bin/$$check || status=1; \
	done; exit $$status

format: .venv/.dev ## format the code and apply ruff's fixes
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

bench: .venv/.bench ## run the benchmarks, some ten minutes (BENCH_ARGS="--only call stream": only these; see benchmarks/README.md)
	.venv/bin/python -m benchmarks $(BENCH_ARGS)

bench-other-sdks: .venv/.bench $(OTHER_SDKS:%=.venv-sdk-%/.sdk) ## run the benchmarks with other SDKs, each in a virtual environment of its own
	.venv/bin/python -m benchmarks --other-sdks $(BENCH_ARGS)

bench-gateway: .venv/.dev .venv-proxy-litellm/.proxy ## measure the gateway beside LiteLLM's proxy
	.venv/bin/python -m benchmarks.gateway --litellm .venv-proxy-litellm/bin/python $(BENCH_ARGS)

docs: .venv/.dev ## build the documentation site in build/docs; open build/docs/index.html
	.venv/bin/python -m sphinx --fresh-env --quiet --fail-on-warning --keep-going --builder html docs build/docs

dist: .venv/.dev ## build sdist and wheel, and test the wheel in a clean environment
	rm -rf dist
	.venv/bin/python -m build --quiet
	.venv/bin/python .ci/check_dist.py dist

clean: ## remove all files that these targets made
	rm -rf .venv .venv-* build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find neuralbox_async neuralbox_sync tests benchmarks docs -name __pycache__ -prune -exec rm -r {} +

.venv/bin/python:
	@python=$$(.ci/interpreters --first) && .ci/make-venv "$$python" .venv

# The requirements of development include those of the demo.
.venv/.dev: $(METADATA) | .venv/bin/python
	@echo 'installing the requirements of tests and linters into .venv'
	@.venv/$(PIP) --editable '.[cli,speed]' --group dev
	@touch .venv/.demo $@

.venv/.demo: $(METADATA) | .venv/bin/python
	@echo 'installing the requirements of the demo into .venv'
	@.venv/$(PIP) --editable '.[cli,speed]'
	@touch $@

.venv/.bench: $(METADATA) | .venv/bin/python
	@echo 'installing the requirements of the benchmarks into .venv'
	@.venv/$(PIP) --editable '.[speed]' trustme urllib3
	@touch $@

.venv-sdk-%/.sdk: | .venv/bin/python
	@.ci/make-venv .venv/bin/python $(@D)
	@echo 'installing $* into $(@D)'
	@$(@D)/$(PIP) $*
	@touch $@

.venv-proxy-%/.proxy: | .venv/bin/python
	@.ci/make-venv .venv/bin/python $(@D)
	@echo 'installing the proxy of $* into $(@D)'
	@$(@D)/$(PIP) '$*[proxy]'
	@touch $@

.venv-oldest/.test: $(METADATA) .ci/lowest_versions.py | .venv/bin/python
	@[ -x .venv-oldest/bin/python ] || .ci/make-venv .venv/bin/python .venv-oldest
	@echo 'installing the lowest versions and the requirements of the tests into .venv-oldest'
	@.venv-oldest/bin/python .ci/lowest_versions.py >.venv-oldest/constraints.txt
	@.venv-oldest/$(PIP) --constraint .venv-oldest/constraints.txt --editable '.[cli,speed]' --group packages-test
	@touch $@

.venv-gateway/.test: $(METADATA) | .venv/bin/python
	@[ -x .venv-gateway/bin/python ] || .ci/make-venv .venv/bin/python .venv-gateway
	@echo 'installing OpenAI'"'"'s client and the requirements of its tests into .venv-gateway'
	@.venv-gateway/$(PIP) --editable '.[cli]' --group gateway
	@touch $@

.venv-ray/.test: $(METADATA) | .venv/bin/python
	@[ -x .venv-ray/bin/python ] || .ci/make-venv .venv/bin/python .venv-ray
	@echo 'installing Ray and the requirements of its tests into .venv-ray'
	@.venv-ray/$(PIP) --editable . --group ray
	@touch $@

.venv-tool-%/.test: $(METADATA) | .venv/bin/python
	@[ -x .venv-tool-$*/bin/python ] || .ci/make-venv .venv/bin/python .venv-tool-$*
	@echo 'installing $* and the requirements of its tests into .venv-tool-$*'
	@.venv-tool-$*/$(PIP) --editable '.[cli]' --group gateway $*
	@touch $@

# pip's --pre would apply to the test tools as well.
.venv-next/.test: $(METADATA) | .venv/bin/python
	@[ -x .venv-next/bin/python ] || .ci/make-venv .venv/bin/python .venv-next
	@echo 'installing pre-releases and the requirements of the tests into .venv-next'
	@.venv-next/$(PIP) --editable '.[cli,speed]' --group packages-test
	@.venv-next/$(PIP) --upgrade --pre aiohttp anyio attrs cattrs
	@touch $@

# Without the requirements of the linters: they run only in .venv.
.venv-%/.test: $(METADATA)
	@python=$$(.ci/interpreters | sed -n 's/^$* //p') && [ "$$python" ] || { echo 'there is no CPython $* on this machine' >&2; exit 1; }; \
	[ -x .venv-$*/bin/python ] || .ci/make-venv "$$python" .venv-$*
	@echo 'installing the requirements of the tests into .venv-$*'
	@.venv-$*/$(PIP) --editable '.[cli,speed]' --group test --group otel --group dask
	@touch $@

# Only what the tests of the packages need, which is a third of the requirements.
.venv-%/.packages-test: $(METADATA)
	@python=$$(.ci/interpreters | sed -n 's/^$* //p') && [ "$$python" ] || { echo 'there is no CPython $* on this machine' >&2; exit 1; }; \
	[ -x .venv-$*/bin/python ] || .ci/make-venv "$$python" .venv-$*
	@echo 'installing the requirements of the tests of the packages into .venv-$*'
	@.venv-$*/$(PIP) --editable '.[cli,speed]' --group packages-test
	@touch $@
