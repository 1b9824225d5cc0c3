// Pictures made smaller or larger exactly as Pillow and big_vision do it, so that the model sees the numbers it sees in Python.
//
// Pillow resizes each axis by itself: an output pixel is a weighted sum of the input pixels under a filter that is as wide as the
// shrinkage. Bytes are summed in whole numbers, with weights of 22 bits after the point, and rounded after each axis.

const BITS = 22;

const FILTERS = {
  bicubic: {
    support: 2,
    weight(x) {
      x = Math.abs(x);
      if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
      return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
    },
  },
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
};

// For each output pixel: the first input pixel that counts, and the weights from there on.
function windows(length, size, { support, weight }) {
  const scale = length / size;
  const stretch = Math.max(scale, 1);
  const reach = support * stretch;
  return Array.from({ length: size }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const last = Math.min(length, Math.trunc(centre + reach + 0.5));
    const weights = Array.from({ length: last - first }, (_, j) => weight((j + first - centre + 0.5) * (1 / stretch)));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: sum === 0 ? weights : weights.map((w) => w / sum) };
  });
}

// One axis of `pixels`, which has `outer` runs of `length` pixels that lie `inner` numbers apart -> the same with `size` pixels.
function along(pixels, outer, length, inner, size, filter, rounded) {
  if (length === size) return pixels;
  const out = new (rounded ? Uint8ClampedArray : Float32Array)(outer * size * inner);
  const places = windows(length, size, filter);
  const whole = rounded && places.map(({ weights }) => weights.map((w) => Math.trunc(w * 2 ** BITS + (w < 0 ? -0.5 : 0.5))));
  for (let run = 0; run < outer; run++) {
    for (let i = 0; i < size; i++) {
      const { first } = places[i];
      const weights = rounded ? whole[i] : places[i].weights;
      for (let k = 0; k < inner; k++) {
        let sum = rounded ? 2 ** (BITS - 1) : 0;
        for (let j = 0; j < weights.length; j++) sum += pixels[(run * length + first + j) * inner + k] * weights[j];
        out[(run * size + i) * inner + k] = rounded ? sum >> BITS : sum;
      }
    }
  }
  return out;
}

// Pillow's `resize`, of `depth` interleaved channels: bytes where `rounded`, else floats. Rows that are long are shortened first, unless
// far more rows are to go than columns; which comes first shows in the rounding.
export function resample(pixels, width, height, depth, toWidth, toHeight, name, rounded) {
  const filter = FILTERS[name];
  if (height > toHeight && height - toHeight > 2 * (width - toWidth)) {
    const low = along(pixels, 1, height, width * depth, toHeight, filter, rounded);
    return along(low, toHeight, width, depth, toWidth, filter, rounded);
  }
  const narrow = along(pixels, height, width, depth, toWidth, filter, rounded);
  return along(narrow, 1, height, toWidth * depth, toHeight, filter, rounded);
}

// big_vision's default: four neighbours, half-pixel centres, no antialias; float32 as in TensorFlow, then cut to bytes.
function neighbours(pixels, width, height, size) {
  const f = Math.fround;
  const [xs, ys] = [near(width, size), near(height, size)];
  const mix = (a, b, weight) => f(a + f(f(b - a) * weight));
  const out = new Uint8Array(size * size * 3);
  ys.forEach(([y0, y1, fy], y) =>
    xs.forEach(([x0, x1, fx], x) => {
      for (let c = 0; c < 3; c++) {
        const at = (row, column) => pixels[(row * width + column) * 3 + c];
        out[(y * size + x) * 3 + c] = mix(mix(at(y0, x0), at(y0, x1), fx), mix(at(y1, x0), at(y1, x1), fx), fy);
      }
    }),
  );
  return out;
}

function near(length, size) {
  const f = Math.fround;
  const scale = f(f(length) / f(size));
  return Array.from({ length: size }, (_, i) => {
    const centre = f(f(f(i + 0.5) * scale) - 0.5);
    const first = Math.floor(centre);
    return [Math.max(first, 0), Math.min(Math.ceil(centre), length - 1), f(centre - first)];
  });
}

const SQUARES = {
  bicubic: (pixels, width, height, size) => resample(pixels, width, height, 3, size, size, "bicubic", true),
  bilinear: neighbours,
  "bilinear-antialias": (pixels, width, height, size) => {
    const smooth = resample(Float32Array.from(pixels), width, height, 3, size, size, "bilinear", false);
    return Uint8Array.from(smooth, (value) => Math.min(Math.max(Math.fround(value + Math.fround(1e-4)), 0), 255));
  },
};

// RGB bytes of a whole picture -> what the model sees: float32 (3, size, size) in [-1, 1]. `name`: as `image.py` calls the ways.
export function toPixels(rgb, width, height, size, name) {
  const square = SQUARES[name](rgb, width, height, size);
  const values = Float32Array.from({ length: 256 }, (_, byte) => Math.fround(Math.fround(Math.fround(byte / 255) * 2) - 1));
  const out = new Float32Array(3 * size * size);
  for (let i = 0; i < size * size; i++) for (let c = 0; c < 3; c++) out[c * size * size + i] = values[square[3 * i + c]];
  return out;
}
