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
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--of", choices=get_args(Subject), default="dataset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbose", action="store_true", help="print the output of each fault")
    options = parser.parse_args()
    classes: dict[str, Counter[str]] = {}
    num_faulty = 0
    with tempfile.TemporaryDirectory(prefix="ckshard-mutations-") as folder:
        base = make_base(
            Path(folder),
            codecs=CODECS if options.of == "dataset" else ("jpg",),
            export=options.of == "export",
            folds=options.of == "folds",
        )
        numbers = range(options.first, options.first + options.cases)
        try:
            for result in run_cases(base, options.of, numbers, seed=options.seed):
                outcome = result.outcome
                counts = classes.setdefault(result.mutation.partition(" ")[0], Counter())
                counts["cases"] += 1
                counts["refused" if any(outcome.codes) else "accepted"] += 1
                counts.update(outcome.faults)
                if outcome.faults:
                    num_faulty += 1
                    print(result, flush=True)
                    if options.verbose:
                        print("    " + outcome.output[-3000:].replace("\n", "\n    "), flush=True)
                if (done := result.number + 1 - options.first) % 50 == 0:
                    print(f"{done} of {options.cases}, {num_faulty} faulty", flush=True)
        except KeyboardInterrupt:
            print("stopped")
    for name, counts in sorted(classes.items()):
        print(f"{name:24}", " ".join(f"{what} {count}" for what, count in counts.items()))
    total = sum(classes.values(), Counter())
    print("all", " ".join(f"{what} {count}" for what, count in total.items()))
    return 1 if num_faulty else 0


if __name__ == "__main__":
    sys.exit(main())
