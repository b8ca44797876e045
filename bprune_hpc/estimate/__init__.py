"""``--plan``: what a sweep will take in time, memory and disk, and what to submit.

May import: all but the commands. Begin with ``command``; ``pilot_run`` times draws, ``cost_model``
makes a forecast of them.
"""
