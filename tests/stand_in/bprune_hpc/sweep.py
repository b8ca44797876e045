"""Counts draws on all ranks; stops and goes on as a sweep does.

``--at_most`` is the number of draws of one job, ``--draw_s`` the time of one.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# The project's own: its signals are part of what is tested.
_REAL = Path(__file__).resolve().parents[3] / "bprune_hpc"


def main() -> int:
    """Run; 0 if all draws are done, 3 if some are."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("stop_signals", _REAL / "job/signals.py")
    assert spec and spec.loader
    stop_signals = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(stop_signals)
    signals = stop_signals.start()

    from mpi4py import MPI

    arguments = {}
    for argument in sys.argv[1:]:
        if argument.startswith("@"):
            lines = Path(argument[1:]).read_text().split()
            arguments.update(line.split("=", 1) for line in lines)
        else:
            arguments.update([argument.split("=", 1)])
    world, output = MPI.COMM_WORLD, Path(arguments["--output"])
    n_draws = int(arguments["--num_monte_carlo"])
    left_s = float(os.environ["BPRUNE_END_TIME"]) - time.time()
    until = int(arguments.get("--at_most", n_draws))
    gpus = world.gather(os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
    if world.rank == 0:
        print("GPUs of ranks:", *gpus)
        print(
            f"{world.size} ranks, {os.environ.get('OMP_NUM_THREADS')} threads, {left_s:.0f} s left"
        )
        print("arguments:", *sys.argv[1:], sep="\n  ", flush=True)
    before = int(output.read_text().split("/")[0].split()[-1]) if output.exists() else 0
    done, stop = before, until == 0
    world.Barrier()
    while done < n_draws and not stop:
        time.sleep(float(arguments.get("--draw_s", 0)))
        done += 1
        is_enough = signals.seen is not None or done - before == until
        stop = world.allreduce(is_enough, op=MPI.MAX)
        if world.rank == 0:
            new = output.with_suffix(".new")
            status = "complete" if done == n_draws else "partial"
            new.write_text(f"{status} {done}/{n_draws} draws\n")
            new.rename(output)
    return 0 if done == n_draws else 3


if __name__ == "__main__":
    sys.exit(main())
