"""The files that programs are exported to: `.pt2` of torch.export, and `.onnx`."""

import importlib.util
import io
import json
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from model.exporting.standalone import INPUTS, OUTPUT, ClipShape, Standalone
from pipeline.errors import SpkError, UsageError

Format = Literal["pt2", "onnx"]
Run = Callable[[Mapping[str, Tensor]], Tensor]
"""A program that was read back: inputs by name to restored frames."""

METADATA = "spk.json"
KEY = "spk"
"""Of the metadata in an ONNX file."""
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
_OPERATORS = {"aten", "_operator"}


class Traced(Protocol):
    """A `torch.export.ExportedProgram`, as far as it is used here."""

    @property
    def graph(self) -> Any: ...


def require_packages(kind: Format) -> None:
    """Raises UsageError where a package is missing that the format needs; the check of what was written included."""
    missing = [name for name in PACKAGES if kind == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"writing and checking .onnx needs {', '.join(missing)}, not installed",
            "pip install -c constraints.txt 'spike-deblur[export]', or export to a .pt2 file",
        )


def trace(program: Standalone, shape: ClipShape) -> torch.export.ExportedProgram:
    """The operations of a program on clips of one shape.

    Raises:
        SpkError: some of them are none of PyTorch's own, so they could not run elsewhere.
    """
    # Not zeros: constants that fold away would hide what the network does.
    inputs = tuple(torch.rand(sizes) for sizes in shape.inputs.values())
    with torch.no_grad():
        traced = torch.export.export(program, inputs)
    foreign = operators(traced) - _OPERATORS
    if foreign:
        raise SpkError(
            f"the network uses operators of {', '.join(sorted(foreign))}, which only this program has"
        )
    return traced


def operators(traced: Traced) -> set[str]:
    """The libraries that its operations are of."""
    called = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    return {getattr(target, "namespace", None) or target.__module__ for target in called}


def to_pt2(traced: torch.export.ExportedProgram, about: Mapping[str, Any]) -> bytes:
    """The content of a .pt2 file; `torch.export.load` reads it, and `about` as the extra file `spk.json`."""
    file = io.BytesIO()
    torch.export.save(traced, file, extra_files={METADATA: json.dumps(about, indent=1)})
    return file.getvalue()


def to_onnx(traced: torch.export.ExportedProgram, about: Mapping[str, Any], opset: int | None) -> bytes:
    """The content of an .onnx file, in which `about` is the metadata `spk`.

    Args:
        opset: version of ONNX's operators; None takes that which PyTorch writes best.

    Raises:
        UsageError: PyTorch cannot write this version, or the file would be over 2 GiB.
    """
    names = [name for name in INPUTS if name in traced.graph_signature.user_inputs]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of PyTorch about itself
            written = torch.onnx.export(
                traced,
                input_names=names,
                output_names=[OUTPUT],
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UsageError(f"cannot be written as ONNX: {reason}", "another --opset, or a .pt2 file") from error
    model = written.model_proto
    for node in model.graph.node:  # a trace of the code that is left behind, which is most of the file
        del node.metadata_props[:]
        node.doc_string = ""
    for key, value in ((KEY, json.dumps(about)), ("checkpoint", str(about["checkpoint"]["digest"]))):
        model.metadata_props.add(key=key, value=value)
    if model.ByteSize() > 2**31 - 1:
        raise UsageError("a network of more than 2 GiB does not fit an .onnx file", "export to a .pt2 file")
    return model.SerializeToString()


def load_pt2(content: bytes) -> Run:
    """Read a program back as its users will."""
    module = torch.export.load(io.BytesIO(content)).module()

    def run(inputs: Mapping[str, Tensor]) -> Tensor:
        with torch.no_grad():
            return module(*inputs.values())

    return run


def load_onnx(content: bytes) -> Run:
    """Read a program back into onnxruntime, on the CPU, with as many threads as PyTorch has."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(inputs: Mapping[str, Tensor]) -> Tensor:
        return torch.from_numpy(session.run(None, {name: x.numpy() for name, x in inputs.items()})[0])

    return run
