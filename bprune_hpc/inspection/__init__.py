"""What is in a checkpoint, tensor by tensor: numbers, text, figure.

May import: ``checkpoints``, ``graph``, ``posterior``, ``errors``. Begin with ``tensors``.
"""
