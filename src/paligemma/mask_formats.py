"""Boolean masks <-> COCO run lengths, polygons, and the run lengths of two annotation tools. numpy only.

Run lengths are COCO's: down the columns (column-major), starting with the number of background pixels; the compressed string is the one
`pycocotools` reads and writes. Polygons run along the edges between pixels, so they describe a mask exactly.
"""

from __future__ import annotations

import numpy as np

Polygon = tuple[tuple[int, int], ...]
"""Corners (x, y) of one closed ring, in pixels; (0, 0) is the top left corner of the top left pixel. The last point is not the first."""


def run_lengths(mask: np.ndarray) -> list[int]:
    """(H, W) mask -> lengths of the runs of background, object, background, ... down the columns. The first may be 0."""
    flat = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    counts = np.diff(np.concatenate(([0], changes, [flat.size]))).tolist()
    return [0, *counts] if flat.size and flat[0] else counts


def from_run_lengths(counts: list[int], height: int, width: int) -> np.ndarray:
    """The inverse of `run_lengths`. Raises `ValueError` if the runs do not fill height x width pixels."""
    if any(count < 0 for count in counts) or sum(counts) != height * width:
        raise ValueError(f"run lengths must add up to {height} x {width} pixels")
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape((height, width), order="F")


def compress(counts: list[int]) -> str:
    """Run lengths -> COCO's string: from the fourth on the difference to the count before last, 5 bits a character, lowest first.

    Bit 5 says that more characters of the same number follow; the last one's bit 4 is the sign. Characters start at "0".
    """
    out = []
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            done = value == (-1 if bits & 16 else 0)
            out.append(chr(48 + (bits if done else bits | 32)))
            if done:
                break
    return "".join(out)


def decompress(text: str) -> list[int]:
    """The inverse of `compress`. Raises `ValueError` on characters that are not COCO's or a number that does not end."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(f"{character!r} does not occur in compressed run lengths")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            if bits & 16:
                value -= 1 << shift
            counts.append(value + counts[-2] if len(counts) > 2 else value)
            value = shift = 0
    if shift:
        raise ValueError("compressed run lengths end in the middle of a number")
    return counts


def polygons(mask: np.ndarray) -> tuple[Polygon, ...]:
    """(H, W) mask -> one ring for each 4-connected part, clockwise on the screen, from top to bottom.

    Rings follow the edges of pixels: filling them (even-odd, at pixel centres) gives the mask back, pixel for pixel. A hole is joined to
    the ring around it by a cut of no width, walked there and back, because most formats have no holes: one ring still says everything.
    """
    mask = np.asarray(mask, bool)
    rings, owner = _rings(mask)
    root = list(range(len(rings)))
    holes = [i for i, ring in enumerate(rings) if _doubled_area(ring) < 0]
    # From left to right: whatever a cut meets on its way left lies further left, so it has been joined already.
    for i in sorted(holes, key=lambda i: min(rings[i])):
        x, y = corner = min(rings[i])
        left = x
        while left and mask[y, left - 1]:
            left -= 1
        target = owner[left, y + 1]
        while root[target] != target:
            target = root[target]
        root[i] = target
        around, start = rings[target], rings[i].index(corner)
        at = _index_of_edge(around, (left, y + 1), (left, y))
        rings[target] = [*around[: at + 1], *rings[i][start:], *rings[i][: start + 1], *around[at:]]
    return tuple(_corners(ring) for i, ring in enumerate(rings) if root[i] == i)


def simplified(ring: Polygon, tolerance: float) -> Polygon:
    """Fewer of its corners: those that are left out lie within `tolerance` pixels of the new outline (Douglas and Peucker)."""
    points = np.array([*ring, ring[0]], float)
    far = int(np.argmax(np.linalg.norm(points - points[0], axis=1)))
    kept, waiting = {0, far}, [(0, far), (far, len(ring))]
    while waiting:
        start, stop = waiting.pop()
        if stop - start < 2:
            continue
        way, off = points[stop] - points[start], points[start + 1 : stop] - points[start]
        along = np.clip(off @ way / max(way @ way, 1.0), 0.0, 1.0)
        distances = np.linalg.norm(off - along[:, None] * way, axis=1)
        if distances.max() > tolerance:
            middle = start + 1 + int(np.argmax(distances))
            kept.add(middle)
            waiting += [(start, middle), (middle, stop)]
    return tuple(ring[place] for place in sorted(kept)) if len(kept) > 2 else ring


# East, south, west, north, as (dx, dy). A ring has its object on the right hand, so a part is walked clockwise and its holes the other way.
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))


def _rings(mask: np.ndarray) -> tuple[list[list[tuple[int, int]]], dict[tuple[int, int], int]]:
    """Every ring as unit steps, and which ring walks north from a given point."""
    padded = np.pad(mask, 1)
    ne, nw, se, sw = padded[:-1, 1:], padded[:-1, :-1], padded[1:, 1:], padded[1:, :-1]
    width = ne.shape[1]
    # leaves[d][point]: an edge leaves that point in direction d
    leaves = [bytearray(edges.tobytes()) for edges in (se & ~ne, sw & ~se, nw & ~sw, ne & ~nw)]
    rings: list[list[tuple[int, int]]] = []
    owner: dict[tuple[int, int], int] = {}
    for start in np.flatnonzero(se & ~ne).tolist():
        if not leaves[0][start]:
            continue
        ring: list[tuple[int, int]] = []
        point, heading = start, 0
        while leaves[heading][point]:
            leaves[heading][point] = 0
            y, x = divmod(point, width)
            ring.append((x, y))
            if heading == 3:
                owner[x, y] = len(rings)
            dx, dy = _STEPS[heading]
            point += dx + dy * width
            # Right before straight before left: where two pixels touch at a corner, stay with this one. A finished ring has none.
            heading = next((d for d in ((heading + 1) % 4, heading, (heading + 3) % 4) if leaves[d][point]), heading)
        rings.append(ring)
    return rings, owner


def _doubled_area(ring: list[tuple[int, int]]) -> int:
    return sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True))


def _index_of_edge(ring: list[tuple[int, int]], start: tuple[int, int], end: tuple[int, int]) -> int:
    """Where `end` follows `start`; -1, the last, if the edge closes the ring."""
    return next(i for i in range(len(ring)) if ring[i - 1] == start and ring[i] == end)


def _corners(ring: list[tuple[int, int]]) -> Polygon:
    """Without the points at which the direction stays the same."""

    def heading(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        return (b[0] > a[0]) - (b[0] < a[0]), (b[1] > a[1]) - (b[1] < a[1])

    after = [*ring[1:], ring[0]]
    return tuple(b for i, b in enumerate(ring) if heading(ring[i - 1], b) != heading(b, after[i]))


def joined(rings: tuple[Polygon, ...]) -> Polygon:
    """Rings of `polygons` as one, for formats that have one ring an object: cuts of no width lead from the first to each other one.

    A cut goes along the edges of pixels, where no pixel has its centre: the ring, filled, is still the mask.
    """
    first, *others = rings
    (x, y), ring = first[0], list(first)
    for other in others:
        corner = (other[0][0], y)
        ring += [(x, y), corner, *other, other[0], corner]
    return (*ring, (x, y)) if others else first


def cvat_runs(mask: np.ndarray) -> tuple[list[int], int, int, int, int]:
    """(H, W) mask with a pixel at least -> CVAT's: runs along the rows of the box around it, background first; left, top, width, height."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    return run_lengths(mask[top:bottom, left:right].T), left, top, right - left, bottom - top


BRUSH_SIZES = (3, 4, 8, 16)
"""Bits that the length of a run may have in `brush`."""


def brush(mask: np.ndarray) -> list[int]:
    """(H, W) mask -> the bytes of Label Studio's brush: runs along the rows over red, green, blue and alpha, which are all 0 or all 255.

    32 bits: how many values; 5: bits of a value, less one; 4 times 4: bits of a length, less one. Then, for each run, 1; 2 bits: which
    of the four; the length, less one; the value.
    """
    bits = [f"{4 * mask.size:032b}", f"{7:05b}", *(f"{size - 1:04b}" for size in BRUSH_SIZES)]
    for i, count in enumerate(run_lengths(mask.T)):
        for start in range(0, 4 * count, 1 << BRUSH_SIZES[-1]):
            length = min(4 * count - start, 1 << BRUSH_SIZES[-1])
            which = next(j for j, size in enumerate(BRUSH_SIZES) if length <= 1 << size)
            bits.append(f"1{which:02b}{length - 1:0{BRUSH_SIZES[which]}b}{255 * (i % 2):08b}")
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def from_brush(data: list[int], height: int, width: int) -> np.ndarray:
    """The inverse of `brush`, of what the tool itself writes too: values that differ one by one stand after a 0 in place of the 1.

    Raises `ValueError` where it ends too early, or is of another size.
    """
    packed = bytes(data)
    text, at = f"{int.from_bytes(packed, 'big'):0{8 * len(packed)}b}", 0

    def number(bits: int) -> int:
        nonlocal at
        at += bits
        if at > len(text):
            raise ValueError("the brush ends too early")
        return int(text[at - bits : at], 2)

    total, word, sizes = number(32), number(5) + 1, [number(4) + 1 for _ in BRUSH_SIZES]
    if total != 4 * height * width:
        raise ValueError(f"the brush has {total // 4} pixels, the picture {height * width}")
    values = np.zeros(total, bool)
    done = 0
    while done < total:
        run, length = number(1), number(sizes[number(2)]) + 1
        if run:
            values[done : done + length] = number(word) > 0
        else:
            values[done : done + length] = [number(word) > 0 for _ in range(min(length, total - done))]
        done += length
    return values.reshape(height, width, 4)[..., 3].copy()
