"""Run many cases and count their outcomes by class."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import get_args

from tests.system.mutations.base import CODECS, make_base
from tests.system.mutations.cases import Subject, run_cases


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.system.mutations", description=__doc__)
    for flag in ("--dataset", "--run", "--folds", "--export"):
        parser.add_argument(flag, type=int, default=0, help="number of cases")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print the output of each fault")
    options = parser.parse_args()
    num_cases: dict[Subject, int] = {of: getattr(options, of) for of in get_args(Subject)}
    classes: dict[str, Counter[str]] = {}
    num_done = num_faulty = 0
    with tempfile.TemporaryDirectory(prefix="ckshard-mutations-") as folder:
        base = make_base(
            Path(folder),
            codecs=CODECS if options.dataset else ("jpg",),
            export=options.export > 0,
            folds=options.folds > 0,
        )
        numbers = {
            of: range(options.first, options.first + num) for of, num in num_cases.items() if num
        }
        try:
            for of in numbers:
                for result in run_cases(base, of, numbers[of], seed=options.seed):
                    outcome, kind = result.outcome, result.mutation.partition(" ")[0]
                    counts = classes.setdefault(f"{of} {kind}", Counter())
                    counts["cases"] += 1
                    counts["refused" if any(outcome.codes) else "accepted"] += 1
                    counts.update(outcome.faults)
                    if outcome.faults:
                        num_faulty += 1
                        print(of, result, flush=True)
                        if options.verbose:
                            output = outcome.output[-3000:].replace("\n", "\n    ")
                            print("    " + output, flush=True)
                    num_done += 1
                    if num_done % 50 == 0:
                        print(f"{num_done} of {sum(num_cases.values())}, {num_faulty} faulty")
        except KeyboardInterrupt:
            print("stopped")
    for name, counts in sorted(classes.items()):
        print(f"{name:32}", " ".join(f"{what} {count}" for what, count in counts.items()))
    total = sum(classes.values(), Counter())
    print("all", " ".join(f"{what} {count}" for what, count in total.items()))
    return 1 if num_faulty else 0


if __name__ == "__main__":
    sys.exit(main())
