"""The Monte Carlo sweep on all ranks: what there is to do, who does what, and the sums.

May import: ``config``, ``metrics``, ``evaluators``, ``checkpoints`` and all below them. Begin with
``preparation`` for what a sweep is, with ``loop`` for how it runs: rank 0's ``coordinator`` says
what is next, each rank's ``worker`` does it.
"""
