# Mayfly's entrance. `make run` and `make test` need nothing but Debian 12 and root (or sudo); both install what is missing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export CCACHE_BASEDIR := $(CURDIR)
export CCACHE_NOHASHDIR := 1

.PHONY: help setup build run test check sanitize asan tsan fuzz bench soak fmt lint clean

help:  ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup:  ## install what building needs (Debian packages)
	@tools/setup build

build: setup  ## build the release program at build/mayfly
	@[ -f build/build.ninja ] || cmake --preset release > build.log 2>&1 || { cat build.log; rm -f build.log; exit 1; }
	@rm -f build.log
	@ninja -C build mayfly

run: build  ## build, start Mayfly, deploy and call examples/hello, keep serving until Ctrl-C
	@tools/setup run
	@tools/run

test: build  ## install, build and run every test
	@tools/setup test
	@tools/test all

check: build  ## the fast subset for every day: unit tests and a short pass over the real server
	@tools/setup test
	@tools/test check

sanitize: asan tsan  ## unit tests under both sanitizer builds

asan: setup  ## unit tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@tools/test asan

tsan: setup  ## unit tests under ThreadSanitizer
	@tools/test tsan

fuzz: setup  ## every fuzz target, 20 s each (FUZZ_SECONDS=n for longer)
	@tools/test fuzz

bench: build  ## measure beside the peers; results go to docs/benchmarks.md and docs/benchmarks/
	@tools/setup test
	@tools/setup bench
	@ninja -C build bench_programs
	@bench/run --write

soak: build  ## the full counts; result goes to docs/soak.md
	@tools/setup test
	@tools/test soak

fmt:  ## format the C++ sources
	@git ls-files '*.cc' '*.h' | xargs clang-format-19 -i

lint: setup  ## the include table, self-contained headers, banned calls
	@tools/check-structure

clean:  ## delete what was built
	@rm -rf build
