"""What a command is asked to do: flags and argument files, checked once into a frozen record.

May import: ``metrics``, ``accumulators``, ``posterior``, ``data``, ``evaluators``, ``errors``.
Begin with ``sweep_config``.
"""
