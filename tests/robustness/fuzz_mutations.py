"""Ways to damage a saved network, each a function of a random generator: bytes, tables, graphs.

What belongs here: the damage. What does not: opening what was damaged (``fuzz_cases``).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from bprune_hpc.checkpoints.saver_index import table as read_index
from tests.robustness.fuzz_index import write_index

Rng = np.random.Generator
GIANT = (2**20, 2**31 - 1, 2**40, 2**62)


def _where(data: bytes, rng: Rng, names: Collection[str]) -> int:
    """A position in a file; every second time near a node that the network is made of."""
    if names and rng.random() < 0.5:
        name = sorted(names)[rng.integers(len(names))].rpartition("/")[2].encode()
        found = data.find(name)
        if found >= 0:
            return min(found + int(rng.integers(-8, 120)), len(data) - 1) % len(data)
    return int(rng.integers(len(data)))


def flipped_bits(data: bytes, rng: Rng, names: Collection[str]) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        changed[_where(data, rng, names)] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def truncated(data: bytes, rng: Rng, names: Collection[str]) -> bytes:
    return data[: int(rng.integers(len(data)))]


def garbage(data: bytes, rng: Rng, names: Collection[str]) -> bytes:
    start, n_bytes = _where(data, rng, names), int(rng.integers(1, 64))
    filling = bytes(n_bytes) if rng.random() < 0.3 else rng.bytes(n_bytes)
    return (data[:start] + filling + data[start + n_bytes :])[: len(data)]


def shifted(data: bytes, rng: Rng, names: Collection[str]) -> bytes:
    """Bytes taken out, or some put in twice."""
    start, n_bytes = _where(data, rng, names), int(rng.integers(1, 200))
    if rng.random() < 0.5:
        return data[:start] + data[start + n_bytes :]
    return data[: start + n_bytes] + data[start:]


BYTES: dict[str, Callable[[bytes, Rng, Collection[str]], bytes]] = {
    "flipped bits": flipped_bits,
    "truncated": truncated,
    "garbage": garbage,
    "shifted": shifted,
}


# Entries of a checkpoint's index, with checksums made right again.


def index_entry(data: bytes, rng: Rng, kind: str) -> bytes:
    """One entry of an ``.index`` file changed; ``kind`` is of :data:`INDEX`."""
    from tensorflow.core.protobuf.tensor_bundle_pb2 import BundleEntryProto

    entries = read_index(data)
    keys = sorted(key for key in entries if key)
    key = keys[rng.integers(len(keys))]
    entry = BundleEntryProto.FromString(entries[key])
    if kind == "tensor renamed":
        del entries[key]
        key = key[:-1] + b"x" if rng.random() < 0.5 else b"other/" + key
    elif kind == "tensor dropped":
        del entries[key]
        return write_index(entries)
    elif kind == "tensors exchanged":
        other = keys[rng.integers(len(keys))]
        entries[key], entries[other] = entries[other], entries[key]
        return write_index(entries)
    elif kind == "wrong dtype":
        entry.dtype = int(rng.integers(0, 30))
    elif kind == "wrong shape":
        if entry.shape.dim and rng.random() < 0.7:
            dim = entry.shape.dim[rng.integers(len(entry.shape.dim))]
            dim.size = int(rng.choice([0, 1, dim.size + 1, dim.size * 2, -1]))
        else:
            entry.shape.dim.add(size=int(rng.integers(0, 4)))
    elif kind == "giant shape":
        for dim in entry.shape.dim:
            dim.size = int(rng.choice(GIANT))
        entry.shape.dim.add(size=int(rng.choice(GIANT)))
        if rng.random() < 0.5:
            entry.size = int(rng.choice(GIANT))
    elif kind == "giant rank":
        for _ in range(int(rng.choice([255, 300, 2**18]))):
            entry.shape.dim.add(size=1)
    else:  # "wrong place"
        which = rng.integers(3)
        if which == 0:
            entry.offset = int(rng.choice([entry.offset + 4, *GIANT, -8]))
        elif which == 1:
            entry.shard_id = int(rng.choice([1, 99999, -1]))
        else:
            entry.size = int(rng.choice([0, entry.size + 4, *GIANT, -8]))
    entries[key] = entry.SerializeToString()
    return write_index(entries)


INDEX = (
    "tensor renamed",
    "tensor dropped",
    "tensors exchanged",
    "wrong dtype",
    "wrong shape",
    "giant shape",
    "giant rank",
    "wrong place",
)


# Graphs.


def graph(graph_def: Any, rng: Rng, kind: str, names: Collection[str]) -> None:
    """One node of a GraphDef changed in place; ``kind`` is of :data:`GRAPH`."""
    functions = _called(graph_def, names) or list(graph_def.library.function)
    pools = [list(graph_def.node), *(list(f.node_def) for f in functions)]
    pools = [pool for pool in pools if pool]
    pool = pools[rng.integers(len(pools))] if rng.random() < 0.7 else pools[0]
    # A function's nodes lie under the names of the calls that lead to it.
    ends = {name[i:] for name in names for i in _starts(name)}
    needed = [node for node in pool if node.name in ends]
    candidates = needed if needed and rng.random() < 0.8 else pool
    _CHANGES[kind](graph_def, pool, candidates, rng)


def _called(graph_def: Any, names: Collection[str]) -> list[Any]:
    """Functions that the nodes the network is made of call, directly or not."""
    functions = {f.signature.name: f for f in graph_def.library.function}
    tops = {name.partition("/")[0] for name in names}
    waiting = [node for node in graph_def.node if node.name in tops and "f" in node.attr]
    found: dict[str, Any] = {}
    while waiting:
        name = waiting.pop().attr["f"].func.name
        if name in functions and name not in found:
            found[name] = functions[name]
            waiting += [n for n in functions[name].node_def if "f" in n.attr]
    return list(found.values())


def _starts(name: str) -> list[int]:
    return [0, *(i + 1 for i, letter in enumerate(name) if letter == "/")]


def _pick(nodes: list[Any], rng: Rng, suits: Callable[[Any], Any] = lambda node: True) -> Any:
    found = [node for node in nodes if suits(node)] or nodes
    return found[rng.integers(len(found))]


def _cycle(graph_def: Any, pool: list[Any], nodes: list[Any], rng: Rng) -> None:
    """A node takes data from one that is computed from it."""
    by_name = {node.name: node for node in pool}
    start = node = _pick(nodes, rng, lambda node: node.input)
    for _ in range(int(rng.integers(0, 6))):
        sources = [t.lstrip("^").partition(":")[0] for t in node.input]
        sources = [name for name in sources if name in by_name and by_name[name].input]
        if not sources:
            break
        node = by_name[sources[rng.integers(len(sources))]]
    if not node.input:
        node.input.append(start.name)
    is_body = pool[0].name not in {n.name for n in graph_def.node}
    node.input[rng.integers(len(node.input))] = f"{start.name}:output:0" if is_body else start.name


def _rewired(graph_def: Any, pool: list[Any], nodes: list[Any], rng: Rng) -> None:
    node = _pick(nodes, rng, lambda node: node.input)
    if node.input:
        name = _pick(pool, rng).name
        suffix = str(rng.choice(["", ":0", ":1", ":7", ":output:0", ":-1", ":x"]))
        node.input[rng.integers(len(node.input))] = name + suffix


def _input_count(graph_def: Any, pool: list[Any], nodes: list[Any], rng: Rng) -> None:
    node = _pick(nodes, rng, lambda node: node.input)
    if node.input and rng.random() < 0.6:
        del node.input[rng.integers(len(node.input))]
    else:
        node.input.append(_pick(pool, rng).name)


def _other_op(graph_def: Any, pool: list[Any], nodes: list[Any], rng: Rng) -> None:
    from tensorflow.python.framework import op_def_registry

    common = ["Relu", "Selu", "Sub", "Mul", "Conv2D", "Reshape", "Fill", "Tile", "Merge", "Switch"]
    common += ["Range", "RandomUniform", "Pow", "VarHandleOp", "Placeholder", "If", "While", "Pad"]
    node, other = _pick(nodes, rng), _pick(pool, rng)
    if rng.random() < 0.6:
        node.op = common[rng.integers(len(common))]
    else:
        node.op = other.op
    if op_def_registry.get(node.op) is None or rng.random() < 0.1:
        node.op = node.op[:-1]


def _node_name(graph_def: Any, pool: list[Any], nodes: list[Any], rng: Rng) -> None:
    node = _pick(nodes, rng)
    node.name = str(rng.choice([node.name + "x", _pick(pool, rng).name, "", "a b", "^a", "é:0"]))


def _dropped(graph_def: Any, pool: list[Any], nodes: list[Any], rng: Rng) -> None:
    gone = _pick(nodes, rng).name
    for owner in [graph_def.node, *(f.node_def for f in graph_def.library.function)]:
        for position, node in enumerate(owner):
            if node.name == gone:
                del owner[position]
                return


def _dtype(graph_def: Any, pool: list[Any], nodes: list[Any], rng: Rng) -> None:
    def types(node: Any) -> list[str]:
        return sorted(k for k, v in node.attr.items() if v.WhichOneof("value") == "type")

    node = _pick(nodes, rng, types)
    keys = types(node)
    if keys:
        value = int(rng.choice([0, 1, 2, 3, 7, 9, 10, 14, 19, 20, 21, 101, 104, 9999]))
        node.attr[keys[rng.integers(len(keys))]].type = value
    if node.op == "Const" and rng.random() < 0.5:
        node.attr["value"].tensor.dtype = int(rng.choice([0, 1, 2, 3, 7, 9, 20]))


def _attribute(graph_def: Any, pool: list[Any], nodes: list[Any], rng: Rng) -> None:
    """An attribute dropped, of another kind, or of a value that makes no sense."""
    node = _pick(nodes, rng, lambda node: node.attr)
    keys = sorted(node.attr)
    if not keys:
        return
    value = node.attr[keys[rng.integers(len(keys))]]
    what = rng.integers(4)
    if what == 0:
        del node.attr[keys[rng.integers(len(keys))]]
    elif what == 1:
        value.s = b"VALID\xff"
    elif what == 2:
        value.i = int(rng.choice([-1, 0, 2**31, 2**62]))
    elif value.WhichOneof("value") == "list" and value.list.i:
        value.list.i[rng.integers(len(value.list.i))] = int(rng.choice([0, -1, 2**31, 2**40]))
    else:
        value.list.i.extend([1, 2, 0])


def _giant(graph_def: Any, pool: list[Any], nodes: list[Any], rng: Rng) -> None:
    """A constant, or a shape, that declares more than any memory."""

    def is_declared(node: Any) -> bool:
        return node.op == "Const" or "shape" in node.attr

    node, giant = _pick(nodes, rng, is_declared), int(rng.choice(GIANT))
    if node.op == "Const":
        tensor = node.attr["value"].tensor
        if tensor.dtype in (3, 9) and rng.random() < 0.6:
            code = "<i4" if tensor.dtype == 3 else "<i8"
            size = max(1, int(np.prod([dim.size for dim in tensor.tensor_shape.dim])))
            largest = np.iinfo(code).max
            tensor.ClearField("int_val")
            tensor.ClearField("int64_val")
            tensor.tensor_content = np.full(size, min(giant, largest), code).tobytes()
            return
        for dim in tensor.tensor_shape.dim:
            dim.size = giant
        if not tensor.tensor_shape.dim or rng.random() < 0.5:
            tensor.tensor_shape.dim.add(size=giant)
        if rng.random() < 0.7:  # one number that stands for all
            tensor.tensor_content = b""
            for field in ("float_val", "int_val", "int64_val", "double_val"):
                tensor.ClearField(field)
            if tensor.dtype == 1:
                tensor.float_val.append(0.5)
    else:
        shape = node.attr["shape"].shape
        for dim in shape.dim:
            dim.size = giant
        shape.dim.add(size=giant)


def _giant_rank(graph_def: Any, pool: list[Any], nodes: list[Any], rng: Rng) -> None:
    """A shape with more axes than any tensor has: a vector of numbers, declared or computed."""

    def is_vector(node: Any) -> bool:
        tensor = node.attr["value"].tensor if node.op == "Const" else None
        return tensor is not None and tensor.dtype in (3, 9) and len(tensor.tensor_shape.dim) == 1

    def declares(node: Any) -> bool:
        return node.op == "Const" or "shape" in node.attr

    n_axes, what = int(rng.choice([2**18, 2**20, 2**22])), rng.integers(3)
    node = _pick(nodes, rng, declares if what == 2 else is_vector)
    if what == 2 and declares(node):
        is_tensor = node.op == "Const"
        shape = node.attr["value"].tensor.tensor_shape if is_tensor else node.attr["shape"].shape
        for _ in range(min(n_axes, 2**18)):
            shape.dim.add(size=1)
    elif not is_vector(node):
        _giant(graph_def, pool, nodes, rng)
    elif what == 0:
        tensor = node.attr["value"].tensor
        tensor.tensor_shape.dim[0].size = n_axes
        for field in ("tensor_content", "int_val", "int64_val"):
            tensor.ClearField(field)
    else:
        dtype = node.attr["dtype"].type
        owners = [graph_def.node, *(f.node_def for f in graph_def.library.function)]
        owner = next(o for o in owners if any(n.name == pool[0].name for n in o))
        suffix = "" if owner is owners[0] else ":output:0"
        for name, number in {"start": 0, "limit": n_axes, "delta": 1}.items():
            scalar = owner.add(name=f"{node.name}/{name}", op="Const")
            scalar.attr["dtype"].type = scalar.attr["value"].tensor.dtype = dtype
            field = "int_val" if dtype == 3 else "int64_val"
            getattr(scalar.attr["value"].tensor, field).append(number)
            node.input.append(scalar.name + suffix)
        node.op = "Range"
        node.attr.clear()
        node.attr["Tidx"].type = dtype


def _function(graph_def: Any, pool: list[Any], nodes: list[Any], rng: Rng) -> None:
    """A call of another function, of itself, or a function without its outputs."""
    library = [function for function in graph_def.library.function if function.node_def]
    if not library:
        _rewired(graph_def, pool, nodes, rng)
        return
    function = library[rng.integers(len(library))]
    what = rng.integers(4)
    calls = [n for f in library for n in f.node_def if "f" in n.attr]
    calls += [n for n in graph_def.node if "f" in n.attr]
    if what == 0 and calls:
        name = str(rng.choice([function.signature.name, "nowhere"]))
        calls[rng.integers(len(calls))].attr["f"].func.name = name
    elif what == 1 and function.ret:
        key = sorted(function.ret)[rng.integers(len(function.ret))]
        function.ret[key] = str(rng.choice(["nowhere:output:0", function.node_def[0].name, ""]))
    elif what == 2 and function.signature.input_arg:
        del function.signature.input_arg[0]
    else:
        function.signature.output_arg.add(name="more", type=1)


_CHANGES: dict[str, Callable[[Any, list[Any], list[Any], Rng], None]] = {
    "cycle": _cycle,
    "rewired": _rewired,
    "input count": _input_count,
    "other op": _other_op,
    "node renamed": _node_name,
    "node dropped": _dropped,
    "wrong dtype": _dtype,
    "wrong attribute": _attribute,
    "giant shape": _giant,
    "giant rank": _giant_rank,
    "function": _function,
}
GRAPH = tuple(_CHANGES)


# Keras files.


def keras(data: bytes, rng: Rng, kind: str, is_zip: bool) -> bytes:
    """One data set of a file of weights changed; ``kind`` is of :data:`KERAS`."""
    if not is_zip:
        return _hdf5(data, rng, kind)
    source = zipfile.ZipFile(io.BytesIO(data))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            how = zipfile.ZIP_STORED
            if name.endswith(".h5"):
                if kind == "giant archive":
                    content, how = content + bytes(300 << 20), zipfile.ZIP_DEFLATED
                else:
                    content = _hdf5(content, rng, kind)
            target.writestr(name, content, how)
    return out.getvalue()


def _hdf5(data: bytes, rng: Rng, kind: str) -> bytes:
    import h5py

    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, item: names.append(name) if hasattr(item, "shape") else None)
        name = names[rng.integers(len(names))]
        value = file[name][()]
        del file[name]
        if kind == "tensor renamed":
            file[name + "x"] = value
        elif kind == "wrong dtype":
            dtype = str(rng.choice(["f8", "i4", "S4", "c8"]))
            file[name] = value.astype(dtype)
        elif kind == "wrong shape":
            file[name] = np.concatenate([np.ravel(value), [0.0]])
        elif kind == "giant shape":
            shape = tuple(int(rng.choice([2**16, 2**20, 2**31])) for _ in range(2))
            file.create_dataset(name, shape, "f4", chunks=(16, 16), fillvalue=0.5)
        elif kind == "link":
            links = [h5py.SoftLink("/nowhere"), h5py.ExternalLink("/etc/hostname", "/a")]
            file[name] = links[rng.integers(2)]
        elif kind == "group":
            file.create_group(name)
    return buffer.getvalue()


KERAS = ("tensor renamed", "tensor dropped", "wrong dtype", "wrong shape", "giant shape", "link",
         "group", "giant archive")  # fmt: skip


def replace(place: Path, content: bytes) -> None:
    """Put a file's new content in place of the link to the undamaged one."""
    place.unlink()
    place.write_bytes(content)
