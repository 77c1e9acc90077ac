import type { BundleManifest } from './manifest.js';

/** The bundle's README.md: what it is, how images are prepared, and the Python that runs it. A function of the manifest. */
export function bundleReadme(manifest: Omit<BundleManifest, 'files'>): string {
  const { architecture, id, name, costs, accuracy, test, labels, preprocessing: p, checkpoint, licence, space } = manifest;
  const percent = (value: number): string => `${(100 * value).toFixed(2)} %`;
  const scores = [
    accuracy && `${percent(accuracy.value)} top-1 on ${accuracy.images} ${accuracy.split} images`,
    test && `${percent(test.value)} top-1 on ${test.images} test images`,
  ].filter((score) => score !== null);
  return `# A child of ${checkpoint.name}${name === null ? '' : `: ${name}`}

- Architecture \`${architecture}\` (id ${id}, space ${space.name})
- ${millions(costs.flops.value)} M multiply-adds an image (${costs.flops.how}), ${millions(costs.params.value)} M parameters
- ${scores.length > 0 ? scores.join('; ') : 'Accuracy: not measured'}
- ${labels.length} classes: ${shortList(labels)}
- Licence ${licence}. \`manifest.json\` has all of this for programs, and the SHA-256 of every file.

## Run it

Prepare an image:

\`\`\`python
# pip install numpy pillow onnxruntime
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

\`\`\`python
import onnxruntime as ort
crop = prepare(Image.open("photo.jpg"))
probabilities = ort.InferenceSession("model.onnx").run(["probabilities"], {"input": crop})[0][0]
for i in probabilities.argsort()[::-1][:5]: print(f"{probabilities[i]:.4f}", labels[i])
\`\`\`

## The preparation in words

1. Turn the image upright, put transparency on white, convert it to sRGB, 8 bits a channel.
2. Unless it is ${p.crop}×${p.crop} already: resize it so that its shorter side is ${p.shorterSide} pixels, keeping its aspect, and cut
   ${p.crop}×${p.crop} from the centre (offsets rounded down); round and clamp to 0 … 255.
3. Resize that crop to ${p.resolution}×${p.resolution}, without rounding or clamping.
4. Divide by 255, subtract the mean (${p.mean.join(', ')}), divide by the deviation (${p.deviation.join(', ')}), per channel R, G, B.
5. The input is float32 [batch, 3, ${p.resolution}, ${p.resolution}].

Every resize is bicubic with a = ${p.resize.a}, half-pixel centres, antialiased when shrinking: Pillow's \`BICUBIC\` on planes of floats.
`;
}

function millions(value: number): string {
  return (value / 1e6).toFixed(value < 1e7 ? 2 : 0);
}

function shortList(labels: readonly string[]): string {
  return labels.length <= 12 ? labels.join(', ') : `${labels.slice(0, 10).join(', ')}, …`;
}
