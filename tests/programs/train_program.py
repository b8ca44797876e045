"""Started by ``mpirun`` in the tests: a training in which one rank fails at its second step."""

from __future__ import annotations

import sys

from bprune_hpc import train
from bprune_hpc.errors import BpruneError
from bprune_hpc.mpi.comm import Comm, run
from bprune_hpc.tensorflow_import import import_tensorflow
from bprune_hpc.training.config import parse
from bprune_hpc.training.noise import Noise


def command(comm: Comm) -> int:
    """Train with the arguments after the first, which is the rank that fails."""
    draw = Noise.next

    def failing(noise: Noise, n_examples: int) -> object:
        if comm.rank == int(sys.argv[1]) and noise.n_runs == 1:
            # Of all operations, those outside of sessions too, which make the pool of threads.
            assert import_tensorflow().config.threading.get_intra_op_parallelism_threads() == 1
            raise BpruneError("planted")
        return draw(noise, n_examples)

    Noise.next = failing
    return train.train(parse(sys.argv[2:], "train"), comm)[0]


if __name__ == "__main__":
    sys.exit(run(command))
