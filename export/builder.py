"""ONNX graphs put together node by node, with the large constants of several graphs in one external file.

Boundary: the mechanics of the ONNX format. Knows nothing of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from model.files import write_atomically

Array = npt.NDArray[Any]

OPSET = 18
IR_VERSION = 9
"""The oldest that have every operator used, so that older runtimes load the graphs too."""

MICROSOFT = "com.microsoft"
"""Domain of ONNX Runtime's own operators."""

_INLINE_BYTES = 1024
_ALIGNMENT = 4096
"""Tensors begin on a page, so that a runtime can map them into memory."""


class WeightStore:
    """Constants shared by the graphs of one folder, each stored once, in one file."""

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name
        self._tensors: dict[str, tuple[int, Array]] = {}
        self._end = 0

    def tensor(self, name: str, array: Array) -> TensorProto:
        """A reference to `array`, which takes its place in the file the first time its name is seen."""
        if name not in self._tensors:
            offset = -(-self._end // _ALIGNMENT) * _ALIGNMENT
            self._tensors[name] = offset, np.ascontiguousarray(array)
            self._end = offset + array.nbytes
        offset, stored = self._tensors[name]
        tensor = TensorProto(
            name=name,
            dims=stored.shape,
            data_type=helper.np_dtype_to_tensor_dtype(stored.dtype),
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in (("location", self.file_name), ("offset", offset), ("length", stored.nbytes)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    def write(self, folder: Path) -> None:
        """Write the file into `folder`."""
        data = bytearray(self._end)
        for offset, array in self._tensors.values():
            data[offset : offset + array.nbytes] = array.tobytes()
        write_atomically(folder / self.file_name, bytes(data))


class GraphBuilder:
    """One graph under construction. Values are known by name; each operator returns those of its outputs."""

    def __init__(self, name: str, store: WeightStore) -> None:
        self._name = name
        self._store = store
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, dtype: int, shape: Sequence[int | str]) -> str:
        """Declare an input; a named axis has any length."""
        self._inputs.append(helper.make_tensor_value_info(name, dtype, shape))
        return name

    def output(self, value: str, name: str, dtype: int, shape: Sequence[int | str]) -> None:
        """Declare `value` an output called `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, dtype, shape))

    def constant(self, name: str, array: Array) -> str:
        """A constant: large ones go to the shared store. One name is one constant."""
        if name not in self._constants:
            small = array.nbytes < _INLINE_BYTES
            self._constants[name] = numpy_helper.from_array(array, name) if small else self._store.tensor(name, array)
        return name

    def integers(self, *values: int) -> str:
        """A vector of int64, as shapes and axes are given."""
        return self.constant("_".join(["int", *map(str, values)]), np.array(values, np.int64))

    def scalar(self, value: Any) -> str:
        """A scalar of a NumPy type."""
        return self.constant(f"{value.dtype.name}_{value}", np.array(value))

    def op(self, kind: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        """Add an operator with one output. An omitted optional input is an empty name."""
        return self.ops(kind, *inputs, outputs=1, domain=domain, **attributes)[0]

    def ops(self, kind: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any) -> list[str]:
        """Add an operator with several outputs."""
        names = [f"{len(self._nodes)}.{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(kind, inputs, names, domain=domain, **attributes))
        return names

    def split(self, value: str, axis: int, parts: int) -> list[str]:
        """Cut an axis into equal parts."""
        return [value] if parts == 1 else self.ops("Split", value, outputs=parts, axis=axis, num_outputs=parts)

    def concat(self, values: Sequence[str], axis: int) -> str:
        """Join values along an axis."""
        return values[0] if len(values) == 1 else self.op("Concat", *values, axis=axis)

    def reshape(self, value: str, *shape: int) -> str:
        """Reshape; one length may be -1."""
        return self.op("Reshape", value, self.integers(*shape))

    def build(self, **properties: str) -> onnx.ModelProto:
        """The finished model, with properties that whoever loads it reads by name."""
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, initializer=list(self._constants.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="pru")
        helper.set_model_props(model, properties)
        return model
