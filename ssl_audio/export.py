"""Export of a whole model, from waveform to embedding, as TorchScript or ONNX, for any batch size and any length.

Before an export is written, its output is compared with the model's at several batch sizes and lengths. If it differs,
no file is written.
"""

import copy
import inspect
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.config import refuse_outside
from ssl_audio.errors import InputError
from ssl_audio.heads import ProbeHead
from ssl_audio.level import level_name
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.files import write_atomically, write_text

TOLERANCE = 1e-3  # largest difference, relative to the largest value of the embeddings
INPUT, OUTPUT = "audio", "embedding"  # names in the ONNX graph: (batch, samples) -> (batch, dim)
LOGITS = "logits"  # name of the output of a head with classes
WINDOW_SECONDS = 3.0  # window length of a model that states none
_SCOPES = "pkg.torch.onnx.name_scopes"  # property of an ONNX node: the modules that contain it


@dataclass(frozen=True)
class Export:
    """An exported file, and how it compares with the model.

    Attributes:
        path: the file.
        format: "onnx", "onnx int8" or "torchscript".
        size: in bytes.
        difference: largest difference, relative to the largest value of the embeddings.
        cosine: smallest cosine similarity of an embedding to the model's.
        opset: version of the ONNX operators; None for TorchScript.
    """

    path: Path
    format: str
    size: int
    difference: float
    cosine: float
    opset: int | None = None

    def __str__(self) -> str:
        opset = "" if self.opset is None else f", opset {self.opset}"
        return (
            f"{self.path}: {self.format}{opset}, {self.size / 1e6:.1f} MB; compared with PyTorch: largest difference "
            f"{self.difference:.1e} of the largest value, smallest cosine {self.cosine:.6f}"
        )


class OnnxModel(nn.Module):
    """An exported model in onnxruntime, with the attributes that `embed_files` needs.

    Args:
        path: the `.onnx` file.
        like: the model from which it was exported.

    Raises:
        InputError: onnxruntime cannot load the file.
    """

    def __init__(self, path: str | os.PathLike[str], like: EmbeddingModel) -> None:
        super().__init__()
        self.sample_rate, self.minimum_samples, self.dim = like.sample_rate, like.minimum_samples, like.dim
        self.level, self.level_in_forward = like.level, like.level_in_forward
        self.session = open_session(path)

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`, on the CPU."""
        return torch.from_numpy(self.session.run(None, {INPUT: waveforms.cpu().numpy()})[0])


def open_session(path: str | os.PathLike[str], threads: int = 0) -> Any:
    """Open an ONNX file in onnxruntime, on the CPU.

    Args:
        path: the file.
        threads: number of threads of a call; 0: one per core.

    Raises:
        InputError: the file cannot be loaded.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, so they need not be printed
    options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise InputError(f"{path}: onnxruntime cannot load it: {_last_line(error)}") from error


def export_torchscript(model: EmbeddingModel, path: str | os.PathLike[str], tolerance: float = TOLERANCE) -> Export:
    """Trace the model to TorchScript, which is used as `torch.jit.load(path)(audio)`.

    `load_model(folder, torchscript=True)` reads the file if it is called `model.ts` and lies in the folder of a saved
    model.

    Args:
        model: model to export.
        path: file to write.
        tolerance: largest difference allowed, relative to the largest value of the embeddings.

    Raises:
        InputError: the model cannot be traced, the trace differs from the model at other shapes, or a part of the model
            stays outside the package.
    """
    refuse_outside(model, "exported")
    with _quiet():
        try:
            with torch.no_grad():
                scripted = torch.jit.trace(_copy(model), _example(model), check_trace=False)
        except Exception as error:  # the code of a module can raise anything under the tracer
            raise InputError(f"{_name(model)} cannot be traced to TorchScript: {_last_line(error)}") from error
        with write_atomically(path) as temporary:
            content = io.BytesIO()  # torch ends the process where a disk is full
            torch.jit.save(scripted, content)
            temporary.write_bytes(content.getbuffer())
            difference, cosine = _verify(model, torch.jit.load(temporary), "TorchScript", tolerance)
    return Export(Path(path), "torchscript", os.path.getsize(path), difference, cosine)


def export_onnx(model: EmbeddingModel, path: str | os.PathLike[str], tolerance: float = TOLERANCE) -> Export:
    """Write an ONNX file with the dynamic axes `batch` and `samples`, after a check in onnxruntime.

    Args:
        model: model to export.
        path: file to write.
        tolerance: largest difference allowed, relative to the largest value of the embeddings.

    Raises:
        InputError: an operation has no ONNX form, the exported model differs from the model, or a part of the model
            stays outside the package.
    """
    import onnx

    refuse_outside(model, "exported")

    with _quiet():
        program = _onnx_program(model)
        with write_atomically(path) as temporary:
            program.save(os.fspath(temporary), include_initializers=True)
            difference, cosine = _verify(model, OnnxModel(temporary, model), "ONNX", tolerance)
            opset = next(item.version for item in onnx.load(temporary).opset_import if item.domain == "")
    return Export(Path(path), "onnx", os.path.getsize(path), difference, cosine, opset)


def describe_onnx(model: EmbeddingModel, path: str | os.PathLike[str]) -> Path:
    """Write a JSON file beside an exported file (`tags.onnx` -> `tags.json`) with what a program needs to use it.

    Keys of the JSON file:

    - `model`: name of the exported file;
    - `sample_rate`: in Hz;
    - `minimum_samples`: length of the shortest clip;
    - `level`: how the level of a clip is set (see `ssl_audio.level`): `peak`, `none`, or the class of another rule;
    - `level_in_graph`: whether the file does it; if false, set the level of each clip before;
    - `window_seconds`: length of the windows into which to cut long recordings;
    - `dim`: size of the output;
    - `labels`: names of the outputs, or null;
    - `activation`: function that turns outputs into probabilities: `sigmoid` for several labels per clip, `softmax` for
      one label per clip, null without labels;
    - `calibration`: of a calibrated model, what turns two embeddings into a decision; see docs/decisions.md.

    Returns:
        The path of the JSON file.
    """
    path, head = Path(path), model.head
    labels, activation, seconds = None, None, None
    if isinstance(head, ProbeHead):
        labels, activation, seconds = head.classes, "sigmoid" if head.multi_label else "softmax", head.clip_seconds
    facts = {
        "model": path.name,
        "sample_rate": model.sample_rate,
        "minimum_samples": model.minimum_samples,
        "level": level_name(model.level),
        "level_in_graph": model.level_in_forward,
        "window_seconds": seconds or max(WINDOW_SECONDS, model.minimum_samples / model.sample_rate),
        "dim": model.dim,
        "labels": labels,
        "activation": activation,
    }
    if model.calibration is not None:
        facts["calibration"] = model.calibration.exported()
    described = path.with_suffix(".json")
    write_text(described, json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    return described


def quantize_onnx(model: EmbeddingModel, source: str | os.PathLike[str], path: str | os.PathLike[str]) -> Export:
    """Quantise an exported model to int8: the weights now, the activations at run time ("dynamic quantisation").

    The frontend stays in floating point, because a power spectrum spans far more than the 48 dB of 8 bits. The result
    says how much the embeddings change; no change is refused.

    Args:
        model: model from which `source` was exported.
        source: file that `export_onnx` wrote.
        path: file to write.

    Raises:
        InputError: onnxruntime cannot quantise or run it.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    graph = onnx.load(source)
    frontend = [node.name for node in graph.graph.node if not _belongs_to_encoder(node)]
    del graph.graph.value_info[:]  # shapes, which the quantised graph would contradict
    with _quiet(), write_atomically(path) as temporary:
        try:
            quantize_dynamic(
                graph,
                os.fspath(temporary),
                per_channel=True,
                weight_type=QuantType.QUInt8,
                op_types_to_quantize=["Conv", "MatMul", "Gemm"],
                nodes_to_exclude=frontend,
            )
        except Exception as error:
            raise InputError(f"{source}: onnxruntime cannot quantise it: {_last_line(error)}") from error
        difference, cosine = _verify(model, OnnxModel(temporary, model), "int8", tolerance=None)
        opset = next(item.version for item in graph.opset_import if item.domain == "")
    return Export(Path(path), "onnx int8", os.path.getsize(path), difference, cosine, opset)


def _onnx_program(model: EmbeddingModel) -> Any:
    if "prefer_deferred_runtime_asserts_over_guards" not in inspect.signature(torch.export.export).parameters:
        raise InputError(
            f"export to ONNX needs torch 2.9 or newer, not {torch.__version__}; or take --format torchscript"
        )
    example = _example(model)
    exportable = _copy(model)
    _replace_max_pools(exportable)
    output = LOGITS if isinstance(model.head, ProbeHead) else OUTPUT
    # The lower bound keeps the tracer from treating a single frame as a special case. The graph accepts any length.
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("samples", min=example.shape[1] // 2)}
    try:
        with torch.no_grad():
            exported = torch.export.export(
                exportable,
                (example,),
                dynamic_shapes=(axes,),
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
            program = torch.onnx.export(
                exported, dynamo=True, input_names=[INPUT], output_names=[output], verbose=False, optimize=False
            )
        assert program is not None
        _simplify(program.model)
        _remove_traces(program.model)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # torch's exporter can raise anything
        raise InputError(f"{_name(model)} cannot be exported to ONNX: {_last_line(error)}") from error
    return program


def _simplify(graph: Any) -> None:
    """Optimise the graph like the exporter, but keep additions of 1e-8, which our logarithms need for silence."""
    from onnx_ir.passes import common as passes
    from onnxscript.optimizer import fold_constants_ir
    from onnxscript.rewriter import RewriteRuleSet, rewrite
    from onnxscript.rewriter.rules import common as rules

    passes.InlinePass()(graph)
    fold_constants_ir(graph)
    rewrite(graph, RewriteRuleSet([rules.fuse_batchnorm_into_conv_rule, rules.fuse_batchnorm_into_gemm_rule]))
    passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(graph)
    passes.CommonSubexpressionEliminationPass()(graph)
    passes.NameFixPass()(graph)


def _remove_traces(graph: Any) -> None:
    """Delete what the exporter notes about our source code: its stack traces hold paths of this machine.

    The scopes stay, because `quantize_onnx` needs them.
    """
    graph.doc_string = graph.graph.doc_string = None
    graph.metadata_props.clear()
    graph.graph.metadata_props.clear()
    for node in graph.graph.all_nodes():
        scopes = node.metadata_props.get(_SCOPES)
        node.doc_string = None
        node.metadata_props.clear()
        if scopes is not None:
            node.metadata_props[_SCOPES] = scopes


class _MaxPool1d(nn.Module):
    """`nn.MaxPool1d`, computed in two dimensions, because the export of the one-dimensional one fixes its length."""

    def __init__(self, pool: nn.MaxPool1d) -> None:
        super().__init__()
        self.kernel, self.stride, self.padding, self.dilation = (
            int(value[0]) if isinstance(value, tuple) else int(value)
            for value in (pool.kernel_size, pool.stride, pool.padding, pool.dilation)
        )
        self.ceil_mode = pool.ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, frames)` -> `(batch, channels, fewer frames)`."""
        pooled = F.max_pool2d(
            x.unsqueeze(2), (1, self.kernel), (1, self.stride), (0, self.padding), (1, self.dilation), self.ceil_mode
        )
        return pooled.squeeze(2)


def _replace_max_pools(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.MaxPool1d):
            setattr(module, name, _MaxPool1d(child))
        else:
            _replace_max_pools(child)


def _belongs_to_encoder(node: Any) -> bool:
    scopes = next((item.value for item in node.metadata_props if item.key == _SCOPES), "")
    return "'encoder" in scopes or "'head" in scopes


def _copy(model: EmbeddingModel) -> EmbeddingModel:
    return copy.deepcopy(model).cpu().eval().requires_grad_(False)


def _example(model: EmbeddingModel) -> Tensor:
    return _noise(2, max(4 * model.minimum_samples, 2 * model.sample_rate), seed=0)


def _noise(batch: int, samples: int, seed: int) -> Tensor:
    """`(batch, samples)` noise: every clip has its own loudness and starts with digital silence."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(batch, samples, generator=generator) * 2 - 1
    noise[:, : samples // 3] = 0
    # Soft, so that the largest mel value is far from 1: `clip_max` divides by its logarithm.
    return noise * torch.linspace(0.01, 0.03, batch).unsqueeze(1)


def _verify(
    model: EmbeddingModel, exported: Callable[[Tensor], Tensor], name: str, tolerance: float | None
) -> tuple[float, float]:
    """The largest relative difference and the smallest cosine similarity over several batch sizes and lengths.

    Raises:
        InputError: the exported model fails, or differs by more than the tolerance.
    """
    reference = _copy(model)
    difference, cosine = 0.0, 1.0
    length = _example(model).shape[1]
    silence = torch.zeros(1, length)
    for batch, samples in [(1, length + 4321), (1, model.minimum_samples + length // 3), (3, length // 2 + 777)]:
        audio = _noise(batch, samples, seed=samples)
        with torch.inference_mode():
            expected = reference(audio)
            try:
                got = exported(audio)
            except Exception as error:
                raise InputError(
                    f"the {name} export of {_name(model)} fails on audio of shape ({batch}, {samples}), "
                    f"which the model accepts; nothing was written: {_last_line(error)}"
                ) from error
        if got.shape != expected.shape or not (got.isfinite().all() and exported(silence).isfinite().all()):
            raise InputError(
                f"the {name} export of {_name(model)} gives NaN, infinity or another shape; nothing was written"
            )
        difference = max(difference, float((got - expected).abs().max() / expected.abs().max()))
        cosine = min(cosine, float(F.cosine_similarity(got, expected).min()))
    if tolerance is not None and difference > tolerance:
        raise InputError(
            f"the {name} export of {_name(model)} differs from the model by {difference:.1e} of the largest value "
            f"(allowed: {tolerance:.0e}); nothing was written"
        )
    return difference, cosine


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters, which warn of their own deprecations and of optional packages."""
    import logging

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def _name(model: EmbeddingModel) -> str:
    return f"{type(model.encoder).__name__} on {type(model.frontend).__name__}"


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:300]
