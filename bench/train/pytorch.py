"""PyTorch's side of the comparison: `python pytorch.py FOLDER THREADS PARTS`.

Runs the steps of a plan (plan.ts) in PyTorch eager, channels_last, and knows no architecture: it interprets the graphs of src/graph. What a
step computes is written as a PyTorch user would write it, with the library's fastest way where it has several (fused batch norm, SiLU,
antialiased bicubic interpolation, multi-tensor optimiser).
"""

import json
import sys
import time

import numpy
import torch
import torch.nn.functional as F

LAST = torch.channels_last


def same_padding(size, kernel, stride):
    """SAME padding of one axis: the odd pixel after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def conv2d(x, kernel, stride, groups):
    k = kernel.shape[-1]
    (top, bottom), (left, right) = (same_padding(size, k, stride) for size in x.shape[2:])
    if top == bottom and left == right:
        return F.conv2d(x, kernel, stride=stride, padding=(top, left), groups=groups)
    return F.conv2d(F.pad(x, (left, right, top, bottom)), kernel, stride=stride, groups=groups)


def squeeze_excite(x, reduce, reduce_bias, expand, expand_bias):
    pooled = x.mean((2, 3), keepdim=True)
    return x * torch.sigmoid(F.conv2d(F.silu(F.conv2d(pooled, reduce, reduce_bias)), expand, expand_bias))


def fit_channels(x, channels):
    if channels <= x.shape[1]:
        return x[:, :channels]
    return F.pad(x, (0, 0, 0, 0, 0, channels - x.shape[1]))


class Trainer:
    def __init__(self, folder, parts):
        self.parts = parts
        with open(f"{folder}/plan.json") as file:
            self.plan = json.load(file)
        recipe, shapes = self.plan["recipe"], self.plan["tensors"]
        weights = torch.from_numpy(numpy.fromfile(f"{folder}/weights.bin", "<f4"))
        parts = weights.split([numpy.prod(tensor["shape"], dtype=int).item() for tensor in shapes])
        self.shared = {}
        for tensor, part in zip(shapes, parts):
            value = part.view(tensor["shape"]).clone()
            if value.dim() == 4:
                value = value.contiguous(memory_format=LAST)
            self.shared[tensor["name"]] = torch.nn.Parameter(value)
        self.weights = list(self.shared.values())
        self.decaying = [self.shared[tensor["name"]] for tensor in shapes if tensor["decays"]]
        with torch.no_grad():
            self.mean_square = [torch.ones_like(w) for w in self.weights]
            self.momentum = [torch.zeros_like(w) for w in self.weights]
            self.average = [w.detach().clone() for w in self.weights]
        crop = self.plan["preprocessing"]["crop"]
        shape = (len(self.plan["steps"]), recipe["batch"], crop, crop, 3)
        self.crops = numpy.memmap(f"{folder}/crops.bin", "uint8", "r", shape=shape)
        self.mean, self.deviation = (torch.tensor(self.plan["preprocessing"][name]).view(1, 3, 1, 1) for name in ("mean", "deviation"))
        self.done = 0

    def slice(self, parameter):
        """The part of a shared tensor that a child uses, as a view; autograd adds its gradient back."""
        shared = self.shared[parameter["tensor"]["name"]]
        if list(shared.shape) == parameter["size"]:
            return shared
        return shared[tuple(slice(begin, begin + size) for begin, size in zip(parameter["begin"], parameter["size"]))]

    def forward(self, graph, x, dropout):
        values = {}
        for node in graph["nodes"]:
            values[node["name"]] = x = self.evaluate(node, values, x, dropout)
        return x

    def evaluate(self, node, values, given, dropout):
        op = node["op"]
        if op == "input":
            return given
        if op == "add":
            return values[node["inputs"][0]] + values[node["inputs"][1]]
        x = values[node["input"]]
        if op == "conv2d":
            return conv2d(x, self.slice(node["kernel"]), node["stride"], 1)
        if op == "depthwiseConv2d":
            return conv2d(x, self.slice(node["kernel"]), node["stride"], x.shape[1])
        if op == "batchNorm":
            return F.batch_norm(x, None, None, self.slice(node["gamma"]), self.slice(node["beta"]), training=True, eps=node["epsilon"])
        if op == "activation":
            return F.silu(x)
        if op == "squeezeExcite":
            names = ("reduceKernel", "reduceBias", "expandKernel", "expandBias")
            return squeeze_excite(x, *(self.slice(node[name]) for name in names))
        if op == "fitChannels":
            return fit_channels(x, node["shape"][2])
        if op == "averagePool":
            return F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
        if op == "globalAveragePool":
            return x.mean((2, 3))
        if op == "dropout":
            return F.dropout(x, dropout, training=True) if dropout > 0 else x
        if op == "dense":
            return F.linear(x, self.slice(node["kernel"]), self.slice(node["bias"]))
        raise ValueError(f"pytorch.py does not know the node {op}: add it beside src/graph's")

    def step(self):
        """One sandwich step (src/train/trainer.ts); the children's losses, the biggest one's first."""
        step, recipe = self.plan["steps"][self.done], self.plan["recipe"]
        for weight in self.weights:
            weight.grad = None
        batch = torch.from_numpy(numpy.array(self.crops[self.done]))
        losses = [self.part(step, *part) for part in zip(batch.chunk(self.parts), torch.tensor(step["labels"]).chunk(self.parts))]
        self.update(step["rate"], recipe)
        self.done += 1
        return [sum(child) / self.parts for child in zip(*losses)]

    def part(self, step, crops, labels):
        """The children's gradients on a part of the batch, added up; their losses."""
        recipe = self.plan["recipe"]
        images = crops.permute(0, 3, 1, 2).float()  # channels_last as it is
        images = images.div_(255).sub_(self.mean).div_(self.deviation)
        targets, losses = labels, []
        for i, text in enumerate(step["children"]):
            graph, teacher = self.plan["graphs"][text], i == 0
            resolution = graph["nodes"][0]["shape"][0]
            x = images
            if x.shape[2] != resolution:
                x = F.interpolate(x, (resolution, resolution), mode="bicubic", align_corners=False, antialias=True)
            logits = self.forward(graph, x, recipe["dropout"] if teacher else 0)
            loss = F.cross_entropy(logits, targets, label_smoothing=recipe["labelSmoothing"] if teacher else 0)
            (loss / self.parts).backward()
            if teacher:
                targets = logits.detach().softmax(1)
            losses.append(loss.item())
        return losses

    @torch.no_grad()
    def update(self, rate, recipe):
        """Weight decay of the biggest child, RMSProp, moving average (src/train/rmsprop.ts)."""
        decay, mu, epsilon = (recipe["rmsprop"][name] for name in ("decay", "momentum", "epsilon"))
        if recipe["weightDecay"] > 0:
            torch._foreach_add_([w.grad for w in self.decaying], self.decaying, alpha=recipe["weightDecay"])
        gradients = [w.grad for w in self.weights]
        torch._foreach_mul_(self.mean_square, decay)
        torch._foreach_addcmul_(self.mean_square, gradients, gradients, 1 - decay)
        roots = torch._foreach_add(self.mean_square, epsilon)
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(self.momentum, mu)
        torch._foreach_addcdiv_(self.momentum, gradients, roots, rate)
        torch._foreach_sub_(self.weights, self.momentum)
        averaging = min(recipe["averaging"], (1 + self.done) / (10 + self.done))
        torch._foreach_lerp_(self.average, self.weights, 1 - averaging)

    def save(self, file):
        parts = (self.weights, self.mean_square, self.momentum, self.average)
        flat = [tensor.detach().contiguous().flatten() for part in parts for tensor in part]
        torch.cat(flat).numpy().astype("<f4").tofile(file)


def timed(trainer, steps):
    began = time.perf_counter()
    losses = [trainer.step() for _ in range(steps)]
    return {"seconds": time.perf_counter() - began, "losses": losses}


def profiled(trainer, steps):
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiler:
        seconds = timed(trainer, steps)["seconds"]
    rows = [{"name": row.key, "seconds": row.self_cpu_time_total / 1e6, "calls": row.count} for row in profiler.key_averages()]
    rows.sort(key=lambda row: -row["seconds"])
    rest = seconds - sum(row["seconds"] for row in rows)
    return {"seconds": seconds, "tables": [{"title": "PyTorch ops, own time", "rows": rows + [{"name": "Python and the rest", "seconds": rest}]}]}


def main():
    folder, threads, parts = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    trainer = Trainer(folder, parts)
    for line in sys.stdin:
        order = json.loads(line)
        if "run" in order:
            answer = timed(trainer, order["run"])
        elif "profile" in order:
            answer = profiled(trainer, order["profile"])
        else:
            trainer.save(order["save"])
            answer = {}
        print(json.dumps(answer), flush=True)


main()
