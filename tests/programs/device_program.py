"""Started by ``mpirun`` in the tests: a sweep whose ranks see GPUs, which stand-ins are.

The first argument is how many.
"""

from __future__ import annotations

import sys

from bprune_hpc import sweep
from tests.helpers import logical_devices

if __name__ == "__main__":
    logical_devices.install(["stand-in"] * int(sys.argv[1]))
    sys.exit(sweep.main(sys.argv[2:]))
