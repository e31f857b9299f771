"""Runs the checks without pytest, which an image with a GPU may lack: `python -m tests.gpu.run [--device cuda] [--only WORD]`.

A line of JSON for each, as soon as it is done: name, `passed`, seconds, and what went wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable, Mapping

import torch

from tests.gpu.checks import CHECKS


def run(checks: Mapping[str, Callable[[str], None]], device: str, report: Callable[[dict], None]) -> bool:
    """Runs them all, whatever fails; True if none did."""
    good = True
    for name, check in checks.items():
        started = time.perf_counter()
        result: dict = {"check": name, "passed": True}
        torch.manual_seed(0)
        try:
            check(device)
        except Exception as error:  # whatever it is, the next one runs
            good = False
            result |= {"passed": False, "error": f"{type(error).__name__}: {error}"[:500]}
            traceback.print_exc(file=sys.stderr)
        report({**result, "seconds": round(time.perf_counter() - started, 2)})
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", default="", help="checks whose name holds this")
    options = parser.parse_args()
    torch.set_num_threads(min(4, torch.get_num_threads()))  # the models are tiny
    checks = {name: check for name, check in CHECKS.items() if options.only in name}
    return 0 if run(checks, options.device, lambda result: print(json.dumps(result), flush=True)) else 1


if __name__ == "__main__":
    sys.exit(main())
