"""From sums over draws to numbers with errors and intervals, and the decisions made on them.

May import: ``accumulators``, ``posterior``, ``compiled``, ``errors``, ``_typing``. Begin with
``definitions``, every metric of both tasks, and ``tasks``; ``classification`` and ``regression``
hold the statistics of each.
"""
