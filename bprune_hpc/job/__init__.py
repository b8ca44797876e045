"""The batch job and its machine: signals, the end of the job, memory, versions, progress.

May import: ``mpi``, ``compiled``, ``sources``, ``errors``. Nothing is imported here:
``job.signals`` has to come before NumPy, MPI and TensorFlow, whose threads inherit what it blocks.
"""
