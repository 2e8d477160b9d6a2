# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2034,SC2154
# How scripts/test runs tests and reports them: TAP. It has sourced lib.sh.

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

# verdict ok|not|skip TEXT [WHY]: what a test has to say, for count.
verdict() {
	printf '%s\t%s\t%s\n' "$1" "$2" "${3:-}"
}

# The kernel, the guest and the host are ours, so hardly anything may be skipped: what
# kernel memory of others is in the way of, and what a machine cannot install.
may_skip='kernel memory|cannot be installed'

# count FILE: number and print its verdicts.
count() {
	while IFS='	' read -r kind text why; do
		if [ "$kind" = skip ] && ! echo "$why" | grep -qE "$may_skip"; then
			kind='not' why="must not be skipped: $why"
		fi
		case $kind in
		ok) passed=$((passed + 1)) ;;
		skip) skipped=$((skipped + 1)) ;;
		*) failed=$((failed + 1)) ;;
		esac
		number=$((passed + failed + skipped))
		case $kind in
		skip) echo "ok $number - $text # SKIP $why" ;;
		ok) echo "ok $number - $text" ;;
		*) echo "not ok $number - $text${why:+ # $why}" ;;
		esac
	done < "$1"
}

# Build a flavour when the first test wants it, and the guest.
made() {
	case " $flavours " in *" $1 "*) return 0 ;; esac
	"$top/scripts/kernel" "$1" > /dev/null &&
		"$top/scripts/guest" "$(arch_of "$1")" > /dev/null || return 1
	flavours="$flavours $1"
}

# Guests that wait leave their CPUs to others, and some have only one: run two at a
# time. jobs has NAME:PID of each.
guests=2 jobs=''

# evidence LOG: what a failed test printed last, and the console, beginning with the line
# that failed the guest, for a report that is read elsewhere.
evidence() {
	report=$(sed -n '$s/^vm: \(.*\); console log: .*/\1/p' "$1.err" 2>/dev/null) || true
	{ grep -a -B 20 '^not ok' "$1.out" || tail -n 20 "$1.out"; } 2>/dev/null |
		head -n 100 | sed 's/^/#   /'
	[ -z "$report" ] || grep -aF -A 250 -e "$report" "$1.console" | head -n 250 |
		tr -d '\r' | sed 's/^/#   /'
}

# collect: wait until one of them has ended, and count its verdicts.
collect() {
	ended=
	while [ -z "$ended" ]; do
		sleep 0.2
		others=
		for job in $jobs; do
			if [ -n "$ended" ] || kill -0 "${job#*:}" 2>/dev/null; then
				others="$others $job"
			else
				ended=${job%:*} status=0
				wait "${job#*:}" || status=$?
			fi
		done
		jobs=$others
	done
	[ "$status" -ne 130 ] || die "interrupted"
	verdicts=$build/log/test-$ended.verdicts
	if [ "$status" -ne 0 ] || [ ! -s "$verdicts" ]; then
		verdict not "$ended" "its run ended with status $status and no verdict" >> "$verdicts"
	fi
	before=$failed
	count "$verdicts"
	[ "$failed" -eq "$before" ] || evidence "${verdicts%.*}"
	echo "# $ended: $(cat "${verdicts%.*}.seconds" 2>/dev/null || echo ?) s"
}

collect_all() {
	while [ -n "$jobs" ]; do collect; done
}

# begin NAME FLAVOUR COMMAND...: run COMMAND, which prints verdicts, beside another test.
begin() {
	name=$1 flavour=$2
	shift 2
	wanted "$name" || return 0
	log=$build/log/test-$name
	rm -f "$log".*
	if ! made "$flavour"; then
		verdict not "$name" "no kernel or no guest could be made, see above" > "$log.verdicts"
		count "$log.verdicts"
		return 0
	fi
	while [ "$(echo "$jobs" | wc -w)" -ge $guests ]; do collect; done
	{
		start=$(date +%s)
		"$@"
		echo $(($(date +%s) - start)) > "$log.seconds"
	} > "$log.verdicts" &
	jobs="$jobs $name:$!"
}

# The limits are for a machine with nothing else to do; they only end what hangs.
patience=4
# boot SECONDS VM-OPTIONS COMMAND
boot() {
	cat "$("$top/scripts/guest" "$(arch_of "$flavour")")" "$build/$flavour/modules.gz" > "$log.initrd"
	status=0
	# The options are meant to split.
	# shellcheck disable=SC2086
	"$top/scripts/vm" --kernel "$(image_of "$flavour")" \
		--initrd "$log.initrd" --log "$log.console" --timeout $(($1 * patience)) $2 "$3" \
		> "$log.out" 2> "$log.err" < /dev/null || status=$?
	rm -f "$log.initrd"
	[ $status -ne 130 ] || exit 130
	return $status
}

# tap_verdicts PREFIX: those in log.tap.
tap_verdicts() {
	while read -r line; do
		text=${line#*ok }
		text="$1: ${text#* }"
		case $line in
		*'# SKIP'*) verdict skip "${text%% # SKIP*}" "${text##*# SKIP }" ;;
		ok*) verdict ok "$text" ;;
		*) verdict not "$text" "output: $log.out" ;;
		esac
	done < "$log.tap"
}

# vm_test NAME FLAVOUR SECONDS VM-OPTIONS COMMAND: what the command prints is
# TAP, a verdict a line; a program without TAP is one test, by its status.
vm_test() { begin "$1-$2" "$2" vm_verdicts "$@"; }
vm_verdicts() {
	status=0
	boot "$3" "$4" "$5" || status=$?
	grep -E '^(not )?ok [0-9]' "$log.out" > "$log.tap" || true
	tap_verdicts "$name"
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
control_test() { begin "$1-$2" "$2" control_verdict "$@"; }
control_verdict() {
	if boot "$3" "$4" "$6"; then
		verdict not "$name: must fail" "it passed; output: $log.out"
	elif grep -qE "$5" "$log.out" "$log.err"; then
		verdict ok "$name: fails as it must"
	else
		verdict not "$name: must fail with $5" "$(tail -n 1 "$log.err"); output: $log.out"
	fi
}

# host_test PROGRAM: of the tools, on the host: TAP as well. It boots the stack.
host_test() { begin "$1" stack host_verdicts "$1"; }
host_verdicts() {
	status=0
	"$top/scripts/$1" > "$log.out" 2>&1 < /dev/null || status=$?
	grep -E '^(not )?ok [0-9]' "$log.out" > "$log.tap" || true
	tap_verdicts "$1"
	if [ "$(grep -E '^1\.\.[0-9]+$' "$log.out")" != "1..$(wc -l < "$log.tap")" ]; then
		verdict not "$1" "not as many tests ran as were planned: $(tail -n 1 "$log.out"); output: $log.out"
	elif [ $status -ne 0 ] && ! grep -q '^not ok' "$log.tap"; then
		verdict not "$1" "status $status: $(tail -n 1 "$log.out"); output: $log.out"
	fi
}
