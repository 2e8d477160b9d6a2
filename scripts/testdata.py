# SPDX-License-Identifier: GPL-2.0
"""What tests/*.tests say, what a run of a test says, and the tables made of both.

See Documentation/testing.md for the files. A section is "NAME", "NAME on FLAVOUR" or
"NAME with SWITCH", and what it does not set comes from NAME.
"""

import configparser
import fnmatch
import glob
import os
import re
import shlex
from dataclasses import dataclass

FIELDS = {"checks", "run", "vm", "on", "quick", "last", "limit", "gib", "skips",
          "fails", "says", "dies", "boot", "off"}
MAY_SKIP = re.compile("kernel memory|cannot be installed")
SWITCHES = "/sys/module/memhp_control/parameters/on"


@dataclass
class Test:
    name: str           # as in the file
    flavour: str
    switch: str         # of the kernel, to turn on
    checks: str
    run: str            # the command
    vm: list            # options of scripts/vm
    quick: bool         # in a section with several flavours, of the stack
    last: bool          # leaves kernel memory behind: after all others of its guest
    limit: int          # in seconds, on a machine with nothing else to do
    gib: int            # of the host's memory
    skips: int          # so many results may be skipped
    fails: list         # a control: these results fail, and no others
    says: str           # and their output has this
    dies: str           # a control: the guest is gone, and its console has this
    boot: bool          # the switch is for the boot
    off: bool           # with the switch off, all results pass

    @property
    def id(self):
        return f"{self.name}-{self.flavour}" + (f"+{self.switch}" if self.switch else "")

    @property
    def control(self):
        return bool(self.fails or self.dies)

    @property
    def key(self):
        """Tests with the same one can share a guest."""
        boot = ["--append", f"memhp_control.on={self.switch}"] if self.boot else []
        return self.flavour, tuple(self.vm + boot)

    @property
    def own(self):
        """What counts instructions, and what kills its guest, has one of its own."""
        return "--icount" in self.vm or self.boot or self.flavour == "host"

    def wanted(self, patterns, quick):
        if patterns:
            return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns
                       for name in (self.name, self.id))
        return self.quick or not quick


def load(folder):
    """All tests, in the order of the files; ValueError for what is wrong in them."""
    raw = {}
    for path in sorted(glob.glob(folder + "/*.tests")):
        parser = configparser.RawConfigParser(strict=True, delimiters=("=",),
                                              comment_prefixes=("#",), empty_lines_in_values=False)
        parser.optionxform = str
        parser.read(path)
        for section in parser.sections():
            if section in raw:
                raise ValueError(f"{path}: [{section}] is there twice")
            raw[section] = dict(parser[section], topic=os.path.basename(path)[:-6])
    options = raw.pop("options", {})
    tests = []
    for section, own in raw.items():
        match = re.fullmatch(r"(\S+)(?: with (\S+))?(?: on (\S+))?", section)
        if not match:
            raise ValueError(f"[{section}] is not NAME [with SWITCH] [on FLAVOUR]")
        name, switch, flavour = match.groups(default="")
        wrong = own.keys() - FIELDS - {"topic"}
        if wrong:
            raise ValueError(f"[{section}]: unknown {', '.join(sorted(wrong))}")
        general = {k: v for k, v in raw.get(name, {}).items() if k not in ("on", "quick")}
        get = {**general, **own}.get
        if not get("run") or not get("checks"):
            raise ValueError(f"[{section}] has no run or no checks")
        flavours = [flavour] if flavour else ["control"] if switch else get("on", "stack").split()
        for kind in flavours:
            vm = [options[f"@{kind}"]] if f"@{kind}" in options else []
            for word in shlex.split(get("vm", "")):
                vm.append(options[word] if word[0] == "@" else shlex.quote(word))
            tests.append(Test(
                name, kind, switch, get("checks"), " ".join(get("run").split("\n")),
                shlex.split(" ".join(vm)),
                get("quick") == "yes" and (bool(switch or flavour) or kind in ("stack", "host")), get("last") == "yes",
                int(get("limit", 900)), int(get("gib", 3)), int(get("skips", 0)),
                get("fails", "").split("\n") if get("fails") else [], get("says", ""),
                get("dies", ""), get("boot") == "yes",
                bool(switch) and get("off") != "any"))
            tests[-1].topic = own["topic"]
    return tests


def results(test, status, output):
    """[(ok | not | skip, text, why)] of what a command printed: TAP, or nothing of it."""
    found, planned = [], None
    for line in output.splitlines():
        match = re.match(r"1\.\.(\d+)$", line)
        if match:
            planned = (planned or 0) + int(match[1])
        match = re.match(r"(not )?ok \d+ (?:- )?(.*?)(?: # SKIP ?(.*))?$", line)
        if match:
            found.append(("not" if match[1] else "ok" if match[3] is None else "skip",
                          match[2], match[3] or ""))
    end = (output.strip().splitlines() or ["no output"])[-1]
    if planned == 0 or re.search(r"^1\.\.0$", output, re.M):
        found.append(("not", test.name, "a program ran no test at all"))
    elif not found and planned is None:
        found.append(("ok" if status == 0 else "skip" if status == 4 else "not",
                      test.name, "" if status == 0 else f"status {status}: {end}"))
    elif planned != len(found):
        found.append(("not", test.name, f"{planned} tests were planned, {len(found)} ran"))
    elif status not in (0, 4) and not any(kind == "not" for kind, *_ in found):
        found.append(("not", test.name, f"status {status}"))
    allowed = test.skips
    for n, (kind, text, why) in enumerate(found):
        if kind == "skip":
            allowed -= 1
            if allowed < 0 or not MAY_SKIP.search(why):
                found[n] = ("not", text, f"must not be skipped: {why}")
    return found


def named(pattern, text):
    """A result is named as the program does, or by what is behind its last dot."""
    return any(fnmatch.fnmatchcase(name, pattern) for name in (text, text.split(".")[-1]))


def unlike(test, found):
    """How the results of a control differ from what it names, '' if they do not."""
    for kind, text, why in found:
        # Not a result, but that there are none: a program that cannot run proves nothing.
        if kind == "not" and text == test.name and not test.says:
            return f"it has no results: {why}"
    failed = [text for kind, text, _ in found if kind == "not"]
    more = [text for text in failed if not any(named(p, text) for p in test.fails)]
    less = [text for kind, text, _ in found if kind != "not" and
            any(named(p, text) for p in test.fails)]
    less += [p for p in test.fails if not any(named(p, text) for _, text, _ in found)]
    return "; ".join(([f"fails but should not: {', '.join(more)}"] if more else []) +
                     ([f"does not fail: {', '.join(less)}"] if less else []))


def tables(tests):
    """Of Documentation/testing.md: what is tested, and what was seen to fail."""
    where = {}
    for test in tests:
        if not test.control:
            entry = where.setdefault((test.topic, test.name, test.checks), [])
            entry.append(test.flavour + (f" with {test.switch}" if test.switch else "") +
                         (" (quick)" if test.quick else ""))
    lines = ["| topic | test | where | what it checks |", "|---|---|---|---|"]
    lines += [f"| {topic} | {name} | {', '.join(kinds)} | {checks} |"
              for (topic, name, checks), kinds in where.items()]
    proof = ["| property | kernel | switch | test | what fails |", "|---|---|---|---|---|"]
    for test in tests:
        if test.control:
            what = f"the guest: `{test.dies}`" if test.dies else ", ".join(test.fails)
            what = what.replace("|", "\\|").replace("*", "\\*" if not test.dies else "*")
            proof.append(f"| {test.checks} | {test.flavour} | {test.switch} | {test.name} | {what} |")
    return "\n".join(lines), "\n".join(proof)
