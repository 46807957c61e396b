/** The similarity of vectors. */

export function cosine(a: readonly number[], b: readonly number[]): number {
  let [dot, lengthA, lengthB] = [0, 0, 0];
  for (let index = 0; index < a.length; index++) {
    const [x = 0, y = 0] = [a[index], b[index]];
    dot += x * y;
    lengthA += x * x;
    lengthB += y * y;
  }
  return lengthA && lengthB ? dot / Math.sqrt(lengthA * lengthB) : 0;
}

export interface Similarities {
  /** The similarity of each pair of vectors, by rows. */
  matrix: number[][];
  /** The lowest and the highest similarity of two different vectors. */
  lowest: number;
  highest: number;
  closest: [number, number];
}

export function similarities(vectors: readonly (readonly number[])[]): Similarities {
  const matrix = vectors.map((a) => vectors.map((b) => cosine(a, b)));
  let [lowest, highest] = [1, -1];
  let closest: [number, number] = [0, 1];
  for (let row = 0; row < matrix.length; row++) {
    for (let column = row + 1; column < matrix.length; column++) {
      const value = matrix[row]?.[column] ?? 0;
      lowest = Math.min(lowest, value);
      if (value > highest) [highest, closest] = [value, [row, column]];
    }
  }
  return { matrix, lowest, highest, closest };
}
