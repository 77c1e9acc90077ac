import { costsOf, frontierChildren, type Checkpoint } from '../checkpoint/checkpoint.js';
import { familyNames, type ChildRecord, type FamilyName } from '../checkpoint/frontier.js';
import { buildGraph } from '../graph/buildGraph.js';
import { formatArchitecture, type Architecture } from '../space/architecture.js';
import { architectureId } from '../space/identity.js';

/** What is known of a child without computing with its weights. */
export interface ChildDescription {
  readonly id: string;
  /** Canonical text. */
  readonly architecture: string;
  /** Its name in the family, the smallest's where it has several; undefined for most. */
  readonly name: FamilyName | undefined;
  /** Input height and width in pixels. */
  readonly resolution: number;
  readonly costs: ChildRecord['costs'];
  /** As the frontier has it (on validation images); null where nobody measured it. */
  readonly accuracy: ChildRecord['accuracy'];
  /** On the test split, where the checkpoint's manifest has it. */
  readonly test: { readonly value: number; readonly images: number } | null;
}

/** Describes a child of the checkpoint's space: by the frontier where it is in there, by counting where it is not. */
export function describeChild(checkpoint: Pick<Checkpoint, 'manifest' | 'frontier'>, architecture: Architecture): ChildDescription {
  const { manifest, frontier } = checkpoint;
  const id = architectureId(manifest.space, architecture);
  const record = frontierChildren(frontier).find((child) => child.id === id);
  const score = manifest.scores?.accuracy[id];
  return {
    id,
    architecture: formatArchitecture(architecture),
    name: familyNames.find((name) => frontier.family[name].id === id),
    resolution: architecture.resolution,
    costs: record?.costs ?? costsOf(buildGraph(manifest.space, architecture)),
    accuracy: record?.accuracy ?? null,
    test: score === undefined ? null : { value: score, images: manifest.scores!.images },
  };
}
