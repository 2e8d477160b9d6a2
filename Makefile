# SPDX-License-Identifier: GPL-2.0
# Every entry point of the project. `make help` lists them.

BASE    ?= v7.3
FLAVOUR ?= stack
SIZE    ?= 64G
OP      ?= blocks
HOURS   ?= 1
export BASE LINUX ACCEL SIGNOFF ARCH TEXT

.DEFAULT_GOAL := help
.PHONY: help run test soak bench profile latency check topics shell tree refresh am bzimage deb debian clean setup

setup:
	@scripts/setup

run: setup ## build the patched kernel, boot it, plug memory and take it out again
	@scripts/run

test: setup ## every test; Q=1 five minutes, T='churn*' some; ends with `N passed, N failed, N skipped`
	@scripts/test

soak: setup ## an hour of random hotplug and faults on the debug kernel; HOURS=8 or OPERATIONS=10000 for more
	@scripts/soak "$(HOURS)" "$(OPERATIONS)"

bench: setup ## base and stack side by side; SIZE=512G for one large DIMM
	@scripts/bench $(SIZE)

profile: setup ## instructions and cache misses by kernel function; OP='device 4'
	@scripts/profile $(OP)

latency: setup ## longest sections with interrupts or preemption off, base and stack
	@scripts/latency

check: setup ## the series itself: applies, builds, checkpatch, sparse, coccinelle
	@scripts/check

topics: setup ## the series as topics with cover letters, ready for git send-email
	@scripts/topics

shell: setup ## a guest to play in; prints how to reach QEMU's monitor
	@scripts/run shell

tree: setup ## build/BASE/linux, a git tree with the stack on it
	@scripts/tree

refresh: ## write the commits of that tree back to patches/BASE
	@scripts/refresh

am: ## LINUX=DIR: apply the stack to your own tree, on a branch
	@scripts/am

bzimage: setup ## build one kernel, FLAVOUR=stack; the last line is its path
	@scripts/kernel $(FLAVOUR)

deb: setup ## Debian packages of the stack kernel; CONFIG=/boot/config-... for your machine's
	@scripts/deb $(CONFIG)

debian: setup ## those packages in a Debian guest: udev, chmem, daxctl, fio, the mm selftests
	@scripts/debian

clean: ## remove build/; the download and ccache stay in ~/.cache/memory-hotplug
	@scripts/clean

help: ## this list
	@echo 'Memory hotplug patch stack. Two commands do everything: make run, make test'
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' Makefile | \
		awk -F'\t' '{ printf "%-16s%s\n", $$1, $$2 }'
	@echo 'Settings:'
	@echo '  BASE=v7.3       which series of patches/'
	@echo '  LINUX=DIR       your own kernel tree in place of the fetched one; only read'
	@echo '  ACCEL=auto      how QEMU runs: tcg, kvm, or kvm if it runs this kernel'
	@echo '  ARCH=arm64      run and shell: an arm64 kernel and guest, emulated'
	@echo '  CONFIG=FILE     deb: that configuration in place of the one that is tested'
	@echo '  SIGNOFF=1       am and refresh add your Signed-off-by'
