"""Runs tests of the standard library and says each one's result as a JSON line on stdout.

It is the program that `honest_work.py` starts outside and inside of a sandbox, so it imports
nothing but the standard library. What the tests themselves print goes to stderr.

    honest_record.py MODULE [TEST ID...]
"""

# ruff: noqa: N802  (the names are those of unittest)

import json
import os
import sys
import unittest


class Recorder(unittest.TestResult):
    """One line for a test that begins, one for its result; a failed subtest fails its test."""

    def __init__(self, fd):
        super().__init__()
        self._fd = fd
        self._results = {}

    def say(self, **line):
        os.write(self._fd, json.dumps(line).encode() + b"\n")

    def startTest(self, test):
        super().startTest(test)
        self.say(begins=test.id())

    def stopTest(self, test):
        super().stopTest(test)
        result, why = self._results.pop(test.id(), ("ok", ""))
        self.say(test=test.id(), result=result, why=why)

    def _found(self, test, result, why=""):
        self._results.setdefault(test.id(), (result, why))
        if not isinstance(test, unittest.TestCase):  # a class' or a module's own fixture
            result, why = self._results.pop(test.id())
            self.say(test=test.id(), result=result, why=why)

    def addError(self, test, err):
        self._found(test, "error", self._text(err, test))

    def addFailure(self, test, err):
        self._found(test, "failed", self._text(err, test))

    def addSkip(self, test, reason):
        self._found(test, "skipped", reason)

    def addExpectedFailure(self, test, err):
        self._found(test, "failed as expected")

    def addUnexpectedSuccess(self, test):
        self._found(test, "ok unexpectedly")

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self._results[test.id()] = ("failed", self._text(err, subtest))

    def _text(self, err, test):
        text = self._exc_info_to_string(err, test)
        sys.stderr.write(f"{test.id()}\n{text}\n")
        return text[-2000:]


def tests_of(suite):
    for each in suite:
        if isinstance(each, unittest.TestSuite):
            yield from tests_of(each)
        else:
            yield each


def main():
    module, *wanted = sys.argv[1:]
    # Children and tests that write to stdout must not write between the lines.
    said = os.dup(1)
    os.dup2(2, 1)
    from test import support

    # Everything but what needs the internet, a screen, loudspeakers or gigabytes of disk.
    support.use_resources = ["cpu", "subprocess", "curses", "decimal", "walltime"]
    recorder = Recorder(said)
    try:
        suite = unittest.defaultTestLoader.loadTestsFromName(module)
    except unittest.SkipTest as skip:
        recorder.say(test=module, result="skipped", why=str(skip))
        suite = unittest.TestSuite()
    if wanted:
        suite = unittest.TestSuite(test for test in tests_of(suite) if test.id() in set(wanted))
    suite.run(recorder)
    os.write(said, b'{"finished": true}\n')


if __name__ == "__main__":
    main()
