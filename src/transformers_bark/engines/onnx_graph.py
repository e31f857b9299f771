"""ONNX graphs of the three transformers, built from their weights.

One block builder serves all of them. The causal stacks attend with `GroupQueryAttention`, whose cache is written in place when
past and present are the same memory; the fine stack with `MultiHeadAttention`. Both are ONNX Runtime's contrib operators
(docs/ContribOperators.md of its repository), as are the products with quantized weights:

- int8: `DynamicQuantizeMatMul`, weights int8 with a scale per output, activations uint8 with a scale per call;
- uint8: the same with 128 added to the weights, and int7: the same with weights to 63, for processors on which products with int8
  saturate (see `kernels`);
- int4: `MatMulNBits` with blocks of 32 weights, each with its scale, and activations int8 per block. For many tokens at once int8
  is twice as fast;
- int4 by fp32: the same with activations as they are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

_CONTRIB = "com.microsoft"
_BLOCK = 32
"""Weights that share a scale in `MatMulNBits`."""


def four_bits(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[output, input] -> whole numbers 0 to 15 [output, block, _BLOCK] and scales [output, block, 1]: (whole - 8) * scale.

    Of some scales of a block, that with the least squared error: a block's extreme may be cut where the others gain by it.
    """
    blocks = weight.reshape(len(weight), -1, _BLOCK)
    extreme = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    extreme = np.where(extreme == 0, np.float32(1e-12), extreme)
    best: tuple[Any, ...] = (np.inf, 0, 0)  # of each block: its error, whole numbers and scale
    for steps in (7.0, 7.5, 8.0, 8.5, 9.0, 10.0):
        scale = -extreme / np.float32(steps)  # the extreme becomes -8 of -8 to 7
        whole = np.clip(np.rint(blocks / scale), -8, 7)
        error = np.square(whole * scale - blocks).sum(-1, keepdims=True)
        best = tuple(np.where(error < best[0], new, old) for new, old in zip((error, whole, scale), best, strict=True))
    return (best[1] + 8).astype(np.uint8), best[2]


class GraphBuilder:
    """Collects nodes and weights, in one of the ways above; values are named by their node."""

    def __init__(self, weights_as: str) -> None:
        self.weights_as = weights_as
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def add_input(self, name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def add_output(self, name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> str:
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def weight(self, name: str, array: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def node(self, kind: str, inputs: list[str], name: str, domain: str = "", **attributes: Any) -> str:
        """A node with one output, of the node's name."""
        self.nodes.append(helper.make_node(kind, inputs, [name], name=f"{name}/{kind}", domain=domain, **attributes))
        return name

    def linear(self, value: str, module: nn.Linear, name: str) -> str:
        """value @ weight.T + bias, with the weight in the graph's precision."""
        weight = _array(module.weight)
        if module.bias is None:
            return self.product(value, weight, name)
        product = self.product(value, weight, f"{name}.product")
        return self.node("Add", [product, self.weight(f"{name}.bias", _array(module.bias))], name)

    def product(self, value: str, weight: np.ndarray, name: str) -> str:
        """value @ weight.T, with weight [output, input]."""
        if self.weights_as in ("int8", "uint8", "int7"):
            self._int8(value, weight, name)
        elif self.weights_as.startswith("int4") and weight.shape[1] % _BLOCK == 0:
            self._int4(value, weight, name)
        else:
            self.node("MatMul", [value, self.weight(f"{name}.weight", weight.T)], name)
        return name

    def _int8(self, value: str, weight: np.ndarray, name: str) -> None:
        largest = 63 if self.weights_as == "int7" else 127
        scale = np.maximum(np.abs(weight).max(axis=1), 1e-12) / largest
        whole = np.rint(weight / scale[:, None]).T
        weights = {self.weights_as: whole.astype(np.int8), "scale": scale.astype(np.float32)}
        if self.weights_as == "uint8":
            weights |= {"uint8": (whole + 128).astype(np.uint8), "zero": np.full(len(weight), 128, np.uint8)}
        names = [self.weight(f"{name}.{part}", array) for part, array in weights.items()]
        self.node("DynamicQuantizeMatMul", [value, *names], name, _CONTRIB)

    def _int4(self, value: str, weight: np.ndarray, name: str) -> None:
        whole, scale = four_bits(weight)
        packed = whole[..., 0::2] | (whole[..., 1::2] << 4)
        weights = [self.weight(f"{name}.int4", packed), self.weight(f"{name}.scale", scale.ravel())]
        rows, columns = weight.shape
        accuracy = 4 if self.weights_as == "int4" else 1  # of the activations: int8, fp32
        sizes = {"K": columns, "N": rows, "bits": 4, "block_size": _BLOCK, "accuracy_level": accuracy}
        self.node("MatMulNBits", [value, *weights], name, _CONTRIB, **sizes)

    def norm(self, value: str, added: str | None, module: nn.LayerNorm, name: str) -> tuple[str, str]:
        """Layer norm over the last axis of `value + added`, or of `value` alone; and the sum."""
        weights = [self.weight(f"{name}.weight", _array(module.weight))]
        if module.bias is not None:
            weights.append(self.weight(f"{name}.bias", _array(module.bias)))
        if added is None:
            return self.node("LayerNormalization", [value, *weights], name, axis=-1, epsilon=module.eps), value
        outputs, inputs = [name, "", "", f"{name}.sum"], [value, added, *weights]
        # one node: of a single token the sum takes no time, but to start threads for it does
        self.nodes.append(
            helper.make_node(
                "SkipLayerNormalization", inputs, outputs, f"{name}/sum", domain=_CONTRIB, epsilon=module.eps
            )
        )
        return name, f"{name}.sum"

    def model(self, name: str) -> onnx.ModelProto:
        """The finished graph."""
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.weights)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid(_CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9, producer_name="transformers-bark")


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()


def _block(
    graph: GraphBuilder, value: str, added: str | None, block: Any, name: str, attend: Any, keep: Any = None
) -> tuple[str, str]:
    """A block over `value + added`, and what it gives as two summands again.

    `attend(projected, name)` adds the attention, after which `keep(value, name)` is all that goes on.
    """
    normed, value = graph.norm(value, added, block.layernorm_1, f"{name}.n1")
    projected = graph.linear(normed, block.attn.att_proj, f"{name}.qkv")
    attended = graph.linear(attend(projected, name), block.attn.out_proj, f"{name}.o")
    if keep is not None:
        value = keep(value, f"{name}.kept")
    normed, middle = graph.norm(value, attended, block.layernorm_2, f"{name}.n2")
    inner = graph.linear(normed, block.mlp.in_proj, f"{name}.in")
    active = graph.node("Gelu", [inner], f"{name}.gelu", _CONTRIB)
    return middle, graph.linear(active, block.mlp.out_proj, f"{name}.out")


def _attention(projected: str, past: list[str], outputs: list[str], heads: int, scales: list[str]) -> onnx.NodeProto:
    """Attention over a cache, which is int8 where it has scales: attended, keys and values."""
    attributes: dict[str, Any] = {"num_heads": heads, "kv_num_heads": heads, "do_rotary": 0}
    if scales:
        attributes |= {"k_quant_type": "PER_CHANNEL", "v_quant_type": "PER_CHANNEL", "kv_cache_bit_width": 8}
    # places 7 to 11 are of rotary embeddings and biases
    inputs = [projected, "", "", *past, "cached", "total", *([""] * 5 + scales if scales else [])]
    return helper.make_node("GroupQueryAttention", inputs, outputs, f"{outputs[0]}.node", domain=_CONTRIB, **attributes)


def _cached_attention(
    graph: GraphBuilder, projected: str, name: str, index: int, heads: int, scales: list[str], reads_prompts: bool
) -> str:
    """What a layer attends to, and its cache; a prompt for an int8 cache is attended to in fp32 and then rounded."""
    outputs = [f"{name}.attended", f"present_k{index}", f"present_v{index}"]
    past = [f"past_k{index}", f"past_v{index}"]
    if not scales or not reads_prompts:
        graph.nodes.append(_attention(projected, past, outputs, heads, scales))
        return outputs[0]
    step, exact, whole = ([f"{output}.{way}" for output in outputs] for way in ("step", "exact", "whole"))
    prompt = [_attention(projected, ["", ""], exact, heads, [])]
    for part, scale, rounded in zip(exact[1:], scales, whole[1:], strict=True):
        # rounds and saturates as the operator does with what it appends
        prompt.append(helper.make_node("Div", [part, scale], [f"{part}.scaled"]))
        prompt.append(helper.make_node("QuantizeLinear", [f"{part}.scaled", "one", "zero"], [rounded]))

    def branch(nodes: list[onnx.NodeProto], values: list[str]) -> onnx.GraphProto:
        kinds = [TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT8]
        made = [helper.make_tensor_value_info(*pair, None) for pair in zip(values, kinds, strict=True)]
        return helper.make_graph(nodes, f"{values[0]}.branch", [], made)

    branches = {
        "then_branch": branch(prompt, [exact[0], *whole[1:]]),
        "else_branch": branch([_attention(projected, past, step, heads, scales)], step),
    }
    graph.nodes.append(helper.make_node("If", ["is_prompt"], outputs, f"{name}.if", **branches))
    return outputs[0]


def product_graph(weights_as: str, weight: np.ndarray) -> onnx.ModelProto:
    """One product alone: `value` [row, input] -> `out` [row, output] for a weight [output, input]."""
    graph = GraphBuilder(weights_as)
    value = graph.add_input("value", ["N", weight.shape[1]])
    graph.add_output(graph.product(value, weight, "out"), ["N", len(weight)])
    return graph.model("product")


def causal_graph(
    model: Any,
    weights_as: str,
    with_head: bool,
    scales: list[dict[str, np.ndarray]] | None = None,
    reads_prompts: bool = True,
) -> onnx.ModelProto:
    """A causal stack: prompts or single tokens on top of a cache.

    Inputs: `embeds` [B, L, H] with positions; `cached` int32 [B], tokens of each row after this call, less one; `total` int32,
    those of the longest row; `asked` int64 [N, 2], row and place in `embeds` of the tokens whose logits are asked for; `past_k0`
    and so on [B, head, room, head_dim]. Outputs: `present_k0` and so on, which must be the same memory, and `out`: [N, token]
    logits. Without the head an input `head` [token, H] says of which tokens.

    With `scales`, "k" and "v" of each layer, [1, head, 1, head_dim], the cache is int8 and stands for its numbers times the scale.
    A prompt, before which nothing is cached, is then read in fp32, in half the time: `present_k0` and so on are its own keys and
    values in int8, which the caller puts into the memory. `reads_prompts` says that the graph can do this.
    """
    config, graph = model.config, GraphBuilder(weights_as)
    heads, size = config.num_heads, config.hidden_size // config.num_heads
    value, added = graph.add_input("embeds", ["B", "L", config.hidden_size]), None
    graph.add_input("cached", ["B"], TensorProto.INT32)
    graph.add_input("total", [], TensorProto.INT32)
    graph.add_input("asked", ["N", 2], TensorProto.INT64)
    if not with_head:
        graph.add_input("head", ["S", config.hidden_size])
    graph.add_output("out", ["N", config.output_vocab_size if with_head else "S"])
    kind = TensorProto.FLOAT if scales is None else TensorProto.INT8
    if scales is not None and reads_prompts:
        sizes = graph.node("Shape", ["embeds"], "length", start=1, end=2)
        length = graph.node("Cast", [sizes], "length.int32", to=TensorProto.INT32)
        graph.node("Equal", [length, "total"], "is_prompt")
        graph.weight("one", np.array(1, np.float32))
        graph.weight("zero", np.array(0, np.int8))

    def asked(value: str, name: str) -> str:
        return graph.node("GatherND", [value, "asked"], name)

    for index, block in enumerate(model.layers):
        is_last = index == len(model.layers) - 1
        for part in "kv":
            graph.add_input(f"past_{part}{index}", ["B", heads, "R", size], kind)
            graph.add_output(f"present_{part}{index}", ["B", heads, "P", size], kind)

        def attend(projected: str, name: str, index: int = index, is_last: bool = is_last) -> str:
            own = [graph.weight(f"{name}.scale_{part}", scales[index][part]) for part in "kv"] if scales else []
            attended = _cached_attention(graph, projected, name, index, heads, own, reads_prompts)
            return asked(attended, f"{name}.asked") if is_last else attended

        value, added = _block(graph, value, added, block, f"l{index}", attend, asked if is_last else None)
    out, _ = graph.norm(value, added, model.layernorm_final, "final")
    if with_head:
        graph.node("Identity", [graph.linear(out, model.lm_head, "logits")], "out")
    else:
        graph.node("Gemm", [out, "head"], "out", transB=1)
    return graph.model(type(model).__name__)


def fine_graph(model: Any, weights_as: str) -> onnx.ModelProto:
    """The fine stack.

    Inputs: `embeds` [1, L, H] with positions, `first` int64 [1] and a `head` [code, H]. Output: `out`, logits [L - first, code].
    """
    config, graph = model.config, GraphBuilder(weights_as)
    value, added = graph.add_input("embeds", [1, "L", config.hidden_size]), None
    first = graph.add_input("first", [1], TensorProto.INT64)
    graph.add_input("head", ["S", config.hidden_size])
    graph.add_output("out", ["F", "S"])

    def asked(value: str, name: str) -> str:
        """value[:, first:]"""
        end = graph.weight(f"{name}.end", np.array([np.iinfo(np.int64).max]))
        return graph.node("Slice", [value, first, end, graph.weight(f"{name}.axis", np.array([1]))], name)

    for index, block in enumerate(model.layers):
        last = index == len(model.layers) - 1

        def attend(projected: str, name: str, last: bool = last) -> str:
            parts = [f"{name}.{part}" for part in "qkv"]
            graph.nodes.append(helper.make_node("Split", [projected], parts, f"{name}.split", axis=-1))
            if last:
                parts[0] = asked(parts[0], f"{name}.asked")
            return graph.node("MultiHeadAttention", parts, f"{name}.attended", _CONTRIB, num_heads=config.num_heads)

        value, added = _block(graph, value, added, block, f"l{index}", attend, asked if last else None)
    normed, _ = graph.norm(value, added, model.layernorm_final, "final")
    row = graph.node("Squeeze", [normed, graph.weight("row", np.array([0]))], "final.row")
    graph.node("Gemm", [row, "head"], "out", transB=1)
    return graph.model(type(model).__name__)
