"""A k-d tree, compiled by numba: neighbours on a CPU without a table of all distances.

Rows are halved along their widest dimension until LEAF of them are left. A search descends to the
nearest leaf first and then into every box that is nearer than the best so far.

    node n ──> 2n, 2n + 1; nodes L .. 2L - 1 are leaves
    boxes (2 L, 2, d)            least and greatest values of each node
    leaves (L, d, LEAF) float32, filled up with infinity, which is nobody's neighbour

Leaves are large and in columns, so that the vectoriser scans one in less time than two steps down
the tree take.
"""

# mypy: ignore-errors

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from codec.jit import machine_code

LEAF = 128  # 64 to 256 are alike in 3 to 8 dimensions


class Tree:
    """The tree of (Q >= 1, d) finite float32 rows."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        depth = max(0, int(np.ceil(np.log2(len(rows) / LEAF))))
        self.boxes, self.leaves, self.order, self.starts = _build(rows, depth)

    def radii(
        self, queries: NDArray[np.float32], ks: NDArray[np.int64], out: NDArray[np.float32]
    ) -> None:
        """See `_radii`."""
        _radii(queries, self.boxes, self.leaves, ks, out)

    def nearest(
        self, queries: NDArray[np.float32], weights: NDArray[np.float32], out: NDArray[np.int64]
    ) -> None:
        """See `_nearest`."""
        _nearest(queries, weights, self.boxes, self.leaves, self.order, self.starts, out)


@machine_code
def _build(rows, depth):
    """Builds boxes and leaves, L = 2^depth.

    Also returned: (Q,) the rows' numbers in the order of the leaves, (L,) where each leaf starts.
    """
    num_rows, dim = rows.shape
    num_leaves = 1 << depth
    order = np.arange(num_rows)
    keys = np.empty(num_rows, np.float32)
    bounds = np.zeros((2 * num_leaves, 2), np.int64)
    bounds[1, 1] = num_rows
    boxes = np.empty((2 * num_leaves, 2, dim), np.float32)
    for node in range(1, 2 * num_leaves):
        start, stop = bounds[node]
        boxes[node, 0], boxes[node, 1] = np.inf, -np.inf
        for place in range(start, stop):
            row = rows[order[place]]
            for i in range(dim):
                boxes[node, 0, i] = min(boxes[node, 0, i], row[i])
                boxes[node, 1, i] = max(boxes[node, 1, i], row[i])
        if node < num_leaves:
            widest = np.argmax(boxes[node, 1] - boxes[node, 0])
            for place in range(start, stop):
                keys[place] = rows[order[place], widest]
            middle = (start + stop) // 2
            _part(keys, order, start, stop - 1, middle)
            bounds[2 * node, 0], bounds[2 * node, 1] = start, middle
            bounds[2 * node + 1, 0], bounds[2 * node + 1, 1] = middle, stop
    leaves = np.full((num_leaves, dim, LEAF), np.inf, np.float32)
    for leaf in range(num_leaves):
        start, stop = bounds[num_leaves + leaf]
        for place in range(start, stop):
            for i in range(dim):
                leaves[leaf, i, place - start] = rows[order[place], i]
    return boxes, leaves, order, bounds[num_leaves:, 0].copy()


@machine_code
def _part(keys, order, low, high, middle):
    """Hoare's quickselect, in place.

    Afterwards no key of low .. middle - 1 is above keys[middle], none of middle .. high below.
    """
    while low < high:
        first, second, third = keys[low], keys[(low + high) // 2], keys[high]
        pivot = max(min(first, second), min(max(first, second), third))
        i, j = low, high
        while i <= j:
            while keys[i] < pivot:
                i += 1
            while pivot < keys[j]:
                j -= 1
            if i <= j:
                keys[i], keys[j] = keys[j], keys[i]
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if middle <= j:
            high = j
        elif middle >= i:
            low = i
        else:
            return


@machine_code
def _gap(query, boxes, node):
    """The squared distance of a point to a box.

    No row inside is nearer, whatever the rounding, which is monotonic.
    """
    total = np.float32(0)
    for i in range(len(query)):
        gap = max(max(boxes[node, 0, i] - query[i], query[i] - boxes[node, 1, i]), np.float32(0))
        total += gap * gap
    return total


@machine_code
def _radii(queries, boxes, leaves, ks, out):
    """out[j, n]: the distance of query n to its ks[j]-th nearest row; ks ascending, at most Q.

    NaN to NaN.
    """
    num_leaves, dim, _ = leaves.shape
    best = np.empty(ks[-1], np.float32)
    last = len(best) - 1
    squared = np.empty(LEAF, np.float32)
    nodes = np.empty(64, np.int64)  # those still to visit: one for each level at most
    gaps = np.empty(64, np.float32)
    for n in range(len(queries)):
        query = queries[n]
        best[:] = np.inf
        nodes[0], gaps[0] = 1, 0
        waiting = 1
        while waiting > 0:
            waiting -= 1
            node = nodes[waiting]
            if not gaps[waiting] < best[last]:
                continue
            while node < num_leaves:
                node *= 2
                near, far = _gap(query, boxes, node), _gap(query, boxes, node + 1)
                other = node + 1
                if far < near:
                    near, far = far, near
                    node, other = other, node
                if far < best[last]:
                    nodes[waiting], gaps[waiting] = other, far
                    waiting += 1
                if not near < best[last]:
                    break
            if node < num_leaves:
                continue
            leaf = leaves[node - num_leaves]
            squared[:] = 0
            for i in range(dim):
                for j in range(LEAF):
                    difference = leaf[i, j] - query[i]
                    squared[j] += difference * difference
            nearer = 0
            for j in range(LEAF):
                nearer += np.int32(squared[j] < best[last])
            if nearer == 0:
                continue
            for j in range(LEAF):
                value = squared[j]
                if value < best[last]:
                    place = last
                    while place > 0 and best[place - 1] > value:
                        best[place] = best[place - 1]
                        place -= 1
                    best[place] = value
        for j in range(len(ks)):
            out[j, n] = np.sqrt(best[ks[j] - 1])
        for i in range(dim):
            if np.isnan(query[i]):
                out[:, n] = np.nan


@machine_code
def _weighted_gap(query, weight, boxes, node):
    """As `_gap`, in float64, with a weight for each dimension."""
    total = 0.0
    for i in range(len(query)):
        gap = max(max(boxes[node, 0, i] - query[i], query[i] - boxes[node, 1, i]), 0.0)
        total += gap * gap * weight[i]
    return total


@machine_code
def _nearest(queries, weights, boxes, leaves, order, starts, out):
    """out[n]: the row with the least sum_i w_ni (x_ni - row_i)^2, float64 sums in that order.

    Ties go to the lowest row.

    `weights` is (N, d) positive, or (1, d) for all. Queries and weights are finite.
    """
    num_leaves, dim, _ = leaves.shape
    squared = np.empty(LEAF)
    query, weight = np.empty(dim), np.empty(dim)
    nodes = np.empty(64, np.int64)
    gaps = np.empty(64)
    for n in range(len(queries)):
        for i in range(dim):
            query[i], weight[i] = queries[n, i], weights[n if len(weights) > 1 else 0, i]
        best, index = np.inf, len(order)
        nodes[0], gaps[0] = 1, 0
        waiting = 1
        while waiting > 0:
            waiting -= 1
            node = nodes[waiting]
            if gaps[waiting] > best:  # but not where equal: a tie may have a lower row
                continue
            while node < num_leaves:
                node *= 2
                near = _weighted_gap(query, weight, boxes, node)
                far = _weighted_gap(query, weight, boxes, node + 1)
                other = node + 1
                if far < near:
                    near, far = far, near
                    node, other = other, node
                if far <= best:
                    nodes[waiting], gaps[waiting] = other, far
                    waiting += 1
                if near > best:
                    break
            if node < num_leaves:
                continue
            leaf, start = leaves[node - num_leaves], starts[node - num_leaves]
            squared[:] = 0
            for i in range(dim):
                for j in range(LEAF):
                    difference = leaf[i, j] - query[i]
                    squared[j] += difference * difference * weight[i]
            nearer = 0
            for j in range(LEAF):
                nearer += np.int32(squared[j] <= best)
            if nearer == 0:
                continue
            for j in range(LEAF):
                if squared[j] < best:
                    best, index = squared[j], order[start + j]
                elif squared[j] == best and squared[j] < np.inf:
                    index = min(index, order[start + j])
        out[n] = index
