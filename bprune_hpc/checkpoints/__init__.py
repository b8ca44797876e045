"""Every file that holds a trained network, brought to one form and lifted: a ``Case``.

May import: ``graph``, ``posterior``, ``tensorflow_import``, ``sources``, ``errors``. Begin with
``case``, which tells the kinds apart; ``tf1``, ``tf2``, ``keras`` and ``saved_model`` open one
each.
"""
