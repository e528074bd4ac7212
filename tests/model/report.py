"""Run the models and print how many examples met each state and rule: `python tests/model/report.py [--long]`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import unittest
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "support"))

MODELS = ("breaker", "bulkhead", "retry", "together")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--long", action="store_true", help="many more examples, for some minutes")
    given = parser.parse_args()
    if given.long:
        os.environ["MODEL"] = "long"
    failed = False
    for name in MODELS:
        started = time.perf_counter()
        model = importlib.import_module(f"test_{name}_model")
        case = getattr(model, f"Test{name.capitalize()}Model")("runTest")
        result = unittest.TextTestRunner(verbosity=0, stream=sys.stdout).run(case)
        missing = importlib.import_module("tally").missing(name, model.WANTED)
        failed = failed or not result.wasSuccessful() or bool(given.long and missing)
        print(
            f"{name}: {time.perf_counter() - started:.0f} s; not reached: {', '.join(sorted(missing)) or 'nothing'}\n"
        )
    print("\n".join(importlib.import_module("tally").lines()))
    return failed


if __name__ == "__main__":
    sys.exit(main())
