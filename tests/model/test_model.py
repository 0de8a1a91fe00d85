# SPDX-License-Identifier: Apache-2.0
"""
The model of the migration protocol: it has the states and rows of migration/mig_fsm.c, spin finds
nothing wrong with it in any of its states, and spin does find what is wrong with each mutant.

Exit code: 0 all passed, 1 something failed, 77 spin is not installed.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
MODEL = SOURCE / "tests" / "model" / "migration.pml"
FSM_C = SOURCE / "migration" / "mig_fsm.c"
FSM_H = SOURCE / "migration" / "mig_fsm.h"
DEPTH = 10000

TWO = "src_runs&&dst_runs"
NO_LOCK = "locks=="
HANGS_OR_NONE = "src_crashed"

# Mutant, options besides it, what spin has to say is violated.
MUTANTS = (
    ("RESUME_AFTER_COMMIT", ["-DNO_LOCKS"], TWO),
    ("ABORT_AFTER_COMMIT", ["-DNO_LOCKS"], TWO),
    ("START_BEFORE_COMMIT", ["-DNO_LOCKS"], TWO),
    ("ABORT_BEFORE_DISCARD", ["-DNO_LOCKS"], TWO),
    ("NEVER_IS_NOT_BINDING", ["-DNO_LOCKS"], TWO),
    ("LOST_BY_GUESS", ["-DNO_LOCKS"], TWO),
    ("RESUME_WITHOUT_LOCKS", [], NO_LOCK),
    ("RESUME_ON_WRITTEN_DISKS", [], "written"),
    ("NOBODY_RESOLVES", [], HANGS_OR_NONE),
)


def mtypes(text):
    return [re.findall(r"\w+", body) for body in re.findall(r"mtype\s*=\s*\{([^}]*)\}", text)]


def c_enum(text, name, prefix):
    body = re.search(r"enum " + name + r" \{(.*?)\n\};", text, re.S).group(1)
    return re.findall(r"\bMIG_(" + prefix + r"\w+)", re.sub(r"/\*.*?\*/", "", body, flags=re.S))


def c_rows(text):
    """{(end, direction, from, message, to)} of both tables."""
    rows = re.findall(r"\b(IN|OUT)\(((?:SRC|DST)_\w+), (\w+), ((?:SRC|DST)_\w+)\)", text)
    return {(a[:3], way, a, msg, b) for way, a, msg, b in rows}


def model_rows(text):
    text = re.sub(r"#ifdef MUTANT_.*?#(else|endif)", "", text, flags=re.S)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#define"))
    rows = re.findall(r"\b(SRC|DST)_(IN|OUT)\((\w+), (\w+), (\w+)\)", text)
    found = {(end, way, a, msg, b) for end, way, a, msg, b in rows if a != "from"}
    for end, state in re.findall(r"\b(SRC|DST)_GIVES_UP\((\w+)\)", text):
        found |= {(end, way, state, "ABORT", f"{end}_FAILED") for way in ("IN", "OUT")}
    return found


def spin(options):
    """Searches all states.  Return: pan's report."""
    with tempfile.TemporaryDirectory(prefix="model.") as where:
        def run(*command):
            done = subprocess.run(command, cwd=where, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT, text=True, timeout=300)
            if done.returncode:
                raise AssertionError(f"{' '.join(command)}: {done.stdout}")
            return done.stdout
        run("spin", "-a", *options, str(MODEL))
        run(os.environ.get("CC", "cc"), "-O0", "-w", "-DSAFETY", "-o", "pan", "pan.c")
        return run("./pan", f"-m{DEPTH}")


class NamesTest(unittest.TestCase):
    def test_states_and_messages_are_those_of_the_code(self):
        model = mtypes(MODEL.read_text())
        header = FSM_H.read_text()
        self.assertEqual(model[0], c_enum(header, "mig_source_state", "SRC_"))
        self.assertEqual(model[1], c_enum(header, "mig_dest_state", "DST_"))
        self.assertEqual(set(model[2]), {row[3] for row in c_rows(FSM_C.read_text())})

    def test_rows_are_those_of_the_code(self):
        code, model = c_rows(FSM_C.read_text()), model_rows(MODEL.read_text())
        self.assertGreater(len(code), 50)
        self.assertEqual(code - model, set(), "in mig_fsm.c only")
        self.assertEqual(model - code, set(), "in the model only")


class SearchTest(unittest.TestCase):
    def setUp(self):
        if not shutil.which("spin"):
            self.skipTest("spin is not installed")

    def is_right(self, options):
        report = spin(options)
        self.assertRegex(report, r"errors: 0\b", report)
        self.assertIn("Full statespace search", report)
        self.assertNotIn("max search depth too small", report)
        # Whatever can be done is done somewhere, but the ends of loops and empty else branches.
        never = re.findall(r"state \d+, \"(.*)\"", report)
        self.assertEqual([s for s in never if s not in ("-end-", "(1)", "(0)")], [])
        print(f"\n{' '.join(options) or 'with locks'}: "
              f"{re.search(r'([0-9.e+]+) states, stored', report).group(1)} states, no error")

    def test_with_locks(self):
        self.is_right([])

    def test_without_locks(self):
        self.is_right(["-DNO_LOCKS"])

    def test_every_mutant_is_found(self):
        named = set(re.findall(r"MUTANT_([A-Z_]+)", MODEL.read_text()))
        self.assertEqual(named, {name for name, _, _ in MUTANTS})
        for name, options, violated in MUTANTS:
            report = spin([f"-DMUTANT_{name}", *options])
            what = re.search(r"assertion violated (.*)", report)
            self.assertTrue(what, f"{name} is not found")
            self.assertIn(violated, what.group(1).replace(" ", ""), name)
            print(f"\n{name}: {what.group(1)}")


if __name__ == "__main__":
    outcome = unittest.main(exit=False, verbosity=2).result
    if not outcome.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if outcome.skipped else 0)
