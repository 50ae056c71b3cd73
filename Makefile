# Two commands do all set-up on a bare Debian 12 or 13: `make demo` and `make test`.
# .venv has PyPI's newest certbot and the tools; .venv-debian stands on the distribution's own certbot.
VENV := .venv
VENV_DEBIAN := .venv-debian
VENV_OLDEST := .venv-oldest
# End-to-end tests wait more than they compute: five at a time keep two cores busy.
PARALLEL := -n 5
SOURCES := setup.py tests/setup-environment

.DEFAULT_GOAL := help
.PHONY: help test test-newest test-debian test-long test-rare test-year test-whole-debian test-matrix test-oldest test-docs test-offline test-distributions test-packages deb dist demo lint docs manual bench fuzz packages clean

help:
	@echo "make demo   show a certificate's whole life on this machine, without touching its real nginx"
	@echo "make test   lint, then the tests with PyPI's newest certbot, then those that touch the distribution's: five minutes"
	@echo "make lint   ruff and mypy"
	@echo "make manual   the manual page, from what --help says"
	@echo "make docs   the pages of docs/ as HTML in docs/_build/html, and the manual page checked"
	@echo "make test-docs      the pages, links and pictures, in a browser without a screen"
	@echo "make test-matrix    all tests with the certbots of Debian 12 and 13 (bare roots: root; long) and PyPI's oldest"
	@echo "make test-long      tests that take long (kills, waits, every shape by certbot, a year), and all with the distribution's certbot"
	@echo "make test-offline   unit and property tests: no network, no root, with the Python that is there (docs/packaging.md)"
	@echo "make test-distributions  pip, pipx, uv, and the packages of Debian, Fedora and Arch, built and judged on this machine"
	@echo "make test-packages  the Debian packages, in bare roots of Debian 12 and 13, and under systemd (root; long)"
	@echo "make deb    the Debian package, in dist/, to install beside Debian's certbot"
	@echo "make dist   sdist and wheel, reproducible and checked"
	@echo "make bench  the benchmarks, beside what else can do the same"
	@echo "make fuzz   a hundred thousand mutations of good OCSP responses, each of which is refused or harmless"
	@echo "make clean  remove the environments and caches"

test: lint test-newest test-debian

# --no-missing-tools: what is not installed fails here, instead of being skipped.
test-newest: packages $(VENV)/.ready
	$(VENV)/bin/python -m pytest --no-missing-tools $(PARALLEL)

# With the distribution's certbot and cryptography: what touches their interfaces.
test-debian: packages $(VENV_DEBIAN)/.ready
	$(VENV_DEBIAN)/bin/python -m pytest --no-missing-tools $(PARALLEL) tests/unit
	$(VENV_DEBIAN)/bin/python -m pytest --no-missing-tools $(PARALLEL) -m "certbot and not long" tests/e2e

# One suite for every supported certbot: what `make test` does here is done in roots of both Debians, with nothing but
# their own packages, and with the oldest certbot from PyPI.
test-matrix: test-oldest
	tests/matrix bookworm
	tests/matrix trixie

# What takes long: commands killed at each change, waits, every shape of site by certbot; a year of renewals; all of the
# end-to-end tests with the distribution's certbot.
test-long: test-rare test-year test-whole-debian

test-rare: packages $(VENV)/.ready
	$(VENV)/bin/python -m pytest --no-missing-tools $(PARALLEL) -m long tests/e2e --ignore tests/e2e/test_year.py

test-year: packages $(VENV)/.ready
	$(VENV)/bin/python -m pytest --no-missing-tools $(PARALLEL) -m long tests/e2e/test_year.py

test-whole-debian: packages $(VENV_DEBIAN)/.ready
	$(VENV_DEBIAN)/bin/python -m pytest --no-missing-tools $(PARALLEL) -m "long or not long" tests/e2e

test-oldest: packages $(VENV_OLDEST)/.ready
	$(VENV_OLDEST)/bin/python -m pytest --no-missing-tools $(PARALLEL) -m "long or not long" tests/unit tests/e2e

test-docs: docs
	tests/setup-environment browser
	$(VENV)/bin/python -m pytest --no-missing-tools -m "long or not long" tests/docs

# For packagers, whose builders have neither: PYTHON=python3 chooses the distribution's Python and modules.
PYTHON ?= $(firstword $(wildcard $(VENV)/bin/python) python3)
test-offline:
	$(PYTHON) -m pytest tests/unit tests/property tests/packaging

# The page docs/install.md with pipx and uv, and the packages of Debian, Fedora and Arch, built and judged here.
test-distributions: packages $(VENV)/.dist-ready
	tests/setup-environment builders
	$(VENV)/bin/python -m pytest --no-missing-tools -m "long or not long" tests/packaging

test-packages:
	tests/packaging/debian-root bookworm
	tests/packaging/debian-root trixie

deb:
	packaging/make-deb dist

dist: packages $(VENV)/.dist-ready
	tests/packaging/dist $(VENV)/bin/python dist

demo: packages $(VENV)/.ready
	$(VENV)/bin/python tests/demo.py

lint: packages $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# Warnings are errors; -E, because pages that did not change are not warned about again. The manual page is read by groff
# and judged by mandoc, where they are installed.
docs: packages $(VENV)/.docs-ready
	$(VENV)/bin/sphinx-build -E -W --keep-going -q -b html docs docs/_build/html
	! command -v man >/dev/null || { said=$$(MANROFFOPT=-ww man --warnings -l -Tutf8 docs/certbot-seafile.1 2>&1 >/dev/null); \
		[ -z "$$said" ] || { echo "$$said"; exit 1; }; }
	! command -v mandoc >/dev/null || mandoc -Tlint -W warning docs/certbot-seafile.1

manual: $(VENV)/.ready
	$(VENV)/bin/python docs/manual.py >docs/certbot-seafile.1

bench: packages $(VENV)/.bench-ready
	for benchmark in tests/benchmarks/bench_*.py; do $(VENV)/bin/python $$benchmark || exit 1; done

# Beyond the few thousand of the property tests; FUZZ=1000000 for a longer run.
FUZZ ?= 100000
fuzz: $(VENV)/.ready
	$(VENV)/bin/python tests/benchmarks/fuzz_verify.py $(FUZZ)

packages:
	@tests/setup-environment packages

# "| packages": the environments need python3-venv, but are not made anew for it.
$(VENV)/.ready: $(SOURCES) | packages
	tests/setup-environment newest $(VENV)
	@touch $@

$(VENV_DEBIAN)/.ready: $(SOURCES) | packages
	tests/setup-environment debian $(VENV_DEBIAN)
	@touch $@

$(VENV_OLDEST)/.ready: $(SOURCES) tests/oldest.txt | packages
	tests/setup-environment oldest $(VENV_OLDEST)
	@touch $@

# What the benchmarks compare this package with.
$(VENV)/.bench-ready: $(VENV)/.ready
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

# What makes the pages of docs/.
$(VENV)/.docs-ready: $(VENV)/.ready
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

# What makes and checks sdist and wheel.
$(VENV)/.dist-ready: $(VENV)/.ready
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dist]'
	@touch $@

clean:
	rm -rf $(VENV) $(VENV_DEBIAN) $(VENV_OLDEST) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
