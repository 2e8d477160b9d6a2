# SPDX-License-Identifier: GPL-2.0
"""Run tests in a pool of guests; scripts/test starts it.

One worker builds the kernels in the order in which tests need them. The others hold a
guest each and run what shares it, until a test fails or leaves the guest other than it
was after boot. A test that fails is run again in a guest of its own: that it passes
there is said, and counts as a failure all the same.
"""

import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import testdata

TOP, BUILD = sys.argv[1:3]
LOG = BUILD + "/log"
PATIENCE = 4            # the limits only end what hangs
BOOT_SECONDS = 400 * PATIENCE
VM_FAILED = 70
# What a test may not leave changed in a guest that others use
STATE = ("cd /sys/devices/system/memory; grep -H MemTotal /proc/meminfo; cat auto_online_blocks;"
         " grep . memory*/state; ls /sys/bus/virtio/devices /sys/bus/pci/devices /sys/bus/nd/devices;"
         " cut -d' ' -f1,3 /proc/modules; cat /proc/sys/kernel/modules_disabled "
         + testdata.SWITCHES)
children = set()


class Broken(Exception):
    """The guest is gone; in one line, why."""


def start(command, **more):
    proc = subprocess.Popen(command, **more)
    children.add(proc)
    return proc


class Guest:
    numbers = itertools.count(1)

    def __init__(self, test, kernel):
        self.key, self.log = test.key, f"{LOG}/guest-{next(Guest.numbers)}"
        image, initrd = kernel
        with open(self.log + ".err", "w") as err:
            self.proc = start([TOP + "/scripts/vm", "--session", "--kernel", image, "--initrd",
                               initrd, "--log", self.log + ".console", "--boot-timeout",
                               str(BOOT_SECONDS), *test.key[1]], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=err, text=True)

    def answer(self):
        line = self.proc.stdout.readline().strip()
        if line:
            return line
        self.close()
        with open(self.log + ".err") as err:
            said = [line for line in err.read().splitlines() if line.startswith("vm: ")]
        raise Broken((said or ["vm: it ended without a word"])[-1][4:].split("; console log")[0])

    def boot(self):
        self.answer()
        self.state = self.look()

    def run(self, command, limit, out):
        """The status of a command; its output goes behind what is in the file out."""
        try:
            self.proc.stdin.write(json.dumps({"command": command, "out": out,
                                              "seconds": limit * PATIENCE}) + "\n")
            self.proc.stdin.flush()
        except OSError:
            pass                # answer() says how it ended
        return int(self.answer())

    def look(self):
        path = self.log + ".state"
        open(path, "w").close()
        self.run(STATE, 300, path)
        with open(path) as file:
            return file.read().splitlines()

    def console(self):
        try:
            with open(self.log + ".console", errors="replace") as file:
                return file.read()
        except OSError:
            return ""

    def close(self):
        if self.proc.poll() is None:
            self.proc.terminate()
        self.proc.wait()
        children.discard(self.proc)


class Attempt:
    """One run of a test in a guest: verdicts, and what to show of it."""

    def __init__(self, test, log):
        self.test, self.log, self.verdicts, self.broken = test, log, [], ""
        self.seconds, self.said, self.console_at = 0, "", 0

    def command(self, guest, switch):
        """Results of the test's command, with the switch as told."""
        command, out = self.test.run, self.log + ".out"
        turn = f"echo '{{}}' > {testdata.SWITCHES} || exit 99; "
        if switch and not self.test.boot:
            # The status is that of the command, whatever the switch is set to after it.
            command = f"{turn.format(switch)}({command}); status=$?; {turn.format('')}exit $status"
        at = os.path.getsize(out)
        try:
            status = guest.run(command, self.test.limit, out)
        finally:
            with open(out, errors="replace") as file:
                file.seek(at)
                self.said = file.read()
        if status == 99:
            raise Broken(f"there is no switch {switch}")
        return testdata.results(self.test, status, self.said)

    def run(self, guest, kernel):
        """Fills in the verdicts; returns the guest if others can go on in it."""
        test, begin = self.test, time.monotonic()
        open(self.log + ".out", "w").close()
        try:
            if not guest:
                guest = Guest(test, kernel)
                guest.boot()
            self.console_at = len(guest.console())
            if test.control:
                guest = self.pair(guest, kernel)
            else:
                self.verdicts = self.command(guest, test.switch)
            alive = guest.proc.poll() is None
            left = guest.look() if alive and self.good and not test.own else None
            if left is not None and left != guest.state:
                print(f"# {test.id} leaves its guest changed: " + "; ".join(
                    sorted(set(left) ^ set(guest.state))[:4]), flush=True)
                left = None
        except Broken as err:
            self.broken, left = str(err), None
            # With a switch that is for the boot, it may not even come up.
            died = test.boot and self.died(guest)
            self.verdicts.append(("ok" if died else "not", test.name, "" if died else self.broken))
        with open(self.log + ".console", "w") as file:
            file.write(guest.console()[self.console_at:])
        self.seconds = time.monotonic() - begin
        if left is None:
            guest.close()
            return None
        return guest

    def pair(self, guest, kernel):
        """Off: all results pass. On: exactly those that are named fail. Returns the guest."""
        test, off = self.test, None
        if test.off and not test.boot:
            off = self.command(guest, "")
            bad = [text for kind, text, _ in off if kind == "not"]
            if bad:
                self.verdicts = [("not", "with the switch off", f"{', '.join(bad)} failed")]
                return guest
            if test.own or guest.look() != guest.state:
                guest.close()
                guest = Guest(test, kernel)
                guest.boot()
                self.console_at = 0
        try:
            found = self.command(guest, test.switch)
            why = testdata.unlike(test, found)
            if not test.fails:
                why = "the guest lives on"
            elif off and len(off) != len(found):
                why = why or f"{len(found)} results in place of {len(off)}"
            elif test.says and not re.search(test.says, self.said):
                why = why or f"it does not say {test.says}"
        except Broken as err:
            self.broken, why = str(err), f"the guest died: {err}"
            if self.died(guest):
                why = ""
        text = "fails as it must: " + (test.dies or ", ".join(test.fails))
        self.verdicts = [("not" if why else "ok", text, why)]
        return guest

    def died(self, guest):
        """Of what it must."""
        console = guest.console()[self.console_at:] + self.broken
        return bool(self.test.dies and re.search(self.test.dies, console))

    @property
    def good(self):
        return bool(self.verdicts) and all(kind != "not" for kind, *_ in self.verdicts)

    def evidence(self):
        """The end of the output, and the console from the report that failed the guest."""
        lines = self.said.splitlines()
        bad = [n for n, line in enumerate(lines) if line.startswith("not ok")]
        shown = [line for n, line in enumerate(lines) if any(m - 20 <= n <= m for m in bad)]
        shown = (shown or lines[-20:])[:100]
        if self.broken:
            with open(self.log + ".console") as file:
                console = file.read().splitlines()
            at = next((n for n, line in enumerate(console) if self.broken in line), len(console) - 40)
            shown += console[max(at, 0):at + 250]
        return shown


class Pool:
    """Tests that have not begun within MINUTES, if set, are skipped, by name."""

    def __init__(self, tests):
        self.until = time.monotonic() + 60 * float(os.environ.get("MINUTES") or "inf")
        self.todo, self.lock, self.kernels = tests, threading.Condition(), {}
        self.held, self.gib = {}, {}
        self.counts, self.failed = {"ok": 0, "not": 0, "skip": 0}, []
        self.room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30 - 2
        try:
            with open(LOG + "/seconds.json") as file:
                self.seconds = json.load(file)
        except (OSError, ValueError):
            self.seconds = {}

    def cost(self, test):
        return self.seconds.get(test.id, test.limit / 20)

    def say(self, test, verdicts, notes=()):
        with self.lock:
            for kind, text, why in verdicts:
                self.counts[kind] += 1
                number = sum(self.counts.values())
                end = f" # SKIP {why}" if kind == "skip" else f" # {why}" if why else ""
                print(f"{'not ok' if kind == 'not' else 'ok'} {number} - {test.id}: {text}{end}")
            if any(kind == "not" for kind, *_ in verdicts):
                self.failed.append(test.id)
            for note in notes:
                print("#", note)
            sys.stdout.flush()

    def build(self):
        """Each kernel and its guest: first the stack, then what most work waits for."""
        costs = {}
        for test in self.todo:
            costs[test.flavour] = costs.get(test.flavour, 0) + self.cost(test)
        for flavour in sorted(costs, key=lambda f: (f not in ("stack", "host"), -costs[f])):
            name = "stack" if flavour == "host" else flavour
            why = kernel = None
            try:
                image = self.path("kernel", name)
                guest = self.path("guest", "arm64" if name.endswith("arm64") else "x86")
                if flavour != "host":
                    initrd = f"{LOG}/initrd-{flavour}"
                    with open(initrd, "wb") as out:
                        for part in (guest, f"{BUILD}/{flavour}/modules.gz"):
                            with open(part, "rb") as file:
                                shutil.copyfileobj(file, out)
                    kernel = image, initrd
                xen = [t for t in self.todo if t.flavour == flavour and "XEN" in t.vm]
                if xen:
                    hypervisor = self.path("xen")
                    for test in xen:
                        test.vm = [hypervisor if word == "XEN" else word for word in test.vm]
            except (ValueError, OSError) as err:
                why = str(err)
            with self.lock:
                self.kernels[flavour] = kernel
                gone = [t for t in self.todo if t.flavour == flavour and
                        (why if not kernel and flavour != "host" else "XEN" in t.vm)]
                self.todo = [t for t in self.todo if t not in gone]
                self.lock.notify_all()
            for test in gone:
                self.say(test, [("skip", test.name, f"Xen cannot be installed: {why}")
                                if kernel else ("not", test.name, why)])

    @staticmethod
    def path(script, *args):
        proc = start(["nice", "-n", "5", f"{TOP}/scripts/{script}", *args],
                     stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        out, err = proc.communicate()
        children.discard(proc)
        if proc.returncode:
            raise ValueError((err.strip().splitlines() or [f"{script} failed"])[-1])
        return out.strip().splitlines()[-1]

    def pick(self, worker, held):
        """The next test of a worker, and None when there is none left."""
        with self.lock:
            self.held[worker] = self.gib[worker] = None
            while self.todo and time.monotonic() < self.until:
                free = self.room - sum(gib or 0 for gib in self.gib.values())
                ready = [t for t in self.todo if t.flavour in self.kernels and
                         (t.gib <= free or not any(self.gib.values()))]
                # What only its own guest is for comes when no other test can use this one.
                mine = [t for t in ready if t.key == held and not t.own]
                if not mine and ready:
                    work = {}
                    for test in ready:
                        work[test.key] = work.get(test.key, 0) + self.cost(test)
                    key = max(work, key=lambda k: work[k] / (1 + list(self.held.values()).count(k)))
                    mine = [t for t in ready if t.key == key]
                if mine:
                    test = min(mine, key=lambda t: (t.last, t.own))
                    self.todo.remove(test)
                    self.held[worker], self.gib[worker] = test.key, test.gib
                    return test
                self.lock.wait(5)
            self.lock.notify_all()
        return None

    def work(self, worker):
        guest = None
        while True:
            test = self.pick(worker, guest and guest.key)
            if guest and (not test or test.own or test.key != guest.key):
                guest.close()
                guest = None
            if not test:
                return
            log = f"{LOG}/test-{test.id}"
            try:
                if test.flavour == "host":
                    first = host_test(test, log)
                else:
                    first = Attempt(test, log)
                    guest = first.run(guest, self.kernels[test.flavour])
                verdicts, notes = first.verdicts, []
                if not first.good:
                    notes = ["  " + line for line in first.evidence()] + [f"output: {log}.out"]
                    if test.flavour != "host":
                        again = Attempt(test, log + ".again")
                        again_guest = again.run(None, self.kernels[test.flavour])
                        if again_guest:
                            again_guest.close()
                        if again.good:
                            verdicts = [(kind, text, ("flaky, passes in a fresh guest: " + why)
                                         if kind == "not" else why) for kind, text, why in verdicts]
                self.seconds[test.id] = first.seconds
                self.say(test, verdicts, [*notes, f"{test.id}: {first.seconds:.0f} s"])
            except Exception as err:    # a mistake of ours must not pass for a test that passed
                self.say(test, [("not", test.name, f"the runner: {err!r}")])
                guest = None


def host_test(test, log):
    attempt, begin = Attempt(test, log), time.monotonic()
    with open(log + ".out", "w") as out:
        proc = start(["sh", "-c", test.run], cwd=TOP, stdout=out, stderr=out,
                     stdin=subprocess.DEVNULL)
        status = proc.wait()
        children.discard(proc)
    with open(log + ".out", errors="replace") as file:
        attempt.said = file.read()
    attempt.verdicts = testdata.results(test, status, attempt.said)
    attempt.seconds = time.monotonic() - begin
    return attempt


def end(*_):
    """Nothing of ours stays behind."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for proc in list(children):
        proc.terminate()
    print("test: interrupted", file=sys.stderr)
    sys.stderr.flush()
    os._exit(130)


def main():
    patterns = sys.argv[3:]
    try:
        tests = testdata.load(TOP + "/tests")
    except (ValueError, KeyError, testdata.configparser.Error) as err:
        sys.exit(f"test: {err}")
    if patterns == ["--tables"]:
        return write_tables(tests)
    listed = "--list" in patterns
    patterns = [pattern for pattern in patterns if pattern != "--list"]
    tests = [t for t in tests if t.wanted(patterns, os.environ.get("ONLY_QUICK") == "1")]
    if not tests:
        sys.exit(f"test: no test is called {' '.join(patterns)}: scripts/test --list names them")
    if listed:
        print("\n".join(test.id for test in tests))
        return 0
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    seed = int(os.environ.get("SEED") or random.randrange(10**6))
    random.Random(seed).shuffle(tests)
    print(f"# {len(tests)} tests, SEED={seed}", flush=True)
    begin, pool = time.monotonic(), Pool(tests)
    threads = [threading.Thread(target=pool.build, daemon=True)]
    threads += [threading.Thread(target=pool.work, args=(n,), daemon=True)
                for n in range(os.cpu_count())]
    for thread in threads:
        thread.start()
    for thread in threads[1:]:
        while thread.is_alive():
            thread.join(1)
    # What is left had no time: no kernel is built for it any more.
    left, pool.todo = pool.todo, []
    for test in left:
        pool.say(test, [("skip", test.name, f"not begun within {os.environ['MINUTES']} minutes")])
    for proc in list(children):
        proc.terminate()
    with open(LOG + "/seconds.json", "w") as file:
        json.dump(pool.seconds, file, indent=1)
    print(f"# {time.monotonic() - begin:.0f} s, {next(Guest.numbers) - 1} guests, logs in {LOG}")
    for name in dict.fromkeys(pool.failed):
        print(f"# failed: {name}; again: make test T='{name}'")
    counts = pool.counts
    print(f"{counts['ok']} passed, {counts['not']} failed, {counts['skip']} skipped")
    return 1 if counts["not"] or not counts["ok"] else 0


def write_tables(tests):
    path = TOP + "/Documentation/testing.md"
    with open(path) as file:
        text = file.read()
    for name, table in zip(("tests", "controls"), testdata.tables(tests)):
        text = re.sub(f"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, t=table: m[1] + t + "\n" + m[2],
                      text, flags=re.S)
    with open(path, "w") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
