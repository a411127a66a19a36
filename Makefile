# Every target says what it does: `make help`.
SHELL := /bin/bash
.DEFAULT_GOAL := help
GO ?= go
PROGRAMS := nixfleet nixfleet-agent nixfleet-control-plane
# Whole programs and real hosts: these take longer, and run one after the other.
WHOLES := ./internal/demo ./test/...
UNITS = $(shell $(GO) list ./... | grep -v -e '^nixfleet/test/' -e '^nixfleet/internal/demo$$')

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

.PHONY: build
build: ## the three programs, static, into bin/
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/ $(addprefix ./cmd/,$(PROGRAMS))

.PHONY: run
run: ## a fleet on this machine to play with; Ctrl-C ends it
	$(GO) run ./cmd/nixfleet demo --serve

.PHONY: deps
deps: ## install what the tests need (root on Debian), or say what is missing
	@scripts/deps

.PHONY: check
check: ## format, vet, staticcheck and the unit tests with -race
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'run gofmt -w on the files above'; exit 1; }
	$(GO) mod tidy -diff
	$(GO) vet ./...
	$(GO) tool staticcheck ./...
	$(GO) test -race -timeout 10m $(UNITS)

.PHONY: fuzz
fuzz: ## every fuzz target for 5 seconds (FUZZTIME=10m for longer)
	@scripts/fuzz $(or $(FUZZTIME),5s)

.PHONY: demo
demo: ## the demo with every act checked, as its test runs it
	$(GO) test -count=1 -timeout 15m -v ./internal/demo

.PHONY: lab-smoke
lab-smoke: ## one real host: systemd, Nix, a signed cache (root)
	$(GO) test -count=1 -timeout 15m -v -run '^TestSmoke$$' ./test/lab

.PHONY: lab
lab: ## every scenario on real hosts (root); RUN=TestGuard for one, KEEP=1 to keep its hosts for a look
	$(GO) test -count=1 -timeout $(if $(KEEP),0,30m) -parallel 12 -v -run '$(or $(RUN),.)' ./test/lab $(if $(KEEP),-keep)

.PHONY: mutants
mutants: ## every deliberate defect must make its named test fail
	$(GO) test -count=1 -timeout 60m -v -run '^TestMutants$$' ./test/mutations -all

.PHONY: test
test: deps check fuzz ## everything: what has to pass before a change lands
	$(GO) test -p 1 -parallel 8 -count=1 -timeout 30m -v $(WHOLES)

.PHONY: bench
bench: ## measure the budgets and write docs/performance.md
	$(GO) run ./cmd/nixfleet-bench

.PHONY: cover
cover: ## statement coverage of the pure and the trusting packages
	$(GO) test -cover ./internal/lifecycle ./internal/trust ./internal/fleet ./internal/rollout
