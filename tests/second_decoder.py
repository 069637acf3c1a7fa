"""A second decoder, written from FORMAT.md alone: plain Python, no NumPy, nothing of codec.

    python tests/second_decoder.py FILE.bin TABLES.json

prints header, samples and indices as JSON.
TABLES.json is laid out as those of assets/golden: "tables" for coder 1 and "prior" for coder 2,
either may be null, and a "prior" in each of "layers".
"""

import json
import sys
from functools import reduce
from itertools import accumulate
from pathlib import Path


class RefusedError(Exception):
    """The file breaks a rule of FORMAT.md."""


def must(rule, what):
    if not rule:
        raise RefusedError(what)


class Bytes:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        must(self.at + length <= len(self.data), "a field runs past its payload")
        self.at += length
        return self.data[self.at - length : self.at]

    def varint(self):
        value = shift = 0
        while True:
            octet = self.take(1)[0]
            value += (octet & 127) << shift
            shift += 7
            if octet < 128:
                must(value < 2**64 and (octet > 0 or shift == 7), "a varint is not the shortest")
                return value
            must(shift < 70, "a varint is too long")

    def u32(self):
        return int.from_bytes(self.take(4), "big")

    def done(self):
        must(self.at == len(self.data), "a payload runs past its fields")


def crc32(data, crc=0):
    crc ^= 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def ceil_div(a, b):
    return -(-a // b)


def clamp(x, low, high):
    return max(low, min(x, high))


# --------------------------------------------------------------------------------------------------
# the container


def decode_file(data, tables, codebook_size=None):
    """Header, samples and indices, of the last layer that is sound or of the one of that codebook
    size.
    """
    must(data[:8] == b"\x8dCDC\r\n\x1a\n", "magic")
    must(len(data) >= 10 and data[8] == 1, "major version")
    file = Bytes(data)
    file.at = 10
    header, positions, checksum, streams, counts = None, 0, 0, [], []
    while True:
        start = file.at
        kind, length = chr(file.take(1)[0]), file.varint()
        must(kind.isascii() and kind.isalpha() and length <= 2**22, "chunk")
        payload = file.take(length)
        body = data[start : file.at]
        must(file.u32() == crc32(body), "CRC-32 of a chunk")
        must(header is not None or kind == "H", "the header comes first")
        payload = Bytes(payload)
        if kind.islower():
            continue
        if kind == "H":
            must(header is None, "two headers")
            header = decode_header(payload)
            streams = [
                [[] for _ in range(header["num_codebooks"])] for _ in range(header["streams"])
            ]
        elif kind == "D":
            n = payload.varint()
            total = n * header["streams"] * header["num_codebooks"]
            must(1 <= n <= 65536 and total <= 2**20, "positions of a chunk")
            decoded = []
            bits = (header["num_codes"] - 1).bit_length()
            for _ in range(header["streams"]):
                size = payload.varint()
                must(
                    1 <= size <= 1 + ceil_div(header["num_codebooks"] * n * bits, 8),
                    "length of encoded indices",
                )
                decoded.append(decode_indices(payload.take(size), n, header, tables))
            for stream, rows in zip(streams, decoded, strict=True):
                for whole, row in zip(stream, rows, strict=True):
                    whole += row
                    checksum = crc32(b"".join(i.to_bytes(4, "big") for i in row), checksum)
            positions += n
            counts.append(n)
        else:
            must(kind == "E", "unknown chunk")
            samples = payload.varint()
            must(payload.varint() == positions, "number of positions")
            must(payload.u32() == checksum, "index checksum")
            must(header["medium"] == "speech" or samples == 0, "samples of a picture")
            payload.done()
            if data[9] < 2:
                file.done()
            seal = data[file.at - 4 : file.at]
            while file.at < len(data) and header["codebook_size"] != codebook_size:
                try:
                    header, streams, seal = decode_layer(
                        file, header, streams, counts, tables, seal
                    )
                except RefusedError:
                    break
            return header, samples, streams
        payload.done()


def decode_layer(file, header, streams, counts, tables, seal):
    fine, at, start = [[[]] for _ in streams], 0, file.at
    must(header["num_codebooks"] == 1, "codebooks of a file with layers")
    m = file.varint()
    must(2 <= m <= 65536, "children")
    layer = header | {name: header[name] * m for name in ("codebook_size", "num_codes")}
    must(max(layer["codebook_size"], layer["num_codes"]) <= 2**24, "codes of a layer")
    for n in counts:
        longest = ceil_div(n * (m - 1).bit_length(), 8)
        saved = [file.varint() for _ in streams]
        must(max(saved) <= longest, "length of a refinement")
        check = file.take(1)[0]
        encoded = [file.take(longest - less) for less in saved]
        body = file.data[start : file.at]
        must(file.u32() == crc32(seal + body), "CRC-32 of a layer")
        seal, start = file.data[file.at - 4 : file.at], file.at
        priors = [
            row["prior"]
            for row in tables["layers"]
            if row["codebook_size"] == layer["codebook_size"]
        ]
        must(priors, "no tables for the layer")
        checksum = 0
        for whole, below, bits in zip(fine, streams, encoded, strict=True):
            row = decode_refinement(
                bits, below[0][at : at + n], m, longest, priors[0], header.get("width", 0)
            )
            whole[0] += row
            checksum = crc32(b"".join(i.to_bytes(4, "big") for i in row), checksum)
        must(check == checksum % 256, "check of a layer")
        at += n
    must(counts, "a layer of nothing")
    return layer, fine, seal


def decode_header(payload):
    medium = {b"S": "speech", b"I": "image"}.get(payload.take(1))
    must(medium, "medium")
    header = {"medium": medium, "model_id": payload.take(16).hex()}
    names = ["codebook_size", "num_codes", "num_codebooks", "channels"]
    names += ["sample_rate"] if medium == "speech" else ["height", "width"]
    most = {
        "codebook_size": 2**24,
        "num_codes": 2**24,
        "num_codebooks": 64,
        "channels": 64,
        "sample_rate": 768000,
    }
    for name in names:
        header[name] = payload.varint()
        least = 1000 if name == "sample_rate" else 1
        must(least <= header[name] <= most.get(name, 2**17), name)
    must(medium == "speech" or header["channels"] in (1, 3), "channels of a picture")
    header["streams"] = header["channels"] if medium == "speech" else 1
    return header


# --------------------------------------------------------------------------------------------------
# the coders


def decode_indices(data, n, header, tables):
    coder, payload = data[0], data[1:]
    if coder == 0:
        return decode_fixed(payload, n, header["num_codebooks"], header["num_codes"])
    if coder == 1:
        must(tables["tables"], "no frequencies")
        return decode_range(payload, n, tables["tables"])
    must(coder == 2 and tables.get("prior") and header["num_codebooks"] == 1, "coder")
    return [decode_mixing(payload, n, tables["prior"], header.get("width", 0))]


def decode_refinement(payload, parents, m, longest, prior, width):
    given, levels = prior["given"][0], prior["levels"]
    must(reduce(int.__mul__, levels[given:], 1) == m, "children of the prior")
    if len(payload) < longest:
        known = []
        for parent in parents:
            row = []
            for count in reversed(levels[:given]):
                row.insert(0, parent % count)
                parent //= count
            known.append(row)
        return decode_mixing(payload, len(parents), prior, width, known)
    children = decode_fixed(payload, len(parents), 1, m)[0]
    places = [parent * m + child for parent, child in zip(parents, children, strict=True)]
    return [prior["order"].index(place) for place in places] if prior["order"] else places


def decode_fixed(payload, n, num_codebooks, num_codes):
    bits = (num_codes - 1).bit_length()
    total = num_codebooks * n * bits
    must(len(payload) == ceil_div(total, 8), "length of fixed width")
    number = int.from_bytes(payload, "big")
    fill = 8 * len(payload) - total
    must(number % 2**fill == 0, "fill bits")
    number >>= fill
    values = [number >> total - (i + 1) * bits & (1 << bits) - 1 for i in range(num_codebooks * n)]
    must(all(value < num_codes for value in values), "index")
    return [values[g * n : g * n + n] for g in range(num_codebooks)]


class Words:
    """The payload as digits in base 65536, and the check of its end."""

    def __init__(self, payload):
        self.payload, self.taken = payload, 0
        self.code = reduce(lambda number, _: number * 65536 + self.next_word(), range(3), 0)
        self.width = 2**48

    def next_word(self):
        at = 2 * self.taken
        self.taken += 1
        return int.from_bytes((self.payload[at : at + 2] + b"\0\0")[:2], "big")

    def narrow(self):
        while self.width < 2**32:
            self.code = self.code * 65536 + self.next_word()
            self.width *= 65536

    def check_end(self):
        p = 2 * (self.taken - 3)
        w = int.from_bytes((self.payload[p : p + 6] + bytes(6))[:6], "big")
        low = (w - self.code) % 2**48
        for k in (0, 1, 2):
            unit = 2 ** (48 - 8 * k)
            value = ceil_div(low, unit) * unit
            if value < low + self.width:
                break
        tail = ((value >> 32) % 65536).to_bytes(2, "big")[:k]
        must(len(self.payload) == p + k and self.payload[p:] == tail, "end of the payload")


def decode_range(payload, n, table):
    words = Words(payload)
    decoded = []
    for frequencies in table:
        row = []
        for _ in range(n):
            step = words.width // 2**20
            slot = words.code // step
            must(slot < 2**20, "slot")
            i, start = 0, 0
            while start + frequencies[i] <= slot:
                start += frequencies[i]
                i += 1
            words.code -= step * start
            words.width = step * frequencies[i]
            words.narrow()
            row.append(i)
        decoded.append(row)
    words.check_end()
    return decoded


def squash_table():
    squash, e = {}, 2**40
    for x in range(2048):
        squash[x] = 2**56 // (2**40 + e)
        squash[-x] = 65536 - squash[x]
        e = e * 1095225038176 >> 40
    return squash


SQUASH = squash_table()


def decode_mixing(payload, n, prior, width, known=None):
    levels, offsets, embedding, hidden = (
        prior[name] for name in ("levels", "offsets", "embedding", "hidden")
    )
    outer, outer_bias = prior.get("wide", hidden), prior.get("wide_bias", prior["bias"])
    digits, speeds, bias = prior["digits"], prior["speeds"], prior["bias"]
    weights = [list(row) for row in prior["nodes"]]
    stride = prior["stride"][0]
    columns = ceil_div(width, stride) if stride else n
    first = [0, *accumulate(levels)][:-1]
    num_features, units = len(embedding[0]), range(len(bias))
    trend = [[0] * num_features for _ in speeds]
    words = Words(payload)
    given = len(known[0]) if known else 0
    decoded = [list(row) for row in known] if known else [[] for _ in range(n)]
    missing = first[given] - given
    slower = 2 if given else 1

    def answer(probability):
        bound = (words.width >> 16) * probability
        yes = words.code < bound
        if yes:
            words.width = bound
        else:
            words.code -= bound
            words.width -= bound
        words.narrow()
        return yes

    def embed(p):
        rows = [embedding[start + value] for start, value in zip(first, decoded[p])]  # noqa: B905, those that are known
        return [sum(column) for column in zip(*rows, strict=True)]

    for p in range(n):
        inputs = []
        for up, right in offsets:
            q = p - up * columns + right
            inside = up <= p // columns and 0 <= p % columns + right < columns and q < n
            inputs += embed(q) if inside else embedding[-1]
        inputs += [value >> 8 for values in trend for value in values]
        start = [
            b + sum(x * row[i] for x, row in zip(inputs, outer, strict=True))
            for i, b in enumerate(outer_bias)
        ]
        if "wide" in prior:
            wide = [clamp(value >> 10, 0, 1023) for value in start]
            start = [
                bias[h] + sum(x * row[h] for x, row in zip(wide, hidden, strict=True))
                for h in units
            ]
        for d, count in enumerate(levels):
            if d < given:
                start = [
                    value + (digits[first[d] + decoded[p][d]][h] << 5)
                    for h, value in enumerate(start)
                ]
                continue
            unit = [clamp(value >> 10, 0, 1023) for value in start]
            below, above = 0, count
            while above - below > 1:
                middle = (below + above) // 2
                w = weights[first[d] - d + middle - 1 - missing]
                x = clamp(sum(unit[h] * w[h] for h in units) >> 12, -2047, 2047)
                if answer(SQUASH[x]):
                    below, error = middle, 65536 - SQUASH[x]
                else:
                    above, error = middle, -SQUASH[x]
                for h in units:
                    w[h] = clamp(w[h] + ((error // slower * unit[h] + 2**19) >> 20), -32767, 32767)
            decoded[p].append(below)
            if d < len(levels) - 1:
                start = [
                    value + (digits[first[d] + below][h] << 5) for h, value in enumerate(start)
                ]
        target = embed(p)
        for values, speed in zip(trend, speeds, strict=True):
            for f in range(num_features):
                values[f] += ((target[f] << 8) - values[f]) >> speed
    words.check_end()
    places = [
        reduce(lambda whole, pair: whole * pair[0] + pair[1], zip(levels, row, strict=True), 0)
        for row in decoded
    ]
    order = prior["order"]
    return [order.index(place) for place in places] if order else places


def main(binary, tables):
    header, samples, streams = decode_file(
        Path(binary).read_bytes(), json.loads(Path(tables).read_text())
    )
    print(json.dumps({"header": header, "num_samples": samples, "indices": streams}))


if __name__ == "__main__":
    main(*sys.argv[1:])
