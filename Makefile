# The commands that people type; continuous integration calls the same ones.

CARGO ?= cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
GUESTS := $(TARGET_DIR)/wasm32-wasip2/guest
# Paths of this machine must not end up in a plugin: the same source gives the
# same bytes wherever it is built.
GUEST_FLAGS := --remap-path-prefix=$(CURDIR)=engine \
	--remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo

# The emulator of the AWS tests, the AWS CLI that judges them, and Prometheus.
EMULATOR := $(TARGET_DIR)/emulator
REQUIREMENTS := engine/tests/emulator/requirements.txt

.PHONY: help demo test plugins test-guests rivals emulator bench bench-gating install wasm-target fmt lint

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: plugins ## Watch a strategy move real requests from v1 to v2 (half a minute)
	$(CARGO) run --locked --quiet --package engine -- run plugins/canary.wasm

test: plugins test-guests rivals emulator ## Run every test
	$(CARGO) test --locked --package engine --package analysis --package rivals --package rollout-sdk --package canary --package blue-green --package one-step

plugins: wasm-target ## Build plugins/*.wasm
	RUSTFLAGS="$(GUEST_FLAGS)" $(CARGO) build --locked --profile guest --target wasm32-wasip2 --package canary --package blue-green
	cp $(GUESTS)/canary.wasm plugins/canary.wasm
	cp $(GUESTS)/blue_green.wasm plugins/blue-green.wasm

test-guests: wasm-target
	RUSTFLAGS="$(GUEST_FLAGS)" $(CARGO) build --locked --profile guest --target wasm32-wasip2 --package hostile
	mkdir -p $(TARGET_DIR)/guests
	cp $(GUESTS)/hostile.wasm $(TARGET_DIR)/guests/hostile.wasm

rivals: wasm-target
	RUSTFLAGS="$(GUEST_FLAGS)" $(CARGO) build --locked --profile guest --target wasm32-wasip2 --package rivals
	mkdir -p $(TARGET_DIR)/guests
	cp $(GUESTS)/rivals.wasm $(TARGET_DIR)/guests/rivals.wasm

emulator: $(EMULATOR)/ready $(EMULATOR)/prometheus

$(EMULATOR)/ready: $(REQUIREMENTS)
	rm -rf $(EMULATOR)
	python3 -m venv $(EMULATOR)
	$(EMULATOR)/bin/pip install --quiet --disable-pip-version-check --requirement $(REQUIREMENTS)
	touch $@

# The distribution's own package, unpacked and not installed.
$(EMULATOR)/prometheus: $(EMULATOR)/ready
	cd $(EMULATOR) && { apt-get download prometheus || { apt-get update && apt-get download prometheus; }; }
	dpkg-deb --fsys-tarfile $(EMULATOR)/prometheus_*.deb | tar -x -O ./usr/bin/prometheus > $@
	chmod +x $@
	rm $(EMULATOR)/prometheus_*.deb

bench: plugins test-guests emulator ## Print figures and ratios (builds an optimised engine first)
	$(CARGO) bench --locked --package engine --bench engine --bench aws

REPLICATES ?= 100

bench-gating: plugins rivals ## Compare the gate with the rules of other tools (REPLICATES=400 for more)
	$(CARGO) bench --locked --package analysis --bench gate
	$(CARGO) bench --locked --package engine --bench gating -- --replicates $(REPLICATES)

install: plugins ## Install the engine into cargo's bin folder
	$(CARGO) install --locked --path engine

lint: ## Format check and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

fmt:
	$(CARGO) fmt --all

wasm-target:
	@rustup target list --installed 2>/dev/null | grep -qx wasm32-wasip2 || rustup target add wasm32-wasip2
