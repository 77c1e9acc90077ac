"""Once-for-all's way to a deployable child, in PyTorch: copy a static network out of the supernet (get_active_subnet), export it to ONNX (torch.onnx.export).

peer.py FOLDER ROUNDS: reads graph.json (the child, on the shared tensors) and weights.safetensors (the supernet) of FOLDER, writes JSON of seconds to standard output.
"""
import io
import json
import struct
import sys
import time
import warnings

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

warnings.filterwarnings("ignore")


def load(path):
    """Tensors of a safetensors file."""
    data = open(path, "rb").read()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    at = 8 + length
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = torch.from_numpy(np.frombuffer(data[at + begin : at + end], np.float32).reshape(entry["shape"]).copy())
    return tensors


def same_padding(size, kernel, stride):
    """SAME padding of one axis: the odd pixel after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SqueezeExcite(nn.Module):
    def __init__(self, channels, bottleneck):
        super().__init__()
        self.reduce = nn.Conv2d(channels, bottleneck, 1)
        self.expand = nn.Conv2d(bottleneck, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.expand(F.silu(self.reduce(F.adaptive_avg_pool2d(x, 1)))))


class StaticChild(nn.Module):
    """A network of ordinary layers, wired by the graph's nodes."""

    def __init__(self, nodes):
        super().__init__()
        self.nodes = nodes
        self.shapes = {node["name"]: node["shape"] for node in nodes}
        self.layers = nn.ModuleDict()
        for node in nodes:
            layer = self.layer(node)
            if layer is not None:
                self.layers[node["name"].replace(".", "_")] = layer

    def layer(self, node):
        op = node["op"]
        if op in ("conv2d", "depthwiseConv2d"):
            out, into, k, _ = node["kernel"]["size"]
            groups = out if op == "depthwiseConv2d" else 1
            return nn.Conv2d(into * groups, out, k, node["stride"], groups=groups, bias=False)
        if op == "batchNorm":
            return nn.BatchNorm2d(node["shape"][-1], eps=node["epsilon"])
        if op == "squeezeExcite":
            bottleneck, channels, _, _ = node["reduceKernel"]["size"]
            return SqueezeExcite(channels, bottleneck)
        if op == "dense":
            out, into = node["kernel"]["size"]
            return nn.Linear(into, out)
        return None

    def forward(self, x):
        values = {}
        for node in self.nodes:
            op, name = node["op"], node["name"]
            if op == "input":
                values[name] = x
                continue
            layer = self.layers[name.replace(".", "_")] if name.replace(".", "_") in self.layers else None
            v = values[node["input"]] if "input" in node else None
            if op in ("conv2d", "depthwiseConv2d"):
                h, w, _ = self.shapes[node["input"]]
                k = node["kernel"]["size"][2]
                (top, bottom), (left, right) = same_padding(h, k, node["stride"]), same_padding(w, k, node["stride"])
                v = layer(F.pad(v, (left, right, top, bottom)))
            elif op == "activation":
                v = F.silu(v)
            elif op == "fitChannels":
                from_, to = self.shapes[node["input"]][-1], node["shape"][-1]
                v = v[:, :to] if to <= from_ else F.pad(v, (0, 0, 0, 0, 0, to - from_))
            elif op == "add":
                a, b = node["inputs"]
                v = values[a] + values[b]
            elif op == "averagePool":
                h, w, _ = self.shapes[node["input"]]
                v = F.avg_pool2d(v, node["window"], node["stride"], ceil_mode=True, count_include_pad=False)
            elif op == "globalAveragePool":
                v = v.mean((2, 3))
            elif op == "dropout":
                pass
            else:
                v = layer(v)
            values[name] = v
        return values[self.nodes[-1]["name"]]


def cut(parameter, supernet):
    return supernet[parameter["tensor"]["name"]][tuple(slice(b, b + s) for b, s in zip(parameter["begin"], parameter["size"]))]


def copied_out(nodes, supernet):
    """A static child with the supernet's weights."""
    child = StaticChild(nodes)
    with torch.no_grad():
        for node in nodes:
            key = node["name"].replace(".", "_")
            layer = child.layers[key] if key in child.layers else None
            if node["op"] in ("conv2d", "depthwiseConv2d"):
                layer.weight.copy_(cut(node["kernel"], supernet))
            elif node["op"] == "batchNorm":
                layer.weight.copy_(cut(node["gamma"], supernet))
                layer.bias.copy_(cut(node["beta"], supernet))
            elif node["op"] == "squeezeExcite":
                layer.reduce.weight.copy_(cut(node["reduceKernel"], supernet))
                layer.reduce.bias.copy_(cut(node["reduceBias"], supernet))
                layer.expand.weight.copy_(cut(node["expandKernel"], supernet))
                layer.expand.bias.copy_(cut(node["expandBias"], supernet))
            elif node["op"] == "dense":
                layer.weight.copy_(cut(node["kernel"], supernet))
                layer.bias.copy_(cut(node["bias"], supernet))
    return child.eval()


def main():
    folder, rounds = sys.argv[1], int(sys.argv[2])
    nodes = json.load(open(f"{folder}/graph.json"))["nodes"]
    supernet = load(f"{folder}/weights.safetensors")
    resolution = nodes[0]["shape"][0]
    results = []
    for _ in range(rounds + 1):  # the first one imports what export needs
        started = time.perf_counter()
        child = copied_out(nodes, supernet)
        copied = time.perf_counter()
        file = io.BytesIO()
        torch.onnx.export(child, (torch.zeros(1, 3, resolution, resolution),), file, opset_version=17, dynamo=False, input_names=["input"], output_names=["logits"], dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}})
        results.append({"copy": copied - started, "export": time.perf_counter() - copied, "bytes": len(file.getvalue())})
    json.dump(results[1:], sys.stdout)


main()
