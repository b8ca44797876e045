"""A training run: its settings, its graph, what is written of it.

May import: ``config``, ``models``, ``data``, ``job`` and below. Begin with ``train.py``, then
``graph``.
"""
