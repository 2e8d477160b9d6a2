# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2034,SC2154
# How scripts/test runs a test and reports it: TAP. It has sourced lib.sh.

passed=0 failed=0 skipped=0
flavours=

wanted() {
	[ -n "$only" ] || return 0
	for pattern in $only; do
		# shellcheck disable=SC2254
		case $1 in $pattern) return 0 ;; esac
	done
	return 1
}

# The kernel, the guest and the host are ours, so hardly anything may be skipped: what
# kernel memory of others is in the way of, and what a machine cannot install.
may_skip='kernel memory|cannot be installed'

# verdict ok|not ok|skip NAME [WHY]
verdict() {
	if [ "$1" = skip ] && ! echo "$3" | grep -qE "$may_skip"; then
		set -- not "$2" "must not be skipped: $3"
	fi
	case $1 in
	ok) passed=$((passed + 1)) ;;
	skip) skipped=$((skipped + 1)) ;;
	*) failed=$((failed + 1)) ;;
	esac
	number=$((passed + failed + skipped))
	case $1 in
	skip) echo "ok $number - $2 # SKIP $3" ;;
	ok) echo "ok $number - $2" ;;
	*) echo "not ok $number - $2${3:+ # $3}" ;;
	esac
}

# Build a flavour when the first test wants it, and the guest.
made() {
	case " $flavours " in *" $1 "*) return 0 ;; esac
	"$top/scripts/kernel" "$1" > /dev/null && initrd=$("$top/scripts/guest") || return 1
	flavours="$flavours $1"
}

# The limits are for a machine with nothing else to do; they only end what hangs.
patience=4
boot() {
	flavour=$1 log=$2 seconds=$(($3 * patience)) options=$4 command=$5
	rm -f "$log.out" "$log.err"
	if ! made "$flavour"; then
		echo "no kernel or no guest could be made, see above" | tee "$log.out" > "$log.err"
		return 70
	fi
	kernel=$build/$flavour/arch/x86/boot/bzImage
	status=0
	cat "$initrd" "$build/$flavour/modules.gz" > "$log.initrd"
	# The options are meant to split.
	# shellcheck disable=SC2086
	"$top/scripts/vm" --kernel "$kernel" --initrd "$log.initrd" --log "$log.console" \
		--timeout "$seconds" $options "$command" > "$log.out" 2> "$log.err" < /dev/null ||
		status=$?
	return $status
}

# vm_test NAME FLAVOUR SECONDS VM-OPTIONS COMMAND: what the command prints is
# TAP, a verdict a line; a program without TAP is one test, by its status.
vm_test() {
	name=$1-$2
	wanted "$name" || return 0
	log=$build/log/test-$name
	status=0
	boot "$2" "$log" "$3" "$4" "$5" || status=$?
	[ $status -ne 130 ] || die "interrupted"
	grep -E '^(not )?ok [0-9]' "$log.out" > "$log.tap" || true
	while read -r line; do
		text=${line#*ok }
		text="$name: ${text#* }"
		case $line in
		*'# SKIP'*) verdict skip "${text%% # SKIP*}" "${text##*# SKIP }" ;;
		ok*) verdict ok "$text" ;;
		*) verdict not "$text" "output: $log.out" ;;
		esac
	done < "$log.tap"
	planned=$(grep -E '^1\.\.[0-9]+$' "$log.out" | awk -F. '{ sum += $3 } END { print sum + 0 }')
	if [ $status -eq 70 ]; then
		verdict not "$name" "$(tail -n 1 "$log.err")"
	elif grep -q '^1\.\.0$' "$log.out"; then
		verdict not "$name" "a program ran no test at all; output: $log.out"
	elif [ ! -s "$log.tap" ]; then
		case $status in
		0) verdict ok "$name" ;;
		4) verdict skip "$name" "$(tail -n 1 "$log.out")" ;;
		*) verdict not "$name" "status $status: $(tail -n 1 "$log.out"); output: $log.out" ;;
		esac
	elif [ "$planned" -ne "$(wc -l < "$log.tap")" ]; then
		verdict not "$name" "$planned tests were planned, not that many ran; output: $log.out"
	elif [ $status -ne 0 ] && [ $status -ne 4 ] && ! grep -q '^not ok' "$log.tap"; then
		verdict not "$name" "status $status; output: $log.out"
	fi
}

# control_test NAME FLAVOUR SECONDS VM-OPTIONS PATTERN COMMAND: a kernel without
# the property; the command must fail, and PATTERN tell that it did so for it.
control_test() {
	name=$1-$2
	wanted "$name" || return 0
	log=$build/log/test-$name
	if boot "$2" "$log" "$3" "$4" "$6"; then
		verdict not "$name: must fail" "it passed; output: $log.out"
	elif grep -qE "$5" "$log.out" "$log.err"; then
		verdict ok "$name: fails as it must"
	else
		verdict not "$name: must fail with $5" "$(tail -n 1 "$log.err"); output: $log.out"
	fi
}

# Tests of the tools, on the host: TAP as well.
host_test() {
	wanted "$1" || return 0
	log=$build/log/test-$1
	status=0
	# It boots guests if it finds a kernel.
	made stack || true
	"$top/scripts/$1" > "$log.out" 2>&1 < /dev/null || status=$?
	grep -E '^(not )?ok [0-9]' "$log.out" > "$log.tap" || true
	if [ "$(grep -E '^1\.\.[0-9]+$' "$log.out")" != "1..$(wc -l < "$log.tap")" ]; then
		verdict not "$1" "not as many tests ran as were planned: $(tail -n 1 "$log.out"); output: $log.out"
	elif [ $status -ne 0 ] && ! grep -q '^not ok' "$log.tap"; then
		verdict not "$1" "status $status: $(tail -n 1 "$log.out"); output: $log.out"
	fi
	while read -r line; do
		text=${line#*ok }
		case $line in
		*'# SKIP'*) verdict skip "$1: ${text#* - }" "see $log.out" ;;
		ok*) verdict ok "$1: ${text#* - }" ;;
		*) verdict not "$1: ${text#* - }" "output: $log.out" ;;
		esac
	done < "$log.tap"
}
