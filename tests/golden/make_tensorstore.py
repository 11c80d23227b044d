"""Makes tests/golden/tensorstore with the library that Orbax writes with: tensorstore 0.1.

Run once, in an environment of its own, from this folder; the result is kept in the repository.
An OCDBT database with numbered manifests, and Blosc's codecs and shuffles; `_METADATA` is only the
mark of Orbax. Beside each lies what was written ("weight NAME").
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
import tensorstore as ts

HERE = Path(__file__).parent / "tensorstore"
# TensorStore may write the place of a database into it: one that says nothing.
PLACE = Path(tempfile.gettempdir()) / "runs"
shutil.rmtree(PLACE, ignore_errors=True)
draw = np.random.default_rng(0)


def write(spec, array):
    open_spec = {**spec, "create": True, "dtype": "float32"}
    ts.open(open_spec, shape=list(array.shape)).result().write(array).result()


def keep(name, arrays):
    shutil.copytree(PLACE / name, HERE / name)
    np.savez_compressed(
        HERE / f"{name}.expected.npz", **{f"weight {k}": v for k, v in arrays.items()}
    )


HERE.mkdir(exist_ok=True)
config = {"manifest_kind": "numbered", "max_decoded_node_bytes": 400, "max_inline_value_bytes": 50}
base = {"driver": "ocdbt", "base": f"file://{PLACE}/numbered_7/", "config": config}
arrays = {}
for name in "abcde":
    arrays[name] = draw.standard_normal((6, 5)).astype("f4")
    where = {**base, "path": f"params.{name}.kernel/"}
    write({"driver": "zarr3", "kvstore": where}, arrays[name])
keep("numbered_7", arrays)


def blosc(folder, kinds):
    arrays = {}
    for codec, shuffle in kinds:
        name = f"{codec}_{shuffle}"
        arrays[name] = (draw.standard_normal((40, 24)).cumsum(0) * 10).round(1).astype("f4")
        how = {"id": "blosc", "cname": codec, "clevel": 5, "shuffle": shuffle, "blocksize": 0}
        where = {"driver": "file", "path": f"{PLACE}/{folder}/params.{name}.kernel/"}
        metadata = {"compressor": how, "chunks": [30, 24]}
        write({"driver": "zarr", "kvstore": where, "metadata": metadata}, arrays[name])
    (PLACE / folder / "_METADATA").write_text("{}")
    keep(folder, arrays)


blosc("blosc_7", [*(("lz4", n) for n in range(3)), ("lz4hc", 1), ("zstd", 1), ("zlib", 2)])
blosc("snappy_7", [("snappy", 1)])
