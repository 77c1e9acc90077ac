/** Images [N, channels, area] as [N, area, channels]. */
export function channelsLast(data: Float32Array, channels: number, area: number): Float32Array {
  const moved = new Float32Array(data.length);
  const image = channels * area;
  for (let i = 0; i < data.length; i++) {
    const [n, c, at] = [Math.floor(i / image), Math.floor((i % image) / area), i % area];
    moved[n * image + at * channels + c] = data[i]!;
  }
  return moved;
}
