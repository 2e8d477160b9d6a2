# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2034
# What the scripts share: where things are, how they speak, how they end.

set -eu
export LC_ALL=C
# What our own make was told is not for the makes of the kernel.
unset MAKEFLAGS MFLAGS MAKELEVEL

# What the user has set for trees of his own would change ours, and the patches.
i=0
for setting in commit.gpgSign=false tag.gpgSign=false diff.context=3 diff.interHunkContext=0 \
		diff.noprefix=false diff.mnemonicPrefix=false diff.renames=true core.autocrlf=false \
		core.abbrev=auto format.attach= format.useAutoBase=false apply.whitespace=warn am.keepcr=false; do
	export "GIT_CONFIG_KEY_$i=${setting%%=*}" "GIT_CONFIG_VALUE_$i=${setting#*=}"
	i=$((i + 1))
done
export GIT_CONFIG_COUNT=$i

top=$(cd "$(dirname "$0")/.." && pwd)
me=${0##*/}

die() {
	echo "$me: $*" >&2
	exit 1
}

say() {
	echo "$me: $*" >&2
}

# The makes of the kernel must not see ARCH=, as it is for make run and make shell only.
arch=${ARCH:-x86}
case $arch/$me in
x86/* | x86_64/*) arch=x86 ;;
arm64/run | arm64/setup) ;;
arm64/*) die "ARCH=arm64 is for make run and make shell: see FLAVOUR=arm64 for make bzimage" ;;
*) die "ARCH=$arch: there is x86 and arm64" ;;
esac
unset ARCH
BASE=${BASE:-v7.3}
LINUX=${LINUX:-}
series=$top/patches/$BASE
if [ ! -f "$series/base" ]; then
	die "unknown BASE=$BASE: there is $(cd "$top/patches" && echo */base | sed 's#/base##g')"
fi
package='' suite='' version='' sha256='' kernel='' config='' config_sha256=''
# shellcheck source=/dev/null
. "$series/base"

# A kernel tree of the caller's gets a build directory of its own.
build=$top/build/$BASE
if [ -n "$LINUX" ]; then
	[ -d "$LINUX" ] || die "LINUX=$LINUX is not a directory"
	LINUX=$(cd "$LINUX" && pwd -P)
	build=$build-$(printf %s "$LINUX" | cksum | cut -d' ' -f1)
fi
tree=$build/linux
cache=${XDG_CACHE_HOME:-$HOME/.cache}/memory-hotplug
mkdir -p "$build/log"

# Without this trap a signal would skip the clean-up of trap EXIT.
trap 'exit 130' INT TERM HUP

# The patches of the series, TOPIC/SLUG.patch, a line each, in their order
patches() {
	grep -v '^#' "$series/series"
}

# What the series is, order and content
series_sum() {
	(cd "$series" && patches | xargs cat series | sha256sum | cut -d' ' -f1)
}

# controls_state ONTO LIST HEAD: what a branch of scripts/controls is made of, below HEAD
controls_state() {
	printf '%s\n%s %s\n' "$3" "$(git -C "$tree" rev-parse "$1^{commit}")" \
		"$(cd "$series/controls" && grep -v '^#' "$2" | xargs cat | sha256sum | cut -d' ' -f1)"
}

# A tree of the version that the series is for
check_kernel() {
	if ! [ -f "$1/Makefile" ] || ! [ -f "$1/mm/memory_hotplug.c" ]; then
		die "LINUX=$1 is not a kernel tree"
	fi
	has=$(awk '$1 == "VERSION" { v = $3 } $1 == "PATCHLEVEL" { print v "." $3; exit }' "$1/Makefile")
	[ "$has" = "$kernel" ] ||
		die "LINUX=$1 is v$has, this series is for v$kernel: see patches/ for others"
}

# The mirror that the machine's apt is set up with. $(...) is apt's own notation here.
# shellcheck disable=SC2016
debian_mirror() {
	mirrors=$(apt-get indextargets --format '$(ORIGIN) $(LABEL) $(REPO_URI)')
	echo "$mirrors" | awk '
		$1 == "Debian" && $2 == "Debian" { print $NF; found = 1; exit }
		NR == 1 { first = $NF }
		END { if (!found) print first }'
}

# need_space DIR MIB: stop before a full disk leaves half a file.
need_space() {
	free=$(df -Pm "$1" | awk 'NR == 2 { print $4 }')
	[ "$free" -ge "$2" ] ||
		die "no space in $1: $free MiB free, $2 MiB needed"
}

# A job in the background does not see Ctrl-C, and its children outlive it.
kill_tree() {
	for child in $(pgrep -P "$1"); do
		kill_tree "$child"
	done
	kill "$1" 2>/dev/null || true
}

# Those of ours that are still there: not a process that has the number of one now.
kill_children() {
	for child in $(pgrep -P $$); do
		kill_tree "$child"
	done
}

# step TEXT LOG COMMAND...: run COMMAND with its output in LOG. A terminal
# shows how far it is: the last line of LOG and the time so far. When it fails,
# $hint, if set, tells what else can be done.
# Its variables are step_*, those of the caller stay as they are.
hint=
step() {
	step_text=$1 step_log=$2
	shift 2
	step_start=$(date +%s)
	"$@" > "$step_log" 2>&1 &
	step_job=$!
	trap 'kill_tree $step_job; wait $step_job 2>/dev/null || true; die "$step_text: interrupted"' INT TERM HUP
	while [ -t 2 ] && kill -0 $step_job 2>/dev/null; do
		printf '\r\033[K%s: %s, %d s: %.50s' "$me" "$step_text" \
			"$(($(date +%s) - step_start))" "$(tail -n 1 "$step_log")" >&2
		sleep 1
	done
	step_status=0
	wait $step_job || step_status=$?
	trap 'exit 130' INT TERM HUP
	[ ! -t 2 ] || printf '\r\033[K' >&2
	if [ $step_status -ne 0 ]; then
		step_why=$(grep -m 1 -E 'error:|Error |No space|fatal:|\*\*\*|^[EW]: Failed' "$step_log" ||
			tail -n 1 "$step_log")
		die "$step_text failed: $step_why; log: $step_log${hint:+; $hint}"
	fi
	say "$step_text: $(($(date +%s) - step_start)) s"
}

# The architecture of a flavour, as the kernel calls it, and the image that is booted
arch_of() {
	case $1 in
	arm64 | *-arm64) echo arm64 ;;
	*) echo x86 ;;
	esac
}

image_of() {
	case $(arch_of "$1") in
	arm64) echo "$build/$1/arch/arm64/boot/Image" ;;
	*) echo "$build/$1/arch/x86/boot/bzImage" ;;
	esac
}

# compiler_cache ARCH: sets $cc and $cross. Equal sources make equal objects, in
# whatever directory they are.
compiler_cache() {
	export KBUILD_BUILD_TIMESTAMP=1970-01-01 KBUILD_BUILD_USER=memory KBUILD_BUILD_HOST=hotplug
	export CCACHE_DIR="$cache/ccache" CCACHE_BASEDIR="$top/build" CCACHE_NOHASHDIR=1 CCACHE_MAXSIZE=4G
	# Not in depend mode, which does not see .incbin: piggy.S has the kernel itself by
	# that, so a kernel got another one whose compressed length was the same. The
	# namespace leaves behind what the cache has from then.
	export CCACHE_NAMESPACE=incbin
	cross=
	[ "$1" != arm64 ] || cross=aarch64-linux-gnu-
	cc=${cross}gcc
	if command -v ccache > /dev/null; then cc="ccache $cc"; fi
}

# lost_lines FRAGMENT CONFIG: the lines of a Kconfig fragment that CONFIG has not.
lost_lines() {
	grep -E '^(# )?CONFIG_' "$1" | awk -v config="$2" '
		BEGIN {
			while ((getline line < config) > 0) {
				has[line]
				sub(/=.*/, "", line)
				set[line]
			}
		}
		/^#/ { if ($2 in set) print $2 "=n"; next }
		!($0 in has)' | tr '\n' ' '
}

# new_worktree DIR COMMIT: another source tree of the same repository. -f -f: one that
# was interrupted stays locked.
new_worktree() {
	need_space "$build" 3000
	mkdir -p "$build/src"
	git -C "$tree" worktree prune
	step "check out ${1##*/}" "$build/log/worktree" \
		git -C "$tree" worktree add -f -f --detach "$1" "$2"
}
