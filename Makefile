# logitcask's front door. `make` prints what you can do.

RECIPE   ?= pipelines/quick.toml
PROVIDER ?= cpu
DEVICE   ?= cpu
SET      ?=
ARGS     ?=

# The TensorRT provider lives in the CUDA library.
RUNTIME  := $(if $(filter cpu,$(PROVIDER)),cpu,cuda)
BIN      := $(or $(CARGO_TARGET_DIR),target)/release/logitcask
DIGITS   := pipelines/digits/resnet-resnet8
DEMO     := $(DIGITS)/ce.toml $(DIGITS)/kd.toml $(DIGITS)/mcld.toml
FEATURES := $(if $(filter cuda%,$(DEVICE)),--features cuda)
SETS     := $(foreach assignment,$(SET),--set '$(assignment)')

.DEFAULT_GOAL := help
.PHONY: help setup runtime build teacher-logits student report next-teacher demo test test-full check bench cuda-build gpu-check

help: ## this text
	@echo "logitcask: distil image classifiers from cached teacher logits"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | awk -F'|' '{ printf "%-22s %s\n", $$1, $$2 }'
	@echo
	@echo "  RECIPE=$(RECIPE)  PROVIDER=cpu|cuda|tensorrt  DEVICE=cpu|cuda  SET='train.epochs=2 seed=3'"

setup: runtime build ## fetch ONNX Runtime (PROVIDER=cuda: with CUDA) and build

runtime:
	@python3 pipelines/runtime/fetch.py $(RUNTIME)

build:
	@$(if $(FEATURES),eval "$$(pipelines/runtime/toolkit.sh)" &&) cargo build --release -p logitcask-cli --bin logitcask $(FEATURES)

teacher-logits: setup ## stage one: run the recipe's teachers over its views, into a cache
	@$(BIN) teacher-logits $(RECIPE) --provider $(PROVIDER) $(SETS) $(ARGS)

student: build ## stage two: train the recipe's student from the cache
	@$(BIN) student $(RECIPE) --device $(DEVICE) $(SETS) $(ARGS)

report: build ## a page about finished runs: make report RUNS="data/runs/a data/runs/b"
	@$(BIN) report $(or $(RUNS),data/runs)

next-teacher: setup ## a student becomes a teacher: trained, exported, captured, and learned from
	@$(BIN) teacher-logits $(DIGITS)/kd.toml
	@$(BIN) student $(DIGITS)/kd.toml --out data/runs/next-teacher/first
	@mkdir -p data/teachers
	@$(BIN) export data/runs/next-teacher/first --onnx data/teachers/digits_resnet8.onnx --check
	@$(BIN) teacher-logits pipelines/digits/next-teacher/kd.toml
	@$(BIN) student pipelines/digits/next-teacher/kd.toml --out data/runs/next-teacher/second
	@$(BIN) report data/runs/next-teacher/first data/runs/next-teacher/second --out data/runs/next-teacher

demo: setup ## the whole thing on the embedded digits, in minutes: CE, KD and MCLD from one cache
	@$(BIN) teacher-logits $(word 1,$(DEMO))
	@for recipe in $(DEMO); do $(BIN) student $$recipe --out data/runs/demo/$$(basename $$recipe .toml) || exit; done
	@$(BIN) report data/runs/demo/ce data/runs/demo/kd data/runs/demo/mcld --out data/runs/demo

test: runtime ## every test that needs neither network nor root, once built
	@cargo test --release --workspace

test-full: test ## also other readers of the cache and long kill runs; installs what it needs
	@tests/full.sh

check: ## formatting, lints and the docs' links, as before each commit
	@cargo fmt --all --check
	@cargo clippy --release --workspace --all-targets -- -D warnings
	@RUSTDOCFLAGS="-D rustdoc::broken_intra_doc_links -A rustdoc::private_intra_doc_links" cargo doc --quiet --release --workspace --no-deps

bench: runtime ## benchmarks; the tables they feed are under docs/
	@cargo bench --workspace

cuda-build: ## on any machine: build for CUDA with a real toolkit, which is fetched (1.1 GB, 25 minutes)
	@tests/cuda_build.sh

gpu-check: ## on a machine with an NVIDIA GPU: capture and train by CUDA, compare with the CPU, time steps
	@$(MAKE) --no-print-directory setup PROVIDER=cuda
	@tests/gpu_check.sh
	@tests/gpu_check_students.sh
