"""The network of a prior in floating point, and its rounding to the integers that the coder uses.

A token is one position of the grid of indices. Its index is some digits, each digit some binary
questions (`train.digits`), and the network gives every question's probability from the digits of
the neighbours and from trends, which are averages over what lies before.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.entropy.mixing import HIDDEN_SHIFT, LOGIT_SHIFT
from codec.entropy.prior import DIGIT_SHIFT, HIGHEST, Prior
from train.digits import Layout

UNITS = 64
SPEEDS = (3, 6)  # of the trends: each moves by 2^-speed of its distance at every position
# Scales of the integers: 256 is 1 in a hidden unit and in a logit (see `mixing`).
ONE = 256
EMBEDDING_SCALE = 32
BIAS_SCALE = ONE << HIDDEN_SHIFT
INPUT_SCALE = BIAS_SCALE // EMBEDDING_SCALE  # of the layer that sees the embeddings
UNIT_SCALE = BIAS_SCALE // ONE  # of the one that sees the wide layer's units
DIGIT_SCALE = BIAS_SCALE >> DIGIT_SHIFT
NODE_SCALE = 1 << LOGIT_SHIFT
CEILING = HIGHEST / ONE


@dataclass(frozen=True, slots=True)
class Size:
    """How large a prior is.

    Attributes:
        features: Of an embedding.
        wide: Units of the wide layer; 0 for none.
        neighbours: How many there are, the first of `OFFSETS`.
        refresh: Steps between two computations of the trends, which are inputs without a gradient.
    """

    features: int
    wide: int
    neighbours: int
    refresh: int


class PriorNet(nn.Module):
    """The floating-point twin of the coder's network.

    What the coder learns as it goes is left out.

    Args:
        layout: How the indices become digits. The embedding starts from its vectors.
        num_inputs: The number of neighbours and trends, J + Q.
        size: Of the tables.
    """

    def __init__(self, layout: Layout, num_inputs: int, size: Size) -> None:
        super().__init__()
        self.levels: list[int] = layout.levels.tolist()
        self.given = given = layout.given
        vectors = torch.from_numpy(layout.row_vectors()).float()
        num_rows = sum(self.levels)
        embedding = 0.1 * torch.randn(num_rows + 1, size.features)
        width = min(size.features, vectors.shape[1])
        embedding[:-1, :width] += vectors[:, :width]
        embedding[-1] = 0
        self.embedding = nn.Parameter(embedding)
        num_seen = num_inputs * size.features
        self.wide = nn.Linear(num_seen, size.wide) if size.wide else None
        # The last unit is always 1: the questions' bias.
        self.hidden = nn.Linear(size.wide or num_seen, UNITS - 1)
        self.digits = nn.Parameter(torch.zeros(num_rows - self.levels[-1], UNITS - 1))
        self.first_node = sum(self.levels[:given]) - given
        self.nodes = nn.Parameter(torch.zeros(num_rows - len(self.levels) - self.first_node, UNITS))
        for number, count in enumerate(self.levels):
            for name, table in zip(("questions", "answers", "asked"), walks(count), strict=True):
                self.register_buffer(f"{name}_{number}", table)

    def embed(self, rows: Tensor) -> Tensor:
        """Embeds (..., D) rows as (..., E)."""
        return F.embedding(rows, self.embedding).sum(-2)

    def forward(
        self,
        neighbours: Tensor,
        missing: Tensor,
        trends: Tensor,
        rows: Tensor,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Returns the bits of every token, (B,).

        Args:
            neighbours: (B, J, D) rows of the neighbours' digits.
            missing: (B, J) bool.
            trends: (B, Q * E).
            rows: (B, D) rows of the token itself.
            visible: (J, D) 1 for the digits that are known of a neighbour, else 0; None for all.
        """
        near = F.embedding(neighbours, self.embedding)
        if visible is not None:
            near = near * visible[..., None]
        near = torch.where(missing[..., None], self.embedding[-1], near.sum(-2))
        seen = torch.cat([near.flatten(1), trends], 1)
        if self.wide is not None:
            seen = F.hardtanh(self.wide(seen), 0.0, CEILING)
        total = self.hidden(seen)
        bits = torch.zeros(len(rows), device=rows.device)
        start = 0
        for number, count in enumerate(self.levels):
            if number < self.given:
                total = total + F.embedding(rows[:, number], self.digits)
                start += count
                continue
            units = F.pad(F.hardtanh(total, 0.0, CEILING), (0, 1), value=CEILING)
            digit = rows[:, number] - start
            questions = self.get_buffer(f"questions_{number}")[digit]
            nodes = self.nodes[start - number - self.first_node :][: count - 1]
            if count <= UNITS:
                logits = (units @ nodes.T).gather(1, questions)
            else:
                logits = (F.embedding(questions, nodes) * units[:, None]).sum(2)
            answers = self.get_buffer(f"answers_{number}")[digit]
            asked = self.get_buffer(f"asked_{number}")[digit]
            bits = bits + F.binary_cross_entropy_with_logits(
                logits, answers, asked, reduction="none"
            ).sum(1) / log(2)
            if number < len(self.levels) - 1:
                total = total + F.embedding(rows[:, number], self.digits)
            start += count
        return bits

    @torch.no_grad()
    def clamp(self) -> None:
        """Keeps every weight within what its integer can hold."""
        for tensor, scale, kind in self.scaled().values():
            most = np.iinfo(kind).max / scale
            tensor.clamp_(-most, most)

    def scaled(self) -> dict[str, tuple[Tensor, int, type]]:
        """Returns what becomes a table of integers: table -> the tensor, its scale, the type."""
        outer = INPUT_SCALE if self.wide is None else UNIT_SCALE
        tables: dict[str, tuple[Tensor, int, type]] = {
            "embedding": (self.embedding, EMBEDDING_SCALE, np.int8),
            "hidden": (self.hidden.weight, outer, np.int16),
            "digits": (self.digits, DIGIT_SCALE, np.int16),
            "nodes": (self.nodes, NODE_SCALE, np.int16),
        }
        if self.wide is not None:
            tables["wide"] = self.wide.weight, INPUT_SCALE, np.int16
        return tables


def walks(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Lists the questions that lead to each of `count` values.

    Also their answers, and which of them there are.

    Returns:
        Three tensors (count, depth).
    """
    depth = (count - 1).bit_length()
    questions = torch.zeros(count, depth, dtype=torch.int64)
    answers, asked = torch.zeros(count, depth), torch.zeros(count, depth)
    for value in range(count):
        below, above, step = 0, count, 0
        while above - below > 1:
            middle = (below + above) >> 1
            questions[value, step] = middle - 1
            answers[value, step] = float(value >= middle)
            asked[value, step] = 1
            below, above, step = (
                (middle, above, step + 1) if value >= middle else (below, middle, step + 1)
            )
    return questions, answers, asked


@torch.no_grad()
def rounded(net: PriorNet, layout: Layout, offsets: np.ndarray, stride: int) -> Prior:
    """Rounds a trained network to the integers of a prior.

    Args:
        net: The network.
        layout: How the indices become digits.
        offsets: Of the neighbours, (J, 2): rows up and columns to the right.
        stride: Pixels of a side for each index; 0 where there are no rows, as in speech.
    """

    def ints(tensor: Tensor, scale: int, kind: type) -> np.ndarray:
        most = np.iinfo(kind).max
        return (tensor.double() * scale).round().clamp(-most, most).cpu().numpy().astype(kind)

    tables = {name: ints(*parts) for name, parts in net.scaled().items()}
    # The unit that is always 1.
    tables["hidden"] = np.pad(tables["hidden"].T, ((0, 0), (0, 1)))
    tables["digits"] = np.pad(tables["digits"], ((0, 0), (0, 1)))
    constant = torch.tensor([CEILING], device=net.hidden.bias.device)
    tables["bias"] = ints(torch.cat([net.hidden.bias, constant]), BIAS_SCALE, np.int32)
    if net.wide is not None:
        tables["wide"] = tables["wide"].T
        tables["wide_bias"] = ints(net.wide.bias, BIAS_SCALE, np.int32)
    return Prior(
        levels=layout.levels.astype(np.int32),
        order=layout.order.astype(np.uint16),
        offsets=offsets.astype(np.int8),
        speeds=np.array(SPEEDS, np.int8),
        stride=stride,
        given=layout.given,
        **{name: np.ascontiguousarray(table) for name, table in tables.items()},
    )
