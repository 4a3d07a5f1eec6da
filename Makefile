# boardhand. Every target does its own set-up from a clean clone; the logs of the set-up are in .cache/.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
FUZZ := .cache/fuzz
# Foreign programs that tests and benchmarks run against ours, each in an environment of its own.
PEERS := .cache/peers
PEERS_READY := $(PEERS)/labgrid/.installed $(PEERS)/pdudaemon/.installed
# The compiled half of the TFTP server; an installation makes it too, where a compiler is (hatch_build.py).
PUMP := netboot/native/pump.so
BENCH_PEERS_READY := $(PEERS)/tftp-pypi/.installed $(PEERS)/tftp-debian/.installed $(PEERS)/nginx/.installed
# mosquitto lives in /usr/sbin on Debian, which is not on an ordinary user's PATH.
export PATH := $(PATH):/usr/sbin:/sbin
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo deb fuzz test coverage test-deb test-shelf test-hour test-learn test-udev test-usb test-netboot test-roots lint bench soak docs clean packages-python packages-demo packages-test packages-usb packages-bench packages-netboot packages-roots packages-deb

help:
	@echo "make demo    a farm of virtual boards, from power to finished work"
	@echo "make test    all tests but those of the targets test-..., linters included"
	@echo "make coverage  the same, and which lines they ran: takes twice as long"
	@echo "make test-usb  our agent switches USB hubs in a QEMU guest with a real kernel and udev"
	@echo "make test-udev  our rules under a real systemd-udevd in that guest: four adapters, two with one serial number"
	@echo "make test-netboot  U-Boot, iPXE and UEFI boot Linux from our netboot server, over good and bad cables"
	@echo "make test-roots  emulated boards run Debian from our roots over NFS, each as itself (needs root)"
	@echo "make deb     a Debian package for this release in dist/, with all that boardhand stands on"
	@echo "make test-deb  that package in a clean Debian root: installed, run, removed, purged (needs root)"
	@echo "make test-shelf  README's way from an empty Debian to work on a shelf of two emulated boards (needs root)"
	@echo "make test-hour  an hour of a farm in a minute, one QEMU board among light ones, against policy and simulator"
	@echo "make test-learn  boardhand learn finds the cabling of a virtual farm, and puts back what a kill -9 left"
	@echo "make fuzz    feed netboot's parsers and policies with chance, guided by coverage (FUZZ_S=60 seconds each)"
	@echo "make lint    the linters alone"
	@echo "make bench   every benchmark in bench/, one after the other"
	@echo "make soak    power for ten minutes (SOAK_S=seconds): PDUs misbehave, the agent is killed, every answer is checked;"
	@echo "             then an hour of a farm of 20 boards in five: every job, wait, switch and watt hour, against the simulator"
	@echo "make docs    write the generated documents in docs/ anew"
	@echo "make clean   remove everything that make has made"

demo: packages-demo $(VENV)/.installed
	@$(VENV)/bin/boardhand up --demo

# Most tests wait for timers of real programs, so four at once keep two cores busy.
test: packages-test $(VENV)/.installed $(PEERS_READY) $(PUMP)
	@$(RUN) -m pytest -n 4 --dist worksteal --ignore=tests/usb_guest --ignore=tests/netboot_clients --ignore=tests/roots_guest --ignore=tests/packaging/test_deb.py --ignore=tests/hour --ignore=tests/learn_farm --ignore=tests/shelf $(PYTEST_ARGS)

# Apart, because looking at each line makes our own code run three times as long.
coverage:
	@$(MAKE) --no-print-directory test PYTEST_ARGS='--cov --cov-report=term:skip-covered $(PYTEST_ARGS)'

# Apart, because one guest serves all of these tests: they run one after the other.
test-usb: packages-usb $(VENV)/.installed
	@$(RUN) -m virtual_lab.usb_guest_image
	@$(RUN) -m pytest -n 0 tests/usb_guest --ignore=tests/usb_guest/test_udev_rules.py $(PYTEST_ARGS)

# Apart, and not on the build server, which has no two minutes to give.
test-udev: packages-usb $(VENV)/.installed
	@$(RUN) -m virtual_lab.usb_guest_image
	@$(RUN) -m pytest -n 0 tests/usb_guest/test_udev_rules.py $(PYTEST_ARGS)

# Apart, because each machine is emulated: two at once would only be slower.
test-netboot: packages-netboot $(VENV)/.installed
	@$(RUN) -m virtual_lab.boot_client_files
	@$(RUN) -m pytest -n 0 tests/netboot_clients $(PYTEST_ARGS)

# Apart, and not on the build server, which has no two minutes to give.
test-hour: packages-netboot $(VENV)/.installed $(PUMP)
	@$(RUN) -m pytest -n 0 tests/hour $(PYTEST_ARGS)

test-learn: packages-netboot $(VENV)/.installed $(PUMP)
	@$(RUN) -m pytest -n 2 tests/learn_farm $(PYTEST_ARGS)

# Apart, because its boards share one shelf: these tests run one after the other, too.
test-roots: packages-roots $(VENV)/.installed
	@$(RUN) -m virtual_lab.debian_root
	@$(RUN) -m pytest -n 0 tests/roots_guest $(PYTEST_ARGS)

deb: packages-deb $(VENV)/.installed
	@$(RUN) packaging/deb/build.py

# Apart, because the package takes a minute to build.
test-deb: deb
	@$(RUN) -m tests.packaging.clean_root
	@$(RUN) -m pytest -n 0 tests/packaging/test_deb.py $(PYTEST_ARGS)

# Apart, because the package takes a minute to build, and learning with emulated boards two more.
test-shelf: deb packages-netboot
	@$(RUN) -m tests.packaging.clean_root
	@$(RUN) -m pytest -n 0 tests/shelf $(PYTEST_ARGS)

# Coverage-guided, each target for FUZZ_S seconds; what is found goes into tests/netboot/test_dhcp_fuzz.py.
fuzz: $(FUZZ)/.installed
	@set -e; for target in dhcp tftp http tree; do echo "== $$target"; mkdir -p $(FUZZ)/$$target; \
	    $(FUZZ)/bin/python tests/fuzz/fuzz_netboot.py $$target $${FUZZ_S:-60} $(FUZZ)/$$target/corpus; done

lint: $(VENV)/.installed
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

bench: packages-test packages-bench $(VENV)/.installed $(PUMP) $(PEERS_READY) $(BENCH_PEERS_READY)
	@set -e; for bench in bench/*.py; do \
	    case $$bench in 'bench/*.py'|bench/__init__.py) continue ;; esac; \
	    echo "== $$bench"; $(RUN) $$bench; \
	done

soak: packages-test packages-demo $(VENV)/.installed $(PUMP)
	@$(RUN) bench/soak/power.py --seconds $${SOAK_S:-600}
	@$(RUN) bench/soak/hour.py

docs: $(VENV)/.installed
	@$(RUN) docs/render.py

clean:
	@rm -rf $(VENV) $(PUMP) .cache .coverage htmlcov dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

packages-python:
	@./install-packages python

packages-demo:
	@./install-packages demo

packages-test:
	@./install-packages

packages-usb:
	@./install-packages usb

packages-bench:
	@./install-packages bench

packages-netboot:
	@./install-packages netboot

packages-roots:
	@./install-packages roots

packages-deb:
	@./install-packages deb

# The packages come first: on Debian one of them holds what `python3 -m venv` needs.
$(VENV)/.installed: pyproject.toml | packages-python
	@mkdir -p .cache
	@$(RUN) -c '' 2>/dev/null || { echo "environment: making $(VENV) (log: .cache/pip.log)"; \
	    $(PYTHON) -m venv --clear $(VENV) >.cache/pip.log 2>&1 || { cat .cache/pip.log >&2; exit 1; }; }
	@echo "environment: installing boardhand and what it stands on (log: .cache/pip.log)"
	@$(RUN) -m pip install --disable-pip-version-check -e '.[dev]' >.cache/pip.log 2>&1 </dev/null \
	    || { tail -n 15 .cache/pip.log >&2; exit 1; }
	@touch $@

$(PUMP): netboot/native/pump.c netboot/native/build.py | $(VENV)/.installed
	@$(RUN) netboot/native/build.py >/dev/null
	@touch $@

$(PEERS)/labgrid/.installed: tests/peers/requirements-labgrid.txt | packages-python
	@mkdir -p $(@D)
	@echo "environment: labgrid as a foreign client (log: $(PEERS)/labgrid.log)"
	@{ $(PYTHON) -m venv --clear $(@D) && $(@D)/bin/python -m pip install --disable-pip-version-check -r $<; } \
	    >$(PEERS)/labgrid.log 2>&1 </dev/null || { tail -n 15 $(PEERS)/labgrid.log >&2; exit 1; }
	@touch $@

# The wheel has no pduclient; the source distribution has.
$(PEERS)/pdudaemon/.installed: tests/peers/requirements-pdudaemon.txt tests/peers/pdudaemon.txt | packages-python
	@mkdir -p $(@D)
	@echo "environment: pdudaemon as a foreign client and rival (log: $(PEERS)/pdudaemon.log)"
	@{ $(PYTHON) -m venv --clear $(@D) \
	    && $(@D)/bin/python -m pip install --disable-pip-version-check -r tests/peers/requirements-pdudaemon.txt \
	    && $(@D)/bin/python -m pip download --disable-pip-version-check --no-deps --no-binary :all: \
	        -d $(@D)/source -r tests/peers/pdudaemon.txt \
	    && $(@D)/bin/python -m pip install --disable-pip-version-check --no-deps $(@D)/source/pdudaemon-*.tar.gz \
	    && tar -xzf $(@D)/source/pdudaemon-*.tar.gz -C $(@D)/source --strip-components=1 --wildcards '*/pduclient'; } \
	    >$(PEERS)/pdudaemon.log 2>&1 </dev/null || { tail -n 15 $(PEERS)/pdudaemon.log >&2; exit 1; }
	@touch $@

$(PEERS)/tftp-pypi/.installed: tests/peers/requirements-tftp.txt | packages-python
	@mkdir -p $(@D)
	@echo "environment: the TFTP servers of PyPI as rivals (log: $(PEERS)/tftp-pypi.log)"
	@{ $(PYTHON) -m venv --clear $(@D) && $(@D)/bin/python -m pip install --disable-pip-version-check -r $<; } \
	    >$(PEERS)/tftp-pypi.log 2>&1 </dev/null || { tail -n 15 $(PEERS)/tftp-pypi.log >&2; exit 1; }
	@touch $@

$(FUZZ)/.installed: tests/fuzz/requirements.txt | packages-python
	@mkdir -p $(@D)
	@echo "environment: atheris (log: $(FUZZ).log)"
	@{ $(PYTHON) -m venv --clear $(@D) && $(@D)/bin/python -m pip install --disable-pip-version-check -r $<; } \
	    >$(FUZZ).log 2>&1 </dev/null || { tail -n 15 $(FUZZ).log >&2; exit 1; }
	@touch $@

# Unpacked, not installed: the two packages exclude each other, and would start services.
$(PEERS)/tftp-debian/.installed: | packages-bench
	@mkdir -p $(@D)
	@echo "environment: tftpd-hpa and atftpd as rivals (log: $(PEERS)/tftp-debian.log)"
	@{ cd $(@D) && rm -rf *.deb root && apt-get download tftpd-hpa atftpd \
	    && for package in *.deb; do dpkg-deb -x $$package root || exit 1; done; } \
	    >$(PEERS)/tftp-debian.log 2>&1 </dev/null || { tail -n 15 $(PEERS)/tftp-debian.log >&2; exit 1; }
	@touch $@

# Unpacked, not installed: it would start a service.
$(PEERS)/nginx/.installed: | packages-bench
	@mkdir -p $(@D)
	@echo "environment: nginx as a rival (log: $(PEERS)/nginx.log)"
	@{ cd $(@D) && rm -rf *.deb root && apt-get download nginx && dpkg-deb -x nginx_*.deb root; } \
	    >$(PEERS)/nginx.log 2>&1 </dev/null || { tail -n 15 $(PEERS)/nginx.log >&2; exit 1; }
	@touch $@
