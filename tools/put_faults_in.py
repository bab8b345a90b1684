"""Puts faults into a copy of the checkout, one at a time, and says which test notices each.

    python -m tools.put_faults_in [--only NAME …] [--area AREA …] [--tests TEST …] [-x]

The copy lies in a temporary folder with nothing beside it, as a fresh clone does. A fault names the
tests that should notice it; they are run first, and the whole suite only where none of them does.
All of them are run once without a fault before, so that one that always fails counts for nothing.
The table in tests/README.md is brought up to date with what was found. The exit code is 1 if a
fault went unnoticed, or if the code or the tests have moved away from under one: its old text has
to occur in its file exactly once, and its tests have to be there.
"""

import argparse
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tools.faults import FAULTS, Fault

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "tests/README.md"
START, END = "<!-- faults -->", "<!-- end of faults -->"
LIMIT_S = 1800


@dataclasses.dataclass(frozen=True)
class Session:
    """The outcome of a run of pytest."""

    passed: bool
    failed_test: str
    output: str


def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.put_faults_in", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", nargs="+", metavar="NAME", help="faults; all if not given")
    parser.add_argument("--area", nargs="+", help="areas of faults; all if not given")
    parser.add_argument("--tests", nargs="+", help="run these in place of those that a fault names")
    parser.add_argument("-x", action="store_true", help="stop at the first unnoticed fault")
    options = parser.parse_args(arguments)
    chosen = [
        fault
        for fault in FAULTS
        if (not options.only or fault.name in options.only)
        and (not options.area or fault.area in options.area)
    ]
    problems = anchor_problems(FAULTS) + unknown_names(options.only or (), options.area or ())
    if problems or not chosen:
        print("\n".join(problems or ["no such fault"]), file=sys.stderr)
        return 1
    noticed: dict[str, str] = {}
    unnoticed: list[str] = []
    with tempfile.TemporaryDirectory(prefix="faults_") as folder:
        copy = Path(folder) / "clone"
        copy_checkout(copy)
        tests = list(dict.fromkeys(options.tests or [t for fault in chosen for t in fault.tests]))
        print(f"{len(tests)} tests without a fault …", flush=True)
        session = run_tests(copy, tests)
        if not session.passed:
            print(f"{session.output}\nThey must pass without a fault.", file=sys.stderr)
            return 1
        for fault in chosen:
            test = who_notices(fault, copy, options.tests)
            print(f"{fault.area}: {fault.name}: {test or 'NOT NOTICED'}", flush=True)
            if test:
                noticed[fault.name] = test
            else:
                unnoticed.append(fault.name)
                if options.x:
                    break
    update_readme(noticed, unnoticed)
    print(f"{len(noticed)} of {len(noticed) + len(unnoticed)} noticed")
    return int(bool(unnoticed))


def anchor_problems(faults: Iterable[Fault]) -> list[str]:
    """Returns a line for each text or test of a fault that is not where the fault says."""
    problems = []
    for fault in faults:
        count = (REPOSITORY / fault.file).read_text(encoding="utf-8").count(fault.old)
        if count != 1 or fault.old == fault.new:
            problems.append(f"{fault.name}: {count} times in {fault.file}: {fault.old!r}")
        for test in fault.tests:
            path, _, name = test.partition("::")
            text = (REPOSITORY / path).read_text(encoding="utf-8")
            if name and f"def {name.partition('[')[0]}(" not in text:
                problems.append(f"{fault.name}: there is no test {test}")
    return problems


def unknown_names(names: Iterable[str], areas: Iterable[str]) -> list[str]:
    """Returns a line for each that no fault has."""
    unknown = [name for name in names if name not in {fault.name for fault in FAULTS}]
    unknown += [area for area in areas if area not in {fault.area for fault in FAULTS}]
    return [f"no fault or area is called {name!r}" for name in unknown]


def copy_checkout(folder: Path) -> None:
    """Copies what git tracks or would track, as it is in the working tree."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        source, target = REPOSITORY / name, folder / name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def who_notices(fault: Fault, copy: Path, tests: Sequence[str] | None) -> str:
    """Returns the first test that fails with the fault in the copy; "" where none does."""
    file = copy / fault.file
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole.replace(fault.old, fault.new), encoding="utf-8")
    try:
        session = run_tests(copy, tests or fault.tests)
        if session.passed and not tests:
            session = run_tests(copy, [])
        return session.failed_test
    finally:
        file.write_text(whole, encoding="utf-8")


def run_tests(copy: Path, tests: Sequence[str]) -> Session:
    """Runs tests of the copy, all that are not slow where none is named, until one fails.

    Raises:
      RuntimeError: pytest could not run them, which says nothing about a fault.
    """
    compiled = os.environ.get("ER_JAX_TEST_CACHE") or str(copy.parent / "compiled")
    environment = os.environ | {
        "ER_JAX_TEST_CACHE": compiled,  # what no fault touches is compiled once
        "PYTHONDONTWRITEBYTECODE": "1",  # no old bytecode of a file changed in the same second
        "PYTHONPATH": str(copy),
    }
    command = [sys.executable, "-m", "pytest", "-x", "--no-header", "-p", "no:cacheprovider"]
    command += ["--ignore=tests/test_put_faults_in.py"]  # which a fault moves the code away from
    try:
        ended = subprocess.run(
            [*command, *tests],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return Session(False, f"(not ended after {LIMIT_S} s)", "")
    output = ended.stdout[-5000:] + ended.stderr[-2000:]
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", ended.stdout, re.MULTILINE)
    if ended.returncode not in (0, 1) or (ended.returncode and not found):
        raise RuntimeError(f"pytest ended with {ended.returncode}:\n{output}")
    return Session(ended.returncode == 0, found[1] if found else "", output)


def update_readme(noticed: dict[str, str], unnoticed: Sequence[str]) -> None:
    """Writes the table with what was found, and what stood there of the faults not put in."""
    text = README.read_text(encoding="utf-8")
    head, rest = text.split(START)
    table, tail = rest.split(END)
    before = {
        row[1]: row[2] for row in re.finditer(r"^\| .* \| (.*) \| `?(.*?)`? \|$", table, re.M)
    }
    found = before | noticed | dict.fromkeys(unnoticed, "")
    lines = ["", "| area | fault | the test that notices |", "| --- | --- | --- |"]
    lines += [
        f"| {fault.area} | {fault.name} | {_code(found.get(fault.name, ''))} |" for fault in FAULTS
    ]
    README.write_text("\n".join([head + START, *lines, "", END + tail]), encoding="utf-8")


def _code(test: str) -> str:
    return f"`{test}`" if test and not test.startswith("none") else "none yet"


if __name__ == "__main__":
    sys.exit(main())
