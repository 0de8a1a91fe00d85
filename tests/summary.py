#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Add up JUnit files: say what was skipped and why, then one closing line."""
import sys
import xml.etree.ElementTree as ET


def main(paths):
    passed = failed = skipped = 0
    for path in paths:
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
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main([p for p in sys.argv[1:] if not p.endswith("*.xml")]))
