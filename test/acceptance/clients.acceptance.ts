/** Clients of the protocols that people have, unmodified, against the server. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import type { RunningServer } from '../../serve/server.js';
import { cifar10 } from '../../src/space/presets/cifar10.js';
import { makeCheckpoint } from '../support/checkpoint.js';
import { png } from '../support/images.js';
import { tritonPython } from '../support/python.js';
import { temporaryFolder, testServer } from '../support/server.js';

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let server: RunningServer;

before(async () => {
  folder = await temporaryFolder();
  await makeCheckpoint(cifar10, join(folder.path, 'checkpoint'));
  await writeFile(join(folder.path, 'photo.png'), await png(48, 40));
  server = await testServer(join(folder.path, 'checkpoint'), { maxBody: 8 * 2 ** 20 });
});
after(async () => {
  await server.stop(1000);
  await folder.remove();
});

const triton = String.raw`
import json, sys, urllib.request
import numpy
import tritonclient.http as triton

address, photo = sys.argv[1:]
client = triton.InferenceServerClient(address)
assert client.is_server_live() and client.is_server_ready()
assert client.get_server_metadata()["name"] == "bignas"
assert {model["name"] for model in client.get_model_repository_index()} >= {"bignas", "S", "M", "L", "XL"}
assert client.is_model_ready("M") and client.is_model_ready("bignas", "M")
metadata = client.get_model_metadata("M")
[declared] = metadata["inputs"]
size = declared["shape"][2]
classes = metadata["outputs"][0]["shape"][1]
tensor = numpy.random.default_rng(1).standard_normal((2, 3, size, size), dtype=numpy.float32)

def infer(model, binary_in, binary_out, version="", **more):
    given = triton.InferInput("input", tensor.shape, "FP32")
    given.set_data_from_numpy(tensor, binary_data=binary_in)
    wanted = triton.InferRequestedOutput("probabilities", binary_data=binary_out)
    return client.infer(model, [given], outputs=[wanted], model_version=version, request_id="mine", **more)

answers = [infer(*each).as_numpy("probabilities") for each in [("M", True, True), ("M", False, True), ("M", True, False), ("M", False, False), ("bignas", True, True, "M")]]
for answer in answers:
    assert answer.shape == (2, classes) and abs(answer.sum(1) - 1).max() < 1e-5
    assert abs(answer - answers[0]).max() < 1e-6
assert infer("M", True, True).get_response()["id"] == "mine"
assert infer("bignas", True, True, "", parameters={"arch": "M"}).get_response()["parameters"]["architecture"] == infer("M", True, True).get_response()["parameters"]["architecture"]

# The classification extension, and images to decode.
image = open(photo, "rb").read()
given = triton.InferInput("image", [1], "BYTES")
given.set_data_from_numpy(numpy.array([image], dtype=object), binary_data=True)
best = client.infer("M", [given], outputs=[triton.InferRequestedOutput("probabilities", class_count=3)]).as_numpy("probabilities")
assert best.shape == (1, 3), best
probability, index, label = best[0][0].decode().split(":", 2)
answer = json.load(urllib.request.urlopen(urllib.request.Request(f"http://{address}/predict?arch=M&top=3", image, {"Content-Type": "image/png"})))
expected = answer["predictions"][0]["classes"][0]
assert abs(float(probability) - expected["probability"]) < 1e-5 and int(index) == expected["index"] and label == expected["label"]

# Several requests at a time, and an error.
pending = []
concurrent = triton.InferenceServerClient(address, concurrency=8)
for _ in range(32):
    given = triton.InferInput("input", tensor.shape, "FP32")
    given.set_data_from_numpy(tensor)
    pending.append(concurrent.async_infer("S", [given]) if size == client.get_model_metadata("S")["inputs"][0]["shape"][2] else None)
for each in pending:
    if each is not None:
        assert each.get_result().as_numpy("probabilities").shape == (2, classes)
try:
    client.infer("nobody", [given])
    raise SystemExit("expected an error")
except triton.InferenceServerException as error:
    assert "Expected the model" in error.message(), error
print("ok")
`;

test("tritonclient does metadata, ready, the repository's index, and infer with JSON and binary tensors", async () => {
  const { stdout } = await promisify(execFile)(tritonPython(), ['-c', triton, server.url.replace('http://', ''), join(folder.path, 'photo.png')]);
  assert.equal(stdout.trim(), 'ok');
});
