"""Pictures in patches of 8 x 8: one convolution each way, which see a patch and its neighbours."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from codec.nets import Nets


@dataclass(frozen=True)
class Sizes:
    width: int = 16
    stride: int = 8
    context: int = 1


class Encoder(nn.Module):
    def __init__(self, sizes: Sizes, out_dim: int) -> None:
        super().__init__()
        self.fold = nn.Conv2d(3, sizes.width, sizes.stride, stride=sizes.stride)
        self.mix = nn.Conv2d(sizes.width, out_dim, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(F.gelu(self.fold(x - 0.5)))


class Decoder(nn.Module):
    def __init__(self, sizes: Sizes, in_dim: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(in_dim, sizes.width, 3, padding=1)
        self.unfold = nn.ConvTranspose2d(sizes.width, 3, sizes.stride, stride=sizes.stride)

    def forward(self, z_q: Tensor, _: int | Tensor) -> Tensor:
        return self.unfold(F.gelu(self.mix(z_q))) + 0.5


PATCHES = Nets(
    medium="image", sizes=Sizes, encoder=Encoder, decoder=Decoder, presets={"only": Sizes()}
)
