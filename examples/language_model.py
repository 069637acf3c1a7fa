"""Tokens for a language model: encode, train a small transformer, sample, decode.

    python examples/language_model.py recordings --out sample.wav   # a minute of training
    python examples/language_model.py recordings --out sample.wav --minutes 10 --seconds 5

One codebook makes this simple: a recording is one row of integers in [0, K), 167 a second, and a
language model of them is a language model of anything. A minute on a CPU is enough to hear that the
sample is no noise, and no more.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import codec
from codec.cli.frame import new_file
from codec.errors import CodecError, MediaError
from codec.media import load_audio

RATE = 16_000  # Hz, that of all speech models


class LanguageModel(nn.Module):
    """A causal transformer: (B, n) indices -> (B, n, K) logits of the index after each."""

    def __init__(
        self, num_codes: int, context: int = 256, width: int = 128, depth: int = 4
    ) -> None:
        super().__init__()
        self.context = context
        self.tokens, self.places = nn.Embedding(num_codes, width), nn.Embedding(context, width)
        layer = nn.TransformerEncoderLayer(
            width, 4, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            layer, depth, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.head = nn.Linear(width, num_codes)

    def forward(self, indices: Tensor) -> Tensor:
        n = indices.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(n, device=indices.device)
        x = self.tokens(indices) + self.places.weight[:n]
        return self.head(self.blocks(x, mask, is_causal=True))


def encode_folder(folder: Path, model_name: str, codebook_size: int) -> Tensor:
    """All recordings below a folder as one row of indices.

    Raises MediaError where none can be read.
    """
    model = codec.load(model_name)
    rows = []
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in (".wav", ".flac", ".ogg", ".mp3"):
            continue
        with path.open("rb") as file:
            samples, _ = load_audio(file, RATE)  # (T, channels) float32 at 16 kHz
        x = torch.from_numpy(samples.mean(1))[None, None]
        with torch.inference_mode():
            rows.append(model.codec.encode(x, codebook_size)[0, 0])
    if not rows:
        raise MediaError(f"{folder}: no recordings here")
    return torch.cat(rows)


def train(
    tokens: Tensor, num_codes: int, minutes: float, steps: int | None, batch: int = 16
) -> LanguageModel:
    """Trains until the minutes or steps are over, on random cuts of the tokens."""
    torch.manual_seed(0)
    net = LanguageModel(num_codes)
    length = min(net.context + 1, len(tokens))
    optimiser = torch.optim.AdamW(net.parameters(), 1e-3)
    start, step = time.monotonic(), 0
    while step < steps if steps is not None else time.monotonic() - start < 60 * minutes:
        first = torch.randint(len(tokens) - length + 1, (batch,))
        cut = tokens[first[:, None] + torch.arange(length)]
        loss = F.cross_entropy(net(cut[:, :-1]).flatten(0, 1), cut[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        step += 1
        if step % 50 == 0:
            print(f"step {step}: {loss.item() / 0.6931:.2f} bits a token", flush=True)
    return net.eval()


@torch.inference_mode()
def sample(net: LanguageModel, start: Tensor, count: int, temperature: float = 0.9) -> Tensor:
    """(n,) indices to begin with -> (n + count,) with what the model makes of them."""
    indices = start[None]
    for _ in range(count):
        logits = net(indices[:, -net.context :])[0, -1] / temperature
        indices = torch.cat([indices, torch.multinomial(logits.softmax(0), 1)[None]], 1)
    return indices[0]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="recordings")
    parser.add_argument("--out", type=new_file, default=Path("sample.wav"), help="a .wav file")
    parser.add_argument("--model", default="speech-fsp")
    parser.add_argument("-k", "--codebook-size", type=int, default=256)
    parser.add_argument("--minutes", type=float, default=1.0, help="of training")
    parser.add_argument("--steps", type=int, help="of training, instead of minutes")
    parser.add_argument("--seconds", type=float, default=3.0, help="of the sample")
    options = parser.parse_args(arguments)
    if options.out.suffix[1:].upper() not in soundfile.available_formats():
        parser.error(f"--out {options.out}: name a .wav, .flac or .ogg file")
    try:
        model = codec.load(options.model)
        num_codes = model.codec.bottleneck.num_codes(options.codebook_size)
        tokens = encode_folder(options.folder, options.model, options.codebook_size)
    except CodecError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except ValueError as error:  # the model does not offer this codebook size
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{len(tokens)} tokens, {num_codes} codes")
    net = train(tokens, num_codes, options.minutes, options.steps)
    count = round(options.seconds * RATE / model.codec.stride)
    indices = sample(net, tokens[:32], count)
    with torch.inference_mode():
        x = model.codec.decode(
            indices[None, None], (len(indices) * model.codec.stride,), options.codebook_size
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(options.out, x[0, 0].clamp(-1, 1).numpy(), RATE)
    print(f"{options.out}: {x.shape[-1] / RATE:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
