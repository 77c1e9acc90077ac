import { IMAGE, INPUT, PROBABILITIES } from '../graph/modelNames.js';
import type { InferenceSession as Session } from 'onnxruntime-node';
import type { Tensor as SafeTensor, Tensors } from '../checkpoint/safetensors.js';
import { concatenated, file, type Files } from '../encoding/container.js';
import { onnxModel } from '../onnx/model.js';
import type { BundleFormat } from './formats.js';
import type { BundleManifest } from './manifest.js';
import { graphModelOf } from './savedModelReader.js';
import { readUnfolded } from './unfolded.js';

/** Runs the model of a bundle on the golden vector's input: probabilities, [classes]. */
export type Runtime = (files: Files, manifest: BundleManifest, golden: Tensors) => Promise<Float32Array>;

/**
 * What each format is run by here: ONNX Runtime, TensorFlow.js on the CPU (a SavedModel's graph as well: it is the same kind of graph, and TensorFlow need not be
 * installed), and of plain weights the ONNX model that is written from them.
 */
export const runtimes: Readonly<Record<BundleFormat, Runtime>> = {
  onnx: (files, _manifest, golden) => runOnnx(file(files, 'model.onnx'), golden),
  safetensors: (files, { id }, golden) => {
    const { graph, weights, statistics } = readUnfolded(files);
    const input = golden.get(INPUT)!;
    const [, height, width] = input.shape as [number, number, number, number];
    const prepared: SafeTensor = { dtype: 'F32', shape: [1, 3, height, width], data: channelsFirst(input.data as Float32Array) };
    return runOnnx(onnxModel(graph, weights, statistics, { name: id }), new Map([[INPUT, prepared]]));
  },
  tfjs: (files, manifest, golden) => {
    const { modelTopology, weightsManifest } = JSON.parse(new TextDecoder().decode(file(files, 'model.json'))) as { modelTopology: object; weightsManifest: { paths: string[]; weights: object[] }[] };
    const data = weightsManifest.flatMap(({ paths }) => paths.map((path) => file(files, path)));
    return runGraphModel({ modelTopology, weightSpecs: weightsManifest.flatMap(({ weights }) => weights), weightData: data }, manifest, golden);
  },
  savedmodel: (files, manifest, golden) => runGraphModel(graphModelOf(file(files, 'saved_model.pb')), manifest, golden),
};

async function runOnnx(model: Uint8Array, golden: Tensors): Promise<Float32Array> {
  const { InferenceSession, Tensor } = await import('onnxruntime-node');
  const session: Session = await InferenceSession.create(model, { executionProviders: ['cpu'], logSeverityLevel: 3 });
  try {
    const name = session.inputNames[0]!;
    const { dtype, data, shape } = golden.get(name)!;
    const tensor = dtype === 'U8' ? new Tensor('uint8', data as Uint8Array, shape) : new Tensor('float32', data as Float32Array, shape);
    return Float32Array.from((await session.run({ [name]: tensor }, [PROBABILITIES]))[PROBABILITIES]!.data as Float32Array);
  } finally {
    await session.release();
  }
}

/** A graph of TensorFlow's nodes, as TensorFlow.js takes it. */
export interface GraphModel {
  readonly modelTopology: object;
  readonly weightSpecs: readonly object[];
  readonly weightData: readonly Uint8Array[];
}

async function runGraphModel({ modelTopology, weightSpecs, weightData }: GraphModel, { model }: BundleManifest, golden: Tensors): Promise<Float32Array> {
  const tf = await import('@tensorflow/tfjs-core');
  await import('@tensorflow/tfjs-backend-cpu');
  const { loadGraphModel } = await import('@tensorflow/tfjs-converter');
  tf.enableProdMode(); // says nothing of faster packages, and checks no value
  await tf.setBackend('cpu');
  const artifacts = { modelTopology, weightSpecs, weightData: concatenated(weightData).buffer } as Parameters<typeof tf.io.fromMemory>[0];
  const graph = await loadGraphModel(tf.io.fromMemory(artifacts));
  const { data, shape } = golden.get(model.preprocess ? IMAGE : INPUT)!;
  const input = model.preprocess ? tf.tensor(Int32Array.from(data), [...shape], 'int32') : tf.tensor(data as Float32Array, [...shape], 'float32');
  const output = graph.execute({ [model.preprocess ? IMAGE : INPUT]: input }, PROBABILITIES);
  try {
    return (await (Array.isArray(output) ? output[0]! : output).data()) as Float32Array;
  } finally {
    tf.dispose([input, output]);
    graph.dispose();
  }
}

/** One image [height, width, 3] as [3, height, width]. */
function channelsFirst(image: Float32Array): Float32Array {
  const area = image.length / 3;
  return Float32Array.from(image, (_, i) => image[(i % area) * 3 + Math.floor(i / area)]!);
}
