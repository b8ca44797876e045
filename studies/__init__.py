"""Published results, made again by the commands of the package: each study is one command.

    python -m studies.boston

A study trains, sweeps, draws a figure and writes its page of ``docs/studies``. With ``--quick
--output DIR`` it is small and writes to DIR alone. It ends with status 1 where a claim of its page
does not hold, and with 2 where data are missing.
"""
