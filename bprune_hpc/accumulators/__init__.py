"""Exact, order-free sums over draws of what a network predicts: integers, so that any order is one.

May import: ``posterior``, ``compiled``, ``errors``, ``_typing``. Begin with
``classification``; ``binned`` holds the integers behind ``regression``.
"""
