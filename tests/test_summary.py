#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""tests/summary.py over runs of ctest itself: what was repeated is told.  test_summary.py CTEST"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

CTEST = sys.argv.pop(1)
SUMMARY = pathlib.Path(__file__).with_name("summary.py")
# Fails until it was started {nr} times; says what ctest's log says, to see that it is not believed.
LATE = """add_test({name} sh -c "printf '\\"good\\" start time: \nx'; echo >>{name}; [ $(wc -l <{name}) -ge {nr} ]")\n"""
GOOD = 'add_test(good "true")\n'
SKIP = """add_test(skip sh -c "echo skipped: no moon; exit 77")
set_tests_properties(skip PROPERTIES SKIP_RETURN_CODE 77)\n"""


class Summary(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="test_summary."))
        self.addCleanup(shutil.rmtree, self.dir)

    def sum_up(self, tests, log=True):
        """Lines and exit code of the summary of one run of these tests."""
        (self.dir / "CTestTestfile.cmake").write_text(tests)
        junit = self.dir / "dev-unit.xml"
        subprocess.run([CTEST, "--repeat", "until-pass:3", "-j", "2", "--output-junit", junit], cwd=self.dir, check=False,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if log:
            shutil.copy(self.dir / "Testing/Temporary/LastTest.log", self.dir / "dev-unit.log")
        done = subprocess.run([sys.executable, SUMMARY, junit], capture_output=True, text=True, check=False)
        self.assertEqual(done.stderr, "")
        return done.stdout.splitlines(), done.returncode

    def test_what_passed_at_the_third_try_is_named_and_counted(self):
        lines, code = self.sum_up(GOOD + LATE.format(name="late", nr=3) + LATE.format(name="later", nr=2) + SKIP)
        self.assertEqual(code, 0)
        named = [re.sub(r"  \(.*", "", l) for l in lines]
        self.assertIn("repeated: late: passed at try 3", named)
        self.assertIn("repeated: later: passed at try 2", named)
        self.assertIn("skipped: skip: skipped: no moon", named)
        self.assertEqual(lines[-2:], ["passed only when repeated: 2", "3 passed, 0 failed, 1 skipped"])

    def test_what_fails_each_time_has_failed_and_is_not_repeated(self):
        lines, code = self.sum_up(GOOD + LATE.format(name="late", nr=4))
        self.assertEqual(code, 1)
        self.assertTrue(lines[0].startswith("failed:  late  ("), lines)
        self.assertEqual(lines[1:], ["1 passed, 1 failed, 0 skipped"])

    def test_a_run_in_which_all_pass_at_once_has_one_line(self):
        lines, code = self.sum_up(GOOD)
        self.assertEqual((lines, code), (["1 passed, 0 failed, 0 skipped"], 0))

    def test_a_report_without_a_log_is_added_up(self):
        lines, code = self.sum_up(GOOD + LATE.format(name="late", nr=2), log=False)
        self.assertEqual((lines, code), (["2 passed, 0 failed, 0 skipped"], 0))


if __name__ == "__main__":
    unittest.main()
