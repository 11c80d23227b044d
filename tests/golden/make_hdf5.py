"""Makes tests/golden/hdf5 with h5py 3.14.0 (HDF5 1.14.6): layouts of every age, and hostile files.

Run once, in an environment of its own, from this folder; the result is kept in the repository:

    python -m pip install h5py==3.14.0 numpy
    python make_hdf5.py

The `layers` files hold one small network in Keras' own order of groups; expected.npz has the arrays
as h5py reads them back.
"""

from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).parent / "hdf5"
HERE.mkdir(exist_ok=True)
draw = np.random.default_rng(0)
ARRAYS = {f"dense_{i}": draw.normal(size=(3, 2)).astype(np.float32) for i in range(12)}
ARRAYS |= {"half": draw.normal(size=(2, 5)).astype(np.float16), "double": draw.normal(size=(4, 1))}
ARRAYS |= {"chunked": draw.normal(size=(10, 7)).astype(np.float32)}


def layers(name, *, chunks=True, **how):
    with h5py.File(HERE / name, "w", **how) as file:
        file.attrs["layer_names"] = [n.encode() for n in ARRAYS]
        for number in range(12):  # more than an object header holds in newer layouts
            file.attrs[f"note {number}"] = f"text {number} " * 3
        for key, array in ARRAYS.items():
            group = file.create_group(key)
            group.attrs["weight_names"] = [f"{key}/kernel:0".encode()]
            packed = {}
            if key == "chunked" and chunks:
                packed = {"chunks": (4, 3), "compression": "gzip", "shuffle": True}
                packed["fletcher32"] = True
            group.create_dataset(f"{key}/kernel:0", data=array, **packed)


layers("earliest.h5", libver="earliest")
layers("v108.h5", libver="v108", track_order=True)
layers("v110.h5", libver="v110", chunks=False)
with h5py.File(HERE / "v108.h5") as file:
    np.savez(HERE / "expected.npz", **{k: file[k][f"{k}/kernel:0"][()] for k in ARRAYS})


def indices():
    """Every kind of index since HDF5 1.10, two of them long enough to be cut into pages."""
    kinds = {
        "single": ((5, 6), (5, 6), None), "fixed": ((10, 7), (4, 3), (12, 30)),
        "pages": ((1100,), (1,), None), "extensible": ((6, 40), (3, 1), (6, None)),
        "blocks": ((700,), (1,), (None,)), "tree": ((30, 28), (4, 3), (None, None)),
        "implicit": ((10, 7), (4, 3), None),
    }  # fmt: skip
    arrays, draw = {}, np.random.default_rng(1)
    with h5py.File(HERE / "v110_chunks.h5", "w", libver="v110") as file:
        names = [*kinds, *(f"{n}_packed" for n in kinds if n not in ("pages", "implicit"))]
        file.attrs["layer_names"] = [name.encode() for name in names]
        for name in names:
            shape, chunks, most = kinds[name.removesuffix("_packed")]
            group = file.create_group(name)
            group.attrs["weight_names"] = [b"kernel:0"]
            how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            how.set_chunk(chunks)
            if name == "implicit":
                how.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            if name.endswith("packed"):
                how.set_shuffle()
                how.set_deflate(4)
            limits = most and tuple(h5py.h5s.UNLIMITED if n is None else n for n in most)
            space = h5py.h5s.create_simple(shape, limits)
            made = h5py.h5d.create(group.id, b"kernel:0", h5py.h5t.IEEE_F32LE, space, how)
            arrays[name] = draw.normal(size=shape).astype(np.float32)
            h5py.Dataset(made)[...] = arrays[name]
    np.savez_compressed(HERE / "expected_chunks.npz", **arrays)


def hostile(name, make):
    with h5py.File(HERE / f"hostile_{name}.h5", "w") as file:
        file.attrs["layer_names"] = [b"a"]
        group = file.create_group("a")
        group.attrs["weight_names"] = [b"w:0"]
        make(file, group)


def external_storage(file, group):
    group.create_dataset("w:0", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def virtual(file, group):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,))
    group.create_virtual_dataset("w:0", layout)


def giant(file, group):
    group.create_dataset("w:0", (1 << 20, 1 << 20), "f4", chunks=(1 << 20, 1 << 8))


def bomb(file, group):
    group.create_dataset("w:0", data=np.zeros((1 << 22,), np.uint8), compression="gzip")


def committed(file, group):
    file["type"] = np.dtype("f4")
    group.create_dataset("w:0", (4,), file["type"])
    del file["type"]


def compound(file, group):
    group.create_dataset("w:0", (4,), np.dtype([("x", "f4"), ("y", "i4")]))


def never_written(file, group):
    group.create_dataset("w:0", (4,), "f4")


hostile("soft_link", lambda f, g: g.__setitem__("w:0", h5py.SoftLink("/other")))
hostile("external_link", lambda f, g: g.__setitem__("w:0", h5py.ExternalLink("/etc/passwd", "/x")))
hostile("cycle", lambda f, g: g.__setitem__("w:0", g))
hostile("lzf", lambda f, g: g.create_dataset("w:0", data=np.zeros((8,), "f4"), compression="lzf"))
hostile("big_endian", lambda f, g: g.create_dataset("w:0", data=np.zeros(4, ">f4")))
for make in (external_storage, virtual, giant, bomb, committed, compound, never_written):
    hostile(make.__name__, make)
indices()
