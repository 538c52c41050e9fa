# Everything installs itself into .venv (other interpreters: .venv-3.12 and so on) and only when pyproject.toml has changed.
# Needed beforehand: make, and a CPython from 3.11 up with pip. PYTHON=... names one, otherwise the first found is taken.

# Twice quiet leaves only errors: what pip warns of here is how the machine's own pip is set up.
PIP := bin/python -m pip install --quiet --quiet --no-input --disable-pip-version-check
# An editable install holds the version and the requirements as they were when it was made.
METADATA := pyproject.toml neuralbox_async/_version.py
PYTEST_ARGS ?=
BENCH_ARGS ?=
# Other SDKs and HTTP clients to measure, each in a virtual environment of its own.
OTHER_SDKS := requests httpx openai anthropic

.PHONY: help demo test test-all lint format bench bench-other-sdks dist clean
# Otherwise make takes this stamp, which only a pattern names, for a file to be removed at the end.
.PRECIOUS: .venv-%/.test

help: ## show this list
	@sed -n 's/^\([a-z%.-]*\):[^#]*## /\1\t/p' Makefile | expand -t 18

demo: .venv/.demo ## show a generation, a live stream and a blocking call, on a local server
	.venv/bin/neuralbox demo

test: .venv/.dev ## run the tests and measure what they cover (PYTEST_ARGS="-k sse": run only these, without measuring)
ifeq ($(PYTEST_ARGS),)
	.venv/bin/python -m coverage erase
	.venv/bin/python -m coverage run -m pytest
	.venv/bin/python -m coverage combine --quiet
	.venv/bin/python -m coverage report
else
	.venv/bin/python -m pytest $(PYTEST_ARGS)
endif

test-%: .venv-%/.test ## the same on one other CPython of this machine, without measuring: make test-3.12
	.venv-$*/bin/python -m pytest $(PYTEST_ARGS)

test-all: .venv/.dev ## run the tests on every CPython from 3.11 up that is found on this machine
	@others=$$(.ci/interpreters | sed "/^$$(.venv/bin/python -c 'import sys; print("%d.%d" % sys.version_info[:2])') /d; s/ .*//; s/^/test-/"); \
	$(MAKE) --no-print-directory --keep-going test $$others

lint: .venv/.dev ## check style, format and types
	@status=0; \
	for check in 'ruff check' 'ruff format --check' mypy 'pyright --pythonpath .venv/bin/python'; do \
		echo "$$check"; .venv/bin/$$check || status=1; \
	done; exit $$status

format: .venv/.dev ## let ruff format the code and mend what it can
	.venv/bin/ruff check --fix
	.venv/bin/ruff format

bench: .venv/.bench ## run the benchmarks, some ten minutes (BENCH_ARGS="--only call stream": only these; see benchmarks/README.md)
	.venv/bin/python -m benchmarks $(BENCH_ARGS)

bench-other-sdks: .venv/.bench $(OTHER_SDKS:%=.venv-sdk-%/.sdk) ## the same with other SDKs, each in a virtual environment of its own
	.venv/bin/python -m benchmarks --other-sdks $(BENCH_ARGS)

dist: .venv/.dev ## build sdist and wheel, and try the wheel in a clean environment
	rm -rf dist
	.venv/bin/python -m build --quiet
	.venv/bin/python .ci/check_dist.py dist

clean: ## remove what these commands have made
	rm -rf .venv .venv-* build dist htmlcov .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache

.venv/bin/python:
	@python=$$(.ci/interpreters --first) && .ci/make-venv "$$python" .venv

# Whoever has what development needs has what the demo needs.
.venv/.dev: $(METADATA) | .venv/bin/python
	@echo 'installing what the tests and linters need into .venv'
	@.venv/$(PIP) --editable '.[dev]'
	@touch .venv/.demo $@

.venv/.demo: $(METADATA) | .venv/bin/python
	@echo 'installing what the demo needs into .venv'
	@.venv/$(PIP) --editable '.[cli,speed]'
	@touch $@

.venv/.bench: $(METADATA) | .venv/bin/python
	@echo 'installing what the benchmarks need into .venv'
	@.venv/$(PIP) --editable '.[speed]' trustme urllib3
	@touch $@

.venv-sdk-%/.sdk: | .venv/bin/python
	@.ci/make-venv .venv/bin/python $(@D)
	@echo 'installing $* into $(@D)'
	@$(@D)/$(PIP) $*
	@touch $@

# Not what the linters need: they run once, in .venv.
.venv-%/.test: $(METADATA)
	@python=$$(.ci/interpreters | sed -n 's/^$* //p') && [ "$$python" ] || { echo 'found no CPython $*' >&2; exit 1; }; \
	[ -x .venv-$*/bin/python ] || .ci/make-venv "$$python" .venv-$*
	@echo 'installing what the tests need into .venv-$*'
	@.venv-$*/$(PIP) --editable '.[cli,speed,test]'
	@touch $@
