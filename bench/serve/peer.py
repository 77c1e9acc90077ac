"""A child in Python, bare or behind the least of HTTP servers: peer.py onnxruntime|torch MODEL THREADS bare SECONDS | serve.

`bare` runs the model alone, at batch 1 and at growing batches, and prints JSON. `serve` answers POSTs of float32 tensors, [N, 3, R, R], with
float32 probabilities, each request by itself, and prints its port.
"""
import json
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy


def onnxruntime_model(path, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(["probabilities"], {"input": x})[0]


def torch_model(path, threads):
    """The same file's nodes as eager PyTorch calls, channels last."""
    import onnx
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    graph = onnx.load(path).graph
    constants = {each.name: torch.from_numpy(onnx.numpy_helper.to_array(each).copy()) for each in graph.initializer}
    constants = {name: value.contiguous(memory_format=torch.channels_last) if value.dim() == 4 else value for name, value in constants.items()}

    def call(node, given, attributes):
        x = given[0]
        if node.op_type in ("Conv", "AveragePool"):
            top, left, bottom, right = attributes.get("pads", [0, 0, 0, 0])
            if node.op_type == "Conv":
                if (top, left) != (bottom, right):
                    x, top, left = functional.pad(x, (left, right, top, bottom)), 0, 0
                return functional.conv2d(x, given[1], given[2], attributes.get("strides", 1), (top, left), attributes.get("dilations", 1), attributes.get("group", 1))
            assert not any((top, left)), "padding before an average"
            return functional.avg_pool2d(x, attributes["kernel_shape"], attributes["strides"], ceil_mode=(bottom, right) != (0, 0), count_include_pad=False)
        if node.op_type == "Sigmoid":
            return torch.sigmoid(x)
        if node.op_type == "Mul":
            return x * given[1]
        if node.op_type == "Add":
            return x + given[1]
        if node.op_type == "GlobalAveragePool":
            return x.mean((2, 3), keepdim=True)
        if node.op_type == "Slice":
            return x[:, : int(given[2][0])]
        if node.op_type == "Pad":
            return functional.pad(x, (0, 0, 0, 0, 0, int(given[1][5])))
        if node.op_type == "Flatten":
            return x.flatten(1)
        if node.op_type == "Gemm":
            return functional.linear(x, given[1], given[2])
        if node.op_type == "Softmax":
            return x.softmax(-1)
        raise ValueError(f"no such operator here: {node.op_type}")

    attributes = [{a.name: onnx.helper.get_attribute_value(a) for a in node.attribute} for node in graph.node]

    def run(x):
        with torch.inference_mode():
            values = dict(constants)
            values["input"] = torch.from_numpy(x).contiguous(memory_format=torch.channels_last)
            for node, given in zip(graph.node, attributes):
                values[node.output[0]] = call(node, [values[name] for name in node.input], given)
            return values["probabilities"].numpy()

    return run


def bare(run, resolution, seconds):
    results = {}
    for batch in (1, 2, 4, 8, 16, 32):
        x = numpy.random.default_rng(batch).standard_normal((batch, 3, resolution, resolution), dtype=numpy.float32)
        run(x)
        times = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end or len(times) < 3:
            began = time.perf_counter()
            run(x)
            times.append(time.perf_counter() - began)
        times.sort()
        results[batch] = {"median": times[len(times) // 2], "perSecond": batch * len(times) / sum(times)}
    print(json.dumps(results), flush=True)


def serve(run, resolution):
    turn = threading.Lock()  # one run at a time: two would share the same threads

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # head and body leave together: apart, the second waits for the client's delayed acknowledgement
        disable_nagle_algorithm = True

        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            x = numpy.frombuffer(bytearray(body), numpy.float32).reshape(-1, 3, resolution, resolution)
            with turn:
                answer = run(x).tobytes()
            self.send_response(200)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)
            self.wfile.flush()

        def log_message(self, *_):
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 1024
        daemon_threads = True

        def handle_error(self, *_):
            pass  # the generator hangs up at its end

    server = Server(("127.0.0.1", 0), Handler)
    print(json.dumps({"port": server.server_address[1]}), flush=True)
    server.serve_forever()


def main():
    kind, path, resolution, threads, what, *seconds = sys.argv[1:]
    run = (onnxruntime_model if kind == "onnxruntime" else torch_model)(path, int(threads))
    if what == "bare":
        bare(run, int(resolution), float(seconds[0]))
    else:
        serve(run, int(resolution))


main()
