"""The inner loop of `mixing`, compiled by numba.

One function serves both directions, so that they cannot drift apart.

The loops are written for the vectoriser: plain int32 arrays, sums that are stored before they are
used (numba computes in 64 bits otherwise, at half the speed).
"""

# mypy: ignore-errors

import numpy as np

from codec.entropy.mixing import HIDDEN_SHIFT, LOGIT_SHIFT, RATE_SHIFT, REFINED_SHIFT, SPEED_BITS
from codec.entropy.prior import BIT_BITS, HIGHEST, LOGIT_LIMIT, MAX_WEIGHT
from codec.entropy.range_coder import FLOOR, KEPT_BITS, WORD_BITS
from codec.jit import machine_code

HALF = 1 << RATE_SHIFT - 1


@machine_code
def code(decoding, positions, choice, columns, begin, net):
    """Codes all positions, with the arguments and result of `mixing.code`."""
    options, penalties, prices = choice
    words, capacity, low, width = begin
    (
        levels,
        starts,
        offsets,
        embedding,
        first,
        speeds,
        trend_weights,
        first_bias,
        inner,
        bias,
        digits,
        nodes,
        squash,
        given,
    ) = net
    count, num_digits = positions.shape
    num_neighbours, num_rows, first_size = first.shape
    num_wide, size = inner.shape
    num_features = embedding.shape[1]
    num_speeds = len(speeds)
    weights = nodes.copy()
    sums = np.empty(first_size, np.int32)
    start = np.empty(size, np.int32)
    sketch = np.empty(size, np.int32)
    hidden = np.empty(size, np.int32)
    change = np.empty(size, np.int32)
    trend = np.zeros((num_speeds, num_features), np.int64)
    slower = REFINED_SHIFT if given else 0
    first_node = -given
    for digit in range(given):
        first_node += levels[digit]
    row = column = 0
    num_words = 0
    for position in range(count):
        for i in range(first_size):
            sums[i] = first_bias[i]
        for neighbour in range(num_neighbours):
            up, right = offsets[neighbour, 0], offsets[neighbour, 1]
            place = position - up * columns + right
            if up <= row and 0 <= column + right < columns and place < count:
                seen = num_digits if place < position else given
                for digit in range(seen):
                    table = first[neighbour, starts[digit] + positions[place, digit]]
                    for i in range(first_size):
                        sums[i] += table[i]
            else:
                table = first[neighbour, num_rows - 1]
                for i in range(first_size):
                    sums[i] += table[i]
        for speed in range(num_speeds):
            for feature in range(num_features):
                value = np.int32(trend[speed, feature] >> SPEED_BITS)
                table = trend_weights[speed, feature]
                for i in range(first_size):
                    sums[i] += value * table[i]
        if num_wide == 0:
            for i in range(size):
                start[i] = sums[i]
        else:
            for i in range(size):
                start[i] = bias[i]
            for unit in range(num_wide):
                value = np.int32(min(max(sums[unit] >> HIDDEN_SHIFT, 0), HIGHEST))
                if value:
                    table = inner[unit]
                    for i in range(size):
                        start[i] += value * table[i]
        best, choice = -1, -1
        for option in range(options.shape[1]):
            for i in range(size):
                sketch[i] = start[i]
            price = penalties[position, option]
            for digit in range(num_digits):
                for i in range(size):
                    change[i] = sketch[i] >> HIDDEN_SHIFT
                for i in range(size):
                    hidden[i] = min(max(change[i], 0), HIGHEST)
                below, above = 0, levels[digit]
                wanted = options[position, option, digit]
                while above - below > 1:
                    middle = (below + above) >> 1
                    weight = weights[starts[digit] - digit + middle - 1]
                    for i in range(size):
                        change[i] = hidden[i] * weight[i]
                    total = 0
                    for i in range(size):
                        total += change[i]
                    logit = min(max(total >> LOGIT_SHIFT, -LOGIT_LIMIT), LOGIT_LIMIT)
                    if wanted >= middle:
                        below = middle
                        price += prices[LOGIT_LIMIT + logit]
                    else:
                        above = middle
                        price += prices[LOGIT_LIMIT - logit]
                if digit < num_digits - 1:
                    table = digits[starts[digit] + wanted]
                    for i in range(size):
                        sketch[i] += table[i]
            penalties[position, option] = price
            if best < 0 or price < best:
                best, choice = price, option
        if choice >= 0:
            for digit in range(num_digits):
                positions[position, digit] = options[position, choice, digit]
        for digit in range(given):
            table = digits[starts[digit] + positions[position, digit]]
            for i in range(size):
                start[i] += table[i]
        for digit in range(given, num_digits):
            for i in range(size):
                change[i] = start[i] >> HIDDEN_SHIFT
            for i in range(size):
                hidden[i] = min(max(change[i], 0), HIGHEST)
            below, above = 0, levels[digit]
            wanted = positions[position, digit]
            while above - below > 1:
                middle = (below + above) >> 1
                weight = weights[starts[digit] - digit + middle - 1 - first_node]
                for i in range(size):
                    change[i] = hidden[i] * weight[i]
                total = 0
                for i in range(size):
                    total += change[i]
                logit = min(max(total >> LOGIT_SHIFT, -LOGIT_LIMIT), LOGIT_LIMIT)
                probability = squash[logit + LOGIT_LIMIT]
                bound = (width >> BIT_BITS) * probability
                if decoding:
                    bit = low < bound
                    if bit:
                        width = bound
                    else:
                        low -= bound
                        width -= bound
                    while width < FLOOR:
                        if num_words >= capacity:
                            return -1, low, width
                        low = low << WORD_BITS | words[num_words]
                        width <<= WORD_BITS
                        num_words += 1
                else:
                    bit = wanted >= middle
                    if bit:
                        width = bound
                    else:
                        low += bound
                        width -= bound
                    while width < FLOOR:
                        if num_words >= capacity:
                            return -1, low, width
                        words[num_words] = low >> KEPT_BITS
                        low = (low & (FLOOR - 1)) << WORD_BITS
                        width <<= WORD_BITS
                        num_words += 1
                if bit:
                    below = middle
                    error = np.int32(((1 << BIT_BITS) - probability) >> slower)
                else:
                    above = middle
                    error = np.int32(-probability >> slower)
                for i in range(size):
                    change[i] = error * hidden[i] + HALF
                for i in range(size):
                    change[i] = change[i] >> RATE_SHIFT
                for i in range(size):
                    change[i] += weight[i]
                for i in range(size):
                    weight[i] = min(max(change[i], -MAX_WEIGHT), MAX_WEIGHT)
            positions[position, digit] = below
            if digit < num_digits - 1:
                table = digits[starts[digit] + below]
                for i in range(size):
                    start[i] += table[i]
        for feature in range(num_features):
            value = 0
            for digit in range(num_digits):
                value += embedding[starts[digit] + positions[position, digit], feature]
            for speed in range(num_speeds):
                trend[speed, feature] += ((value << SPEED_BITS) - trend[speed, feature]) >> speeds[
                    speed
                ]
        column += 1
        if column == columns:
            row, column = row + 1, 0
    return num_words, low, width
