# `make` or `make help` lists the targets. Needs the Rust toolchain and a C compiler, nothing else; `make fuzz` a C++
# compiler, too.

CARGO ?= cargo
# Experiments on this machine, with nothing compiled that the target does not need
LAB := $(CARGO) run --release -p soma-lab --no-default-features

# Options for `make run`, e.g. ARGS="--commits 5000 --full-nodes 2"
ARGS ?=

# Options for `make sim`: how many seeds; or one seed, and one scenario (a name, or `random`)
SEEDS ?= 50
SEED ?=
SCENARIO ?=

# Options for `make bench` and `make bench-quick`, e.g. BENCH="sync/C --senders 1000"
BENCH ?=

# Options for `make chaos`: how many kills; SEED draws the victims and the moments
KILLS ?= 100

# Options for `make fuzz`: the time for each target, and some targets instead of all, e.g. TARGETS="block message"
SECONDS ?= 60
TARGETS ?=

# Packages that are not published
UNPUBLISHED := soma-lab soma-testkit soma-tests

# Packages of tests, and what `make lint` denies in all others: code of a node returns errors
TESTS := soma-testkit soma-tests
BEYOND_TESTS := unwrap_used expect_used panic too_many_lines

# Tools of some targets, each built once for each version. A directory has the name and the version.
MDBOOK := target/tools/mdbook@0.5.4/bin/mdbook
CARGO_DEB := target/tools/cargo-deb@3.8.0/bin/cargo-deb
CARGO_CYCLONEDX := target/tools/cargo-cyclonedx@0.5.9/bin/cargo-cyclonedx
tool-dir = $(patsubst %/bin,%,$(@D))
install-tool = $(CARGO) install --locked --root $(tool-dir) $(notdir $(tool-dir)) $(1)

# Stops a target whose tool is missing, and says where the tool comes from
needs = @command -v $(1) > /dev/null || { echo "$@ needs $(1): $(2)" >&2; exit 1; }

.PHONY: book test-otlp help run test test-browser check-alerts sim sim-broadcast sim-discovery chaos lint doc bench-recording mutants bless-traces package public-api docs-reference fuzz bench bench-quick bench-latency deb test-deb dist release-files

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

# Without whole-program optimisation, so that a newcomer sees a network sooner.
run: export CARGO_PROFILE_RELEASE_LTO = off
run: ## Run a network of 4 validators and a fresh full node on this machine, and watch it catch up
	$(LAB) -- localnet $(ARGS)

test: ## Run all tests
	$(CARGO) test --workspace

sim: ## Simulate whole networks over SEEDS seeds, or rerun one: SEED=7 SCENARIO="cold sync"
	$(LAB) --features simulation -- sim --seeds $(SEEDS) $(if $(SEED),--seed $(SEED)) $(if $(SCENARIO),--scenario "$(SCENARIO)")

test-browser: ## Test the status page in Chromium; pictures are left in target/browser
	$(call needs,chromium,Debian package chromium)
	$(call needs,chromedriver,Debian package chromium-driver)
	$(CARGO) test -p soma-lab --features browser --test browser

test-otlp: ## Test the export of spans to a collector of OpenTelemetry
	$(CARGO) test --workspace --features soma-p2p-cli/otlp --test otlp

chaos: ## Kill and restart random nodes of a syncing network that prunes and archives KILLS times, and count what is lost: KILLS=20 SEED=7
	$(LAB) -- chaos --kills $(KILLS) --prune 500 --archive $(if $(SEED),--seed $(SEED))

lint: ## Check formatting, clippy, docs, and the rules of structure
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --workspace $(TESTS:%=--exclude %) --lib --bins --examples --no-deps -- -D warnings $(BEYOND_TESTS:%=-D clippy::%)
	$(CARGO) clippy -p soma-p2p --no-default-features --no-deps -- -D warnings
	$(CARGO) clippy --workspace --features soma-p2p-cli/otlp --bin soma-p2p --test otlp -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps
	$(CARGO) run --quiet -p soma-tests --bin structure-rules

check-alerts: ## Check the alert rules of docs/operating, and run their tests, with promtool (Debian package prometheus)
	$(call needs,promtool,Debian package prometheus)
	promtool check rules docs/operating/alerts.yaml
	promtool test rules docs/operating/alerts-test.yaml

docs-reference: ## Write docs/reference anew from the code: limits, settings, metrics
	$(CARGO) run --quiet -p soma-tests --bin docs-reference

package: ## Build every published crate from its package
	$(CARGO) package --workspace $(UNPUBLISHED:%=--exclude %) $(ARGS)

# What packages hold besides the binary: man pages and completions
PACKAGE_FILES := target/package-files
# The binary of an operator, where cargo-deb looks for it
RELEASE := $(or $(CARGO_TARGET_DIR),target)/release

release-files:
	$(CARGO) build --release --locked -p soma-p2p-cli
	crates/cli/package/package-files.sh $(RELEASE)/soma-p2p $(PACKAGE_FILES)

deb: $(CARGO_DEB) ## Build the Debian package
	$(MAKE) release-files
	$(CARGO_DEB) -p soma-p2p-cli --no-build --output target/debian/soma-p2p.deb

test-deb: deb ## Install the Debian package in a fresh root file system, run its service there, restart it; needs root, debootstrap, socat, curl
	$(CARGO) build --release -p soma-lab --no-default-features
	crates/cli/package/test-deb.sh target/debian/soma-p2p.deb $(RELEASE)/soma-lab

dist: $(CARGO_CYCLONEDX) ## Write a release archive with an SBOM and checksums to target/dist
	$(MAKE) release-files
	PATH="$(CURDIR)/$(dir $(CARGO_CYCLONEDX)):$$PATH" crates/cli/package/dist.sh $(RELEASE)/soma-p2p $(PACKAGE_FILES) target/dist

public-api: ## Write crates/soma-p2p/public-api.txt anew: every public item of the facade
	$(CARGO) run --quiet -p soma-tests --bin public-api

bless-traces: ## Write the golden traces anew, and show what has changed in them
	$(CARGO) run -p soma-lab -- bless-traces

sim-broadcast: ## Let 1,000 nodes send each other messages in simulation: delays, bytes, a flood, churn, hostile nodes
	$(LAB) --features simulation -- sim-broadcast

sim-discovery: ## Let 1,000 nodes find each other in simulation, and 300 among 500 identities of an attacker
	$(LAB) --features simulation -- sim-discovery

mutants: ## Break the range planner on purpose, and see whether simulation finds each bug within 50 seeds
	$(CARGO) run -p soma-lab -- mutants

fuzz: ## Feed every decoder of untrusted bytes made-up input, SECONDS for each: SECONDS=20 TARGETS="block message"
	CARGO="$(CARGO)" fuzz/run.sh $(SECONDS) $(TARGETS)

bench: ## Measure everything: the parts, then whole syncs beside what the hardware allows, messages beside libp2p-gossipsub, and a long history; BENCH=sync/C runs those cases
	$(CARGO) bench -p soma-tests --bench parts
	$(LAB) --features bench,gossipsub -- bench $(BENCH)
	$(LAB) --features simulation -- sim-latency

bench-quick: ## Every kind of block once, in under three minutes
	$(LAB) --features bench -- bench --quick $(BENCH)

bench-latency: ## Sync over simulated links with latencies of 0, 20 and 100 ms
	$(LAB) --features simulation -- sim-latency

bench-recording: ## Measure what recording a trace costs a sync
	$(CARGO) bench -p soma-tests --bench recording

book: $(MDBOOK) ## Build the book of docs/ in target/book
	$(MDBOOK) build docs
	@echo "open target/book/index.html"

$(MDBOOK):
	$(call install-tool,--no-default-features --features search)

$(CARGO_DEB) $(CARGO_CYCLONEDX):
	$(call install-tool)

doc: ## Build the API documentation
	$(CARGO) doc --workspace --no-deps
	@echo "open target/doc/soma_p2p/index.html"
