"""Reading a tree, the way stages read, can never change a blob."""

from __future__ import annotations

import mmap
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from resources.store.store import Store
from tests.resources.store.artifacts import key_of

NOBODY = 65534


def produce_model(folder: Path, scratch: Path) -> None:
    """Weights in every form that stages write them in."""
    import numpy
    import onnx
    from safetensors.numpy import save_file

    weights = numpy.arange(4096, dtype=numpy.float32).reshape(64, 64)
    save_file({"weights": weights}, folder / "model.safetensors")
    numpy.save(folder / "weights.npy", weights)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "weights"], ["y"])],
        "model",
        [value("x", onnx.TensorProto.FLOAT, [1, 64])],
        [value("y", onnx.TensorProto.FLOAT, [1, 64])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=0)


def read_bytes(tree: Path) -> None:
    for path in tree.iterdir():
        with path.open("rb") as file:
            file.read()


def map_bytes(tree: Path) -> None:
    for path in tree.iterdir():
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as copy:
            copy[0] = copy[0] ^ 0xFF  # in this process alone
            assert path.read_bytes()[0] != copy[0]


def open_safetensors(tree: Path) -> None:
    from safetensors import safe_open

    with safe_open(tree / "model.safetensors", "numpy") as file:
        file.get_tensor("weights")[:] = 0
    with safe_open(tree / "model.safetensors", "pt") as file:
        file.get_tensor("weights").zero_()


def map_array(tree: Path) -> None:
    import numpy

    assert numpy.load(tree / "weights.npy", mmap_mode="r").sum() > 0
    numpy.load(tree / "weights.npy", mmap_mode="c")[:] = 0


def run_session(tree: Path) -> None:
    import numpy
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(tree / "model.onnx", options, providers=["CPUExecutionProvider"])
    y = session.run(None, {"x": numpy.ones((1, 64), numpy.float32)})[0]
    assert isinstance(y, numpy.ndarray)
    assert y.sum() > 0


READERS = [read_bytes, map_bytes, open_safetensors, map_array, run_session]


def blobs(home: Path) -> dict[str, tuple[bytes, int, int, int]]:
    """Bytes, modification time, mode and inode of every blob."""
    found = {path: path.stat() for path in (home / "store" / "blobs").glob("*/*")}
    return {path.name: (path.read_bytes(), item.st_mtime_ns, item.st_mode, item.st_ino) for path, item in found.items()}


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_reading_leaves_the_blobs_as_they_are(home, store, read):
    digest = store.build(key_of("a"), produce_model).entry.digest
    tree = store.open(digest)
    before = blobs(home)
    names = sorted(path.name for path in tree.rglob("*"))
    read(tree)
    assert blobs(home) == before
    assert sorted(path.name for path in tree.rglob("*")) == names
    assert store.verify().damaged == []


def write_array(path: Path) -> None:
    import numpy

    numpy.load(path, mmap_mode="r+")


WRITERS: dict[str, Callable[[Path], object]] = {
    "r+b": lambda path: path.open("r+b"),
    "wb": lambda path: path.open("wb"),
    "ab": lambda path: path.open("ab"),
    "truncate": lambda path: os.truncate(path, 0),
    "array": write_array,
}


def opens_for_writing() -> list[str]:
    """Build a store as its owner and try to write to a file of a tree in every way; those that went well."""
    with tempfile.TemporaryDirectory() as home:
        store = Store(Path(home))
        tree = store.open(store.build(key_of("a"), produce_array).entry.digest)
        return [name for name, write in WRITERS.items() if _succeeds(write, tree / "weights.npy")]


def produce_array(folder: Path, scratch: Path) -> None:
    import numpy

    numpy.save(folder / "weights.npy", numpy.arange(16))


def _succeeds(write: Callable[[Path], object], path: Path) -> bool:
    try:
        write(path)
    except PermissionError:
        return False
    return True


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a child that is nobody")
def test_not_even_the_owner_of_the_store_opens_a_blob_for_writing():
    child = os.fork()
    if child == 0:
        code = 2
        try:
            if os.geteuid() == 0:  # who may write to everything
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            code = 1 if opens_for_writing() else 0
        finally:
            traceback.print_exc()
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
