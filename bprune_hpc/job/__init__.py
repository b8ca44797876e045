"""The batch job and its machine: signals, end of the job, memory, versions, GPUs, progress.

May import: ``mpi``, ``compiled``, ``tensorflow_import``, ``sources``, ``errors``.
Nothing is imported here: ``job.signals`` has to come before NumPy, MPI and TensorFlow, whose
threads inherit what it blocks.
"""
