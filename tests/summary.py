#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Add up JUnit files: say what was skipped and why, what passed only when repeated, then one closing line.

A JUnit file of ctest has the last try of each test and nothing of those before.  The log of the same run has them
all; it lies beside the file, under the same name with .log.  Without it no test counts as repeated.
"""
import pathlib
import re
import sys
import xml.etree.ElementTree as ET

# CMake's cmCTestRunTest.cxx writes this line once for each try.
START = re.compile(r'"(.+)" start time: ')
# What a test wrote itself stands between these two; it need not end with a line.
OUTPUT, END = "Output:\n", "<end of output>\n"


def count_tries(junit):
    """How often each test of a run was started, by name."""
    log = pathlib.Path(junit).with_suffix(".log")
    tries, told = {}, False
    for line in log.read_text(errors="replace").splitlines(keepends=True) if log.exists() else ():
        told = line == OUTPUT or (told and not line.endswith(END))
        start = None if told else START.match(line)
        if start:
            tries[start[1]] = tries.get(start[1], 0) + 1
    return tries


def main(paths):
    passed = failed = skipped = repeated = 0
    for path in paths:
        tries = count_tries(path)
        for case in ET.parse(path).getroot().iter("testcase"):
            name = case.get("name")
            if case.find("failure") is not None:
                failed += 1
                print(f"failed:  {name}  ({path})")
            elif case.find("skipped") is not None or case.get("status") in ("notrun", "disabled"):
                skipped += 1
                lines = (case.findtext("system-out") or "").strip().splitlines()
                why = next((l for l in reversed(lines) if "skip" in l.lower()), "no reason given")
                print(f"skipped: {name}: {why.strip()}")
            else:
                passed += 1
                if tries.get(name, 1) > 1:
                    repeated += 1
                    print(f"repeated: {name}: passed at try {tries[name]}  ({path})")
    if repeated:
        print(f"passed only when repeated: {repeated}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main([p for p in sys.argv[1:] if not p.endswith("*.xml")]))
