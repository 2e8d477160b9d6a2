# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154
# Sourced by scripts/test, for its variables: tests on arm64, on a distribution's
# configuration, under Xen and on the debug kernel.

# arm64, emulated: what does not only depend on what all architectures share. Its guest
# has no lsmem.
vm_test tour arm64 600 "" tour
vm_test counters arm64 900 "" 'counters -T lsmem'
vm_test churn arm64 900 "" 'STEPS=40 churn'
vm_test virtio_mem arm64 900 "" 'STEPS=20 virtio_mem'
vm_test cost arm64 900 --icount 'bench bars 64'
control_test cost control-hugetlb-steps-arm64 900 --icount '^not ok .*offline' 'bench bars 64'
for program in 'counters -T lsmem' churn; do
	control_test "${program%% *}" control-managed-extra-arm64 900 "" 'instead of' "$program"
done

# Debian's own configuration of the base for virtual machines, which has what the others
# lack: configs/distribution.config. Memory goes online by itself there, unless it is told
# not to. Its hardening costs more throughout. QEMU counts what init_on_alloc writes by the
# byte, into the memmap of a device and into pages that a copy goes to: not here.
distro="--append memhp_default_state=offline"
features="$distro --append hugetlb_free_vmemmap=on --append page_alloc.shuffle=1"
vm_test tour distro 900 "$distro" tour
for program in device offline_used virtio_mem chmem_range refused readers reserves pcplists \
		removal compaction; do
	vm_test $program distro 1200 "$distro" $program
done
vm_test counters distro 1200 "$features" counters
vm_test churn distro 1800 "$features" 'STEPS=60 churn'
vm_test memory_owner distro 1200 "$spare $distro" memory_owner
vm_test on-off distro 1200 "$distro" "$on_off"
vm_test stress-ng distro 900 "$distro" "$stress"
vm_test churn-memmap-on-memory distro 1800 "$distro $on_memory" 'STEPS=30 churn'
vm_test churn-pmem distro 1800 "$distro $pmem" "export STEPS=30; $pmem_churn"
vm_test churn-nodes distro 1800 "$distro $nodes" 'STEPS=30 churn'
vm_test churn-2G distro 1800 "$distro --nodes 67G" 'STEPS=40 churn'
vm_test cost distro 900 "--icount $distro" 'BAR_PERCENT=135 bench bars 64'
bytes="$distro --append init_on_alloc=0"
vm_test cost-devices distro 1800 "--icount --memory 3G $bytes" 'BAR_PERCENT=170 bench device_bars 64'
vm_test cost-unplug distro 900 "--icount $bytes" 'BAR_PERCENT=140 bench unplug_bars 16'
vm_test cost-balloon distro 900 "--icount $bytes" 'BAR_PERCENT=180 bench_balloon size_bars'
vm_test cost-balloon-nodes distro 900 "$eight_nodes $bytes" 'BAR_PERCENT=180 bench_balloon size_bars'
vm_test cost-reporting distro 900 "$reporting $distro" 'bench_balloon reporting_bars'

# Xen itself in the guest, with the kernel as its dom0. Its memory is QEMU's; the
# kernel starts with 1 GiB of it.
if ! wanted xen_balloon-stack && ! wanted xen_balloon-control-xen-counters &&
   ! wanted xen_cost-stack && ! wanted xen_cost-base; then
	:
elif xen=$("$top/scripts/xen" 2> "$build/log/xen"); then
	dom0="--xen $xen --memory 5G --maxmem 8G"
	vm_test xen_balloon stack 3600 "$dom0" xen_balloon
	vm_test xen_cost stack 3600 "--icount $dom0" 'xen_cost bars'
	control_test xen_cost base 3600 "--icount $dom0" '^not ok' 'xen_cost bars'
	control_test xen_balloon control-xen-counters 3600 "$dom0" 'MemTotal: .* instead of' \
		'xen_balloon -t up_and_down'
else
	verdict skip xen "Xen cannot be installed: $(tail -n 1 "$build/log/xen")"
fi

# The debug kernel boots for a minute and does a step of churn in one or two seconds:
# so one guest, fewer steps and no bulk of pages; and no refused.unmovable, as it
# keeps stack traces in blocks of ZONE_NORMAL for good. For the same reason churn may
# leave a DIMM, which readers would take for the balloon's.
kunit='cd /sys/kernel/debug/kunit/hv_balloon && echo 1 > run && sed -n "s/^    //p" results && ! grep -q "^    not ok" results'
vm_test kselftest debug 2400 "" \
	"refused -t interrupted -t notifier && removal -t state_written && STEPS=5 readers &&
	STEPS=40 churn && $kunit"
vm_test removal-memmap-on-memory debug 1200 "$on_memory" 'removal -t state_written'
vm_test pcplists debug 1200 "" 'pcplists -t users_overlap -t bad_pages'
vm_test memory_owner debug 2400 "$spare" \
	'memory_owner -t holes -t refused -t unload -t unload_holes'
vm_test churn-odd-end debug 1800 "$odd_end" 'STEPS=30 churn'
vm_test virtio_mem debug 2400 "--bridges" \
	'STEPS=5 virtio_mem -t resize -t neighbours -t veto -t rebind -t random -t bad_page -t kernel_zone'
# Slots are few, as the firmware looks at each for every event.
vm_test faults debug 3600 "$spare --slots 4 --append kmemleak=on" \
	'FAULTS=900 faults -t state -t owner -t enough'
vm_test faults-refused debug 3600 "$spare --slots 4" 'FAULTS=220 faults -t veto -t signals -t cpus \
	-t host_refuses -t slots -t hard_pages -t enough'
vm_test faults-devices debug 3600 "$spare --slots 4" 'FAULTS=60 faults -t device_add \
	-t direct_map -t replug -t no_room -t device_del -t enough'
vm_test faults-virtio debug 3600 "$spare --slots 4 --bridges" 'FAULTS=220 faults -t virtio_mem \
	-t balloon -t enough'
# One pass may miss an allocation, see there.
first_adds='for pass in 1 2 3 4 5 6 7 8; do STEP=1 MAX=24 faults -t device_add || exit; done'
control_test faults control-resource-exists 3600 "--slots 4" \
	'WARNING: drivers/base/memory.c.* remove_memory_block_devices' "$first_adds"
control_test faults-platform-device control-platform-device 3600 "--slots 4" \
	'iomem: .* PNP0C80:00 instead of' "$first_adds"
control_test faults-direct-map control-direct-map-stays 1200 "$spare --slots 4" \
	'WARNING: arch/x86/include/asm/pgalloc.h' 'faults -t direct_map'
control_test faults-devices control-sections-stay 1200 "--slots 4" 'add sections again after' \
	'faults -t device_add'
control_test kselftest control-hv-gaps 1200 "" '^not ok .*online_in_parts' "$kunit"
control_test faults-refused control-isolated-stays 1200 "--slots 4" '^# Totals: pass:0 fail:2 ' \
	'faults -t veto -t hard_pages'
control_test faults-replug control-eject-handler 1200 "--slots 4" 'replug:Expected 0 .*dimm_seen' \
	'faults -t replug'
control_test removal control-block-devices-locked 1200 "" \
	'possible circular locking dependency' 'removal -t state_written'
control_test removal-memmap-on-memory control-block-devices-locked 1200 "$on_memory" \
	'possible circular locking dependency' 'removal -t state_written'
wrong='WARNING:.*zone_update_contiguous'
control_test churn-memmap-on-memory control-contiguous 900 "$on_memory" "$wrong" 'STEPS=20 churn'
control_test churn-odd-end control-contiguous 900 "$odd_end" "$wrong" 'STEPS=20 churn'
control_test churn-pmem control-contiguous 900 "$pmem" "$wrong" "export STEPS=20; $pmem_churn"
control_test churn-nodes control-contiguous 900 "$nodes" "$wrong" 'STEPS=20 churn'
control_test virtio_mem-memmap-on-memory control-contiguous 900 "$on_memory" "$wrong" \
	'virtio_mem -t neighbours'
