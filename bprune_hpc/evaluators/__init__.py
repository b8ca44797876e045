"""Forward passes ``f(x, weights)`` of a network under many draws: one interface, several ways.

May import: ``graph``, ``posterior``, ``compiled``, ``tensorflow_import``, ``errors``. Begin with
``interface``; ``graph`` (any network) is the plainest, ``selection`` chooses.
"""
