"""What a bottleneck may be built of, also in other packages.

These are the base classes of two families, searches, k-means, and the sums that keep replicas of a
distributed training equal.

    LevelGrid        scalar quantisers: a code is a vector of levels (FSP, FSQ)
    SoftCodebooks    methods that draw codes from a distribution in training; the likeliest in eval
    nearest, kmeans  exact search by squared distance, and seeded clustering
    gather_rows ...  over all processes of a training; without one they return what they were given

The modules that hold them may be arranged anew; this one stays.
"""

from codec.bottleneck import (
    Bottleneck,
    BottleneckOutput,
    per_sample,
    straight_through,
    to_grid,
    to_tokens,
)
from codec.bottlenecks._grid import LevelGrid
from codec.bottlenecks._kmeans import cell_means, kmeans, split_cells
from codec.bottlenecks._knn import Neighbours
from codec.bottlenecks._mixture import factors
from codec.bottlenecks._search import NotFiniteError, nearest, nearest_child
from codec.bottlenecks._soft import (
    SoftCodebooks,
    batch_perplexity,
    gumbel,
    gumbel_softmax,
    perplexity,
)
from codec.bottlenecks._sync import (
    from_first,
    gather_rows,
    mean_of_all,
    parallel,
    sum_of_all,
    var_mean_of_all,
)

__all__ = [
    "Bottleneck",
    "BottleneckOutput",
    "LevelGrid",
    "Neighbours",
    "NotFiniteError",
    "SoftCodebooks",
    "batch_perplexity",
    "cell_means",
    "factors",
    "from_first",
    "gather_rows",
    "gumbel",
    "gumbel_softmax",
    "kmeans",
    "mean_of_all",
    "nearest",
    "nearest_child",
    "parallel",
    "per_sample",
    "perplexity",
    "split_cells",
    "straight_through",
    "sum_of_all",
    "to_grid",
    "to_tokens",
    "var_mean_of_all",
]
