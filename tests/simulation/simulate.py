"""Runs seeds, or one of them with its story: `make simulate SEEDS=1000`, `make simulate SEED=1234`."""

import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from os import cpu_count

from sim_run import Run


def faults_of(seed: int) -> tuple[int, list[str], str]:
    """Run a seed; gives it, what was wrong (an exception of the simulation's own included), and its trace's hash."""
    run = Run(seed)
    try:
        faults = run.go().faults
    except Exception as error:
        faults = [f"the run broke off: {error!r}"]
    return seed, faults, run.world.digest()


def tell(seed: int, faults: Iterable[str]) -> str:
    """Say what was wrong with a seed, and how to see it again."""
    lines = "\n".join(f"    {fault}" for fault in faults)
    return f"seed {seed} failed; replay it with: make simulate SEED={seed}\n{lines}"


def replay(seed: int) -> int:
    """Run one seed and tell its story; gives the exit code."""
    run = Run(seed).go()
    print(run.world.describe())
    print(run.world.story())
    print(tell(seed, run.faults) if run.faults else f"seed {seed}: nothing wrong")
    print(f"seed {seed} trace {run.world.digest()}")
    return 1 if run.faults else 0


def many(first: int, count: int) -> int:
    """Run many seeds, as many at a time as there are processors, and print the hash of each; gives the exit code."""
    began, failed = time.monotonic(), 0
    with ProcessPoolExecutor(cpu_count()) as pool:
        for seed, faults, digest in pool.map(faults_of, range(first, first + count), chunksize=4):
            print(f"seed {seed} trace {digest}", flush=True)
            if faults:
                failed += 1
                print(tell(seed, faults), flush=True)
    print(f"{count} seeds from {first} on, {failed} failed, {time.monotonic() - began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1] == "one":
        sys.exit(replay(int(sys.argv[2])))
    sys.exit(many(int(sys.argv[3]) if len(sys.argv) > 3 else 0, int(sys.argv[2])))
