import type { BundleManifest } from './manifest.js';

type Described = Omit<BundleManifest, 'files'>;

/** The bundle's README.md: what it is, how images are prepared, and the lines that run it in its runtime. A function of the manifest. */
export function bundleReadme(manifest: Described): string {
  const { architecture, id, name, costs, accuracy, test, labels, checkpoint, licence, space, model } = manifest;
  const percent = (value: number): string => `${(100 * value).toFixed(2)} %`;
  const scores = [
    accuracy && `${percent(accuracy.value)} top-1 on ${accuracy.images} ${accuracy.split} images`,
    test && `${percent(test.value)} top-1 on ${test.images} test images`,
  ].filter((score) => score !== null);
  return `# A child of ${checkpoint.name}${name === null ? '' : `: ${name}`}

- Architecture \`${architecture}\` (id ${id}, space ${space.name})
- ${millions(costs.flops.value)} M multiply-adds an image (${costs.flops.how}), ${millions(costs.params.value)} M parameters
- ${scores.length > 0 ? scores.join('; ') : 'Accuracy: not measured'}${scores.length > 0 && model.dtype !== 'float32' ? ' (in float32)' : ''}
- ${labels.length} classes: ${shortList(labels)}
- Format ${model.format}, ${model.dtype}${model.preprocess ? ', takes images as they are' : ''}
- Licence ${licence}. \`manifest.json\` has all of this for programs, and the SHA-256 of every file; \`sha256sum --check SHA256SUMS\` checks them.

${runners[model.format](manifest)}
## Is it right?

\`golden.safetensors\` holds a photograph (\`image\`)${model.preprocess ? '' : ', what the model takes for it (`input`)'} and the answer (\`logits\`, \`probabilities\`${model.dtype === 'float16' ? ', of float32' : ''}). Whatever runs this model should give these probabilities
to ${manifest.golden.tolerance}. \`bignas-slice verify BUNDLE\` checks that, and every byte.
${model.preprocess ? '' : preparationInWords(manifest)}`;
}

const runners: Readonly<Record<Described['model']['format'], (manifest: Described) => string>> = { onnx, tfjs, savedmodel, safetensors };

function onnx(manifest: Described): string {
  const { preprocess } = manifest.model;
  return `## Run it

${preprocess ? openImage('numpy pillow onnxruntime') : preparation('numpy pillow onnxruntime', manifest)}
\`\`\`python
import onnxruntime as ort
${preprocess ? 'image = load(Image.open("photo.jpg"))' : 'crop = prepare(Image.open("photo.jpg"))'}
probabilities = ort.InferenceSession("model.onnx").run(["probabilities"], {${preprocess ? '"image": image' : '"input": crop'}})[0][0]
for i in probabilities.argsort()[::-1][:5]: print(f"{probabilities[i]:.4f}", labels[i])
\`\`\`
`;
}

function savedmodel(manifest: Described): string {
  const { preprocess } = manifest.model;
  return `## Run it

${preprocess ? openImage('numpy pillow tensorflow') : preparation('numpy pillow tensorflow', manifest)}
\`\`\`python
import tensorflow as tf
${preprocess ? 'image = load(Image.open("photo.jpg"))' : 'crop = prepare(Image.open("photo.jpg")).transpose(0, 2, 3, 1)'}
run = tf.saved_model.load(".").signatures["serving_default"]
probabilities = run(${preprocess ? 'image=tf.constant(image)' : 'input=tf.constant(crop)'})["probabilities"].numpy()[0]
for i in probabilities.argsort()[::-1][:5]: print(f"{probabilities[i]:.4f}", labels[i])
\`\`\`

TensorFlow Serving: put this folder's files into \`models/child/1/\` and

\`\`\`sh
docker run -p 8501:8501 -v "$PWD/models/child:/models/child" -e MODEL_NAME=child tensorflow/serving
\`\`\`

TensorFlow Lite:

\`\`\`py
open("model.tflite", "wb").write(tf.lite.TFLiteConverter.from_saved_model(".").convert())
\`\`\`
`;
}

function tfjs(manifest: Described): string {
  const { preprocess } = manifest.model;
  const { resolution } = manifest.preprocessing;
  const labels = `const { labels } = await (await fetch('manifest.json')).json();`;
  const show = `const best = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]).slice(0, 5);
for (const i of best) console.log(probabilities[i].toFixed(4), labels[i]);`;
  return `## Run it

In a page that a server serves beside these files:

\`\`\`html
<script src="https://cdn.jsdelivr.net/npm/@tensorflow/tfjs@4.22.0/dist/tf.min.js"></script>
<img id="photo" src="photo.jpg">
<script type="module">
${labels}
const model = await tf.loadGraphModel('model.json');
await photo.decode();
${preprocess
  ? `const image = tf.browser.fromPixels(photo).expandDims(0);
const probabilities = await model.execute({ image }, 'probabilities').data();`
  : `// \`prepare\`: the preparation below, as float32 [1, ${resolution}, ${resolution}, 3]. With preprocess=true the model does it itself.
const probabilities = await model.execute({ input: prepare(photo) }, 'probabilities').data();`}
${show}
</script>
\`\`\`

In Node, with \`@tensorflow/tfjs-node\`: \`tf.loadGraphModel('file://' + path)\`.
`;
}

function safetensors({ model }: Described): string {
  return `## What it is for

Plain weights, nothing folded: \`weights.safetensors\` (kernels [out, in, height, width], each batch norm's \`gamma\` and \`beta\`), \`statistics.safetensors\` (each batch norm's \`mean\` and
\`variance\`), \`graph.json\` (every node, its inputs and tensors, in the order of execution), \`architecture.json\` (the architecture and its search space).

\`\`\`python
# pip install numpy safetensors
import json
from safetensors.numpy import load_file
weights, statistics = load_file("weights.safetensors"), load_file("statistics.safetensors")
nodes = json.load(open("graph.json"))["nodes"]
print(len(nodes), "nodes,", sum(w.size for w in weights.values()), "parameters")
\`\`\`

To ONNX, without a server: \`bignas-slice onnx BUNDLE --output model.onnx\`.${model.dtype === 'float32' ? `
To another child, by what it has beyond this one: \`GET /slice?arch=OTHER&have=THIS&format=safetensors\`, then \`bignas-slice apply BUNDLE DELTA\`.` : ''}
`;
}

/** Python that opens an image for a model that prepares it itself. */
function openImage(packages: string): string {
  return `\`\`\`python
# pip install ${packages}
import json, numpy as np
from PIL import Image, ImageOps
labels = json.load(open("manifest.json"))["labels"]

def load(image):
    image = ImageOps.exif_transpose(image)
    image = (image.convert("RGB") if image.mode == "CMYK" else image).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return np.asarray(image)[None]
\`\`\`
`;
}

/** Python that prepares an image. */
function preparation(packages: string, { preprocessing: p }: Described): string {
  return `Prepare an image:

\`\`\`python
# pip install ${packages}
import json, numpy as np
from PIL import Image, ImageOps
labels = json.load(open("manifest.json"))["labels"]

def prepare(image, side=${p.shorterSide}, crop=${p.crop}, resolution=${p.resolution}):
    image = ImageOps.exif_transpose(image)
    image = (image.convert("RGB") if image.mode == "CMYK" else image).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    planes = [c.convert("F") for c in image.split()]
    (w, h), short = image.size, min(image.size)
    if (w, h) != (crop, crop):
        w, h = int(w * side / short + 0.5), int(h * side / short + 0.5)
        left, top = (w - crop) // 2, (h - crop) // 2
        planes = [c.resize((w, h), Image.BICUBIC).crop((left, top, left + crop, top + crop)) for c in planes]
        planes = [Image.fromarray(np.floor(np.clip(np.asarray(c), 0, 255) + 0.5)) for c in planes]
    planes = [np.asarray(c.resize((resolution, resolution), Image.BICUBIC)) for c in planes]
    mean, deviation = np.float32(${JSON.stringify(p.mean)}), np.float32(${JSON.stringify(p.deviation)})
    return ((np.stack(planes) / 255 - mean[:, None, None]) / deviation[:, None, None])[None].astype(np.float32)
\`\`\`

and run the model:
`;
}

function preparationInWords({ model, preprocessing: p }: Described): string {
  const shape = model.format === 'onnx' ? `[batch, 3, ${p.resolution}, ${p.resolution}]` : `[batch, ${p.resolution}, ${p.resolution}, 3]`;
  return `
## The preparation in words

1. Turn the image upright, put transparency on white, convert it to sRGB, 8 bits a channel.
2. Unless it is ${p.crop}×${p.crop} already: resize it so that its shorter side is ${p.shorterSide} pixels, keeping its aspect, and cut
   ${p.crop}×${p.crop} from the centre (offsets rounded down); round and clamp to 0 … 255.
3. Resize that crop to ${p.resolution}×${p.resolution}, without rounding or clamping.
4. Divide by 255, subtract the mean (${p.mean.join(', ')}), divide by the deviation (${p.deviation.join(', ')}), per channel R, G, B.
5. The input is float32 ${shape}.

Every resize is bicubic with a = ${p.resize.a}, half-pixel centres, antialiased when shrinking: Pillow's \`BICUBIC\` on planes of floats.
`;
}

function millions(value: number): string {
  return (value / 1e6).toFixed(value < 1e7 ? 2 : 0);
}

function shortList(labels: readonly string[]): string {
  return labels.length <= 12 ? labels.join(', ') : `${labels.slice(0, 10).join(', ')}, …`;
}
