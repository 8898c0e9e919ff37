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
# The book and the check of dependencies.
TOOLS := $(TARGET_DIR)/tools
TOOL_PINS := engine/tests/tools/requirements.txt
# The registry of the registry tests.
REGISTRY := $(TARGET_DIR)/registry

# Real servers behind the local balancer; Node is there for the languages.
SERVERS := $(TARGET_DIR)/servers
SERVER_PINS := engine/tests/servers/requirements.txt

# The toolchains of the languages that the templates are written in, and the
# projects made of the templates.
LANGUAGES := $(TARGET_DIR)/languages
PROJECTS := $(LANGUAGES)/projects
PYTHON_PINS := engine/templates/python/requirements.txt
NPM_PINS := engine/tests/languages/package.json engine/tests/languages/package-lock.json
TEMPLATES := $(shell find engine/templates wit plugins/sdk/src plugins/analysis/src -type f)
LANGUAGE_GUESTS := $(foreach language,rust python js,$(PROJECTS)/$(language)/doubling.wasm)
EXAMPLES := $(addprefix examples/strategies/,ml-gate change-window)
# Tests wait for servers and clocks more than they compute.
export RUST_TEST_THREADS ?= 4
TESTED := $(addprefix --package ,engine analysis rivals rollout-sdk canary blue-green one-step request-ramp baseline)
BUILD = CARGO_TARGET_DIR=$(abspath $(TARGET_DIR)) $(MAKE) --no-print-directory \
	-o .venv/bin/componentize-py -o node_modules -o node_modules/.bin/jco \
	ENGINE="$(abspath $(TARGET_DIR))/debug/engine --state-dir $(abspath $(LANGUAGES))/state"

.PHONY: help built first-build demo test campaign real-speed fuzz plugins test-guests rivals emulator aws-here aws-users registry servers languages language-guests language-tests bench bench-gating bench-languages install wasm-target fmt lint deny book

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: first-build plugins ## Watch a strategy move real requests from v1 to v2 (half a minute)
	@echo "the engine is built: some 400 crates the first time"
	$(CARGO) run --locked --package engine -- run plugins/canary.wasm

test: plugins test-guests rivals emulator registry servers language-tests ## Run every test
	$(CARGO) test --locked $(TESTED)

plugins: wasm-target ## Build plugins/*.wasm
	RUSTFLAGS="$(GUEST_FLAGS)" $(CARGO) build --locked --profile guest --target wasm32-wasip2 --package canary --package blue-green
	cp $(GUESTS)/canary.wasm plugins/canary.wasm
	cp $(GUESTS)/blue_green.wasm plugins/blue-green.wasm

test-guests: wasm-target
	RUSTFLAGS="$(GUEST_FLAGS)" $(CARGO) build --locked --profile guest --target wasm32-wasip2 --package hostile --package request-ramp --package baseline
	mkdir -p $(TARGET_DIR)/guests
	cp $(GUESTS)/hostile.wasm $(GUESTS)/request_ramp.wasm $(GUESTS)/baseline.wasm $(TARGET_DIR)/guests/

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

# To try the engine's AWS side without an account: engine/docs/guide/aws.md.
AWS_PORT ?= 5580
STACK ?= shop

aws-here: $(EMULATOR)/ready ## Run the emulator of AWS on 127.0.0.1:5580, until Ctrl-C
	$(EMULATOR)/bin/python engine/tests/emulator/serve.py --port $(AWS_PORT)

aws-users: $(EMULATOR)/ready ## Send users to a stack of that emulator, until Ctrl-C (STACK=shop)
	AWS_ENDPOINT_URL=http://127.0.0.1:$(AWS_PORT) AWS_DEFAULT_REGION=us-east-1 \
		AWS_ACCESS_KEY_ID=any AWS_SECRET_ACCESS_KEY=any \
		$(EMULATOR)/bin/python engine/tests/emulator/feed.py $(STACK)

registry: $(REGISTRY)/docker-registry

$(REGISTRY)/docker-registry:
	mkdir -p $(REGISTRY)
	cd $(REGISTRY) && { apt-get download docker-registry || { apt-get update && apt-get download docker-registry; }; }
	dpkg-deb --fsys-tarfile $(REGISTRY)/docker-registry_*.deb | tar -x -O ./usr/bin/docker-registry > $@
	chmod +x $@
	rm $(REGISTRY)/docker-registry_*.deb

servers: $(SERVERS)/ready $(SERVERS)/nginx

$(SERVERS)/ready: $(SERVER_PINS)
	rm -rf $(SERVERS)
	python3 -m venv $(SERVERS)
	$(SERVERS)/bin/pip install --quiet --disable-pip-version-check --requirement $(SERVER_PINS)
	touch $@

$(SERVERS)/nginx: $(SERVERS)/ready
	cd $(SERVERS) && { apt-get download nginx || { apt-get update && apt-get download nginx; }; }
	dpkg-deb --fsys-tarfile $(SERVERS)/nginx_*.deb | tar -x -O ./usr/sbin/nginx > $@
	chmod +x $@
	rm $(SERVERS)/nginx_*.deb

# With the tests, or cargo would build all dependencies once more for them.
built:
	$(CARGO) test --locked --no-run $(TESTED)

languages: $(LANGUAGES)/python/ready $(LANGUAGES)/npm/ready

$(LANGUAGES)/python/ready: $(PYTHON_PINS)
	rm -rf $(@D)
	python3 -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $(PYTHON_PINS)
	touch $@

# Not `npm ci`: it insists on the packages of all platforms, and not every registry has them.
$(LANGUAGES)/npm/ready: $(NPM_PINS)
	rm -rf $(@D)
	mkdir -p $(@D)
	cp $(NPM_PINS) $(@D)
	cd $(@D) && npm install --no-audit --no-fund
	touch $@

# Made by `engine plugin new` and built as a user would; only the tools are
# links to those above, which `make` then regards as up to date.
$(PROJECTS)/%/doubling.wasm: $(TEMPLATES) | languages wasm-target built
	rm -rf $(@D)
	mkdir -p $(PROJECTS) $(TARGET_DIR)/guests
	$(TARGET_DIR)/debug/engine plugin new doubling --lang $* --folder $(@D)
	ln -sfn $(abspath $(LANGUAGES))/python $(@D)/.venv
	ln -sfn $(abspath $(LANGUAGES))/npm/node_modules $(@D)/node_modules
	$(BUILD) -C $(@D)
	cp $@ $(TARGET_DIR)/guests/doubling-$*.wasm

language-guests: $(LANGUAGE_GUESTS) languages ## Build the templates and the examples in Rust, Python and JavaScript
	$(BUILD) -C examples/strategies/ml-gate COMPONENTIZE=$(abspath $(LANGUAGES))/python/bin/componentize-py
	$(BUILD) -C examples/strategies/change-window JCO=$(abspath $(LANGUAGES))/npm/node_modules/.bin/jco

language-tests: built language-guests ## Test the templates and the examples as their READMEs say
	set -e; for project in $(LANGUAGE_GUESTS:/doubling.wasm=) $(EXAMPLES); do \
		echo "$$project"; $(BUILD) -C $$project test; \
	done

bench: plugins test-guests emulator ## Print figures and ratios (builds an optimised engine first)
	$(CARGO) bench --locked --package engine --bench engine --bench aws

# Without a sanitizer the stable compiler will do, and the code is safe Rust.
# New inputs go to engine/fuzz/corpus, those that crash to engine/fuzz/artifacts.
FUZZ = $(CARGO) fuzz run --fuzz-dir engine/fuzz --target-dir $(abspath $(TARGET_DIR))/fuzz --sanitizer none
SECONDS ?= 60

fuzz: ## Feed hostile input to the loader and the parsers (SECONDS=600 for longer)
	$(CARGO) fuzz --version || $(CARGO) install --locked cargo-fuzz
	set -e; for entry in loader lock config journal manifest; do \
		mkdir -p engine/fuzz/corpus/$$entry; \
		$(FUZZ) $$entry engine/fuzz/corpus/$$entry engine/tests/fuzzed/$$entry examples/rollouts examples/scenarios \
			-- -max_total_time=$(SECONDS) -max_len=16384 -timeout=10 -rss_limit_mb=2048 -print_final_stats=1; \
	done

# Random faults of the kinds that were found once. KIND, SEED and ROUNDS repeat
# what it printed.
campaign: SECONDS = 1800
campaign: plugins test-guests $(if $(KIND),,real-speed) ## Try to break it for half an hour (SECONDS=600 for less)
	SECONDS=$(SECONDS) KIND=$(KIND) SEED=$(SEED) ROUNDS=$(ROUNDS) \
		$(CARGO) test --locked --package engine --test it campaign::campaign -- --exact --ignored --nocapture

real-speed: plugins test-guests $(EMULATOR)/ready ## Follow a good and a bad version with a real clock (ten minutes)
	$(CARGO) test --locked --package engine --test it real_speed:: -- --ignored --nocapture

REPLICATES ?= 100

bench-gating: plugins rivals ## Play the gate in all sets, beside an oracle and the rules of other tools (REPLICATES=400 for more)
	$(CARGO) bench --locked --package analysis --bench gate
	$(CARGO) bench --locked --package engine --bench gating -- --replicates $(REPLICATES)

bench-languages: language-guests ## Compare the costs of strategies in three languages
	$(CARGO) bench --locked --package engine --bench languages

# Where `cargo install` installs. The engine looks for its strategies in share/engine/plugins
# beside the folder that it is in.
PREFIX ?= $(or $(CARGO_INSTALL_ROOT),$(CARGO_HOME),$(HOME)/.cargo)

install: first-build plugins ## Install the engine into cargo's bin folder, with its strategies (PREFIX=...)
	@echo "an optimised engine is built: some 400 crates"
	$(CARGO) install --locked --path engine --root $(PREFIX)
	mkdir -p $(PREFIX)/share/engine/plugins
	cp plugins/canary.wasm plugins/blue-green.wasm $(PREFIX)/share/engine/plugins/

# Before minutes in which cargo says what it compiles, and nothing of why.
first-build:
	@echo "two things are built, the strategies and the engine; cargo shows how far it is"

lint: ## Format check and clippy, warnings are errors
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path engine/fuzz/Cargo.toml --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

deny: $(TOOLS)/ready ## Check licences, duplicate versions and sources of crates (deny.toml)
	$(TOOLS)/bin/cargo-deny --locked check licenses bans sources

book: $(TOOLS)/ready ## Build the documents as a book, into target/book
	$(TOOLS)/bin/mdbook build --dest-dir $(abspath $(TARGET_DIR))/book engine/docs

$(TOOLS)/ready: $(TOOL_PINS)
	rm -rf $(TOOLS)
	python3 -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check --require-hashes --requirement $(TOOL_PINS)
	touch $@

fmt:
	$(CARGO) fmt --all

wasm-target:
	@rustup target list --installed 2>/dev/null | grep -qx wasm32-wasip2 || rustup target add wasm32-wasip2
