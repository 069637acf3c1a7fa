"""The page's words: what a figure means, said once, and the HTML that carries it."""

from __future__ import annotations

from html import escape

TERMS = {
    "bytes": "Size of the real file that you can download, everything included.",
    "kbit/s": "Thousands of bits per second of sound. A phone call takes about 13, a CD 1411.",
    "bits per pixel": "Bits of the file divided by the number of pixels. An uncompressed picture "
    "has 24.",
    "ratio": "How many times smaller than the uncompressed sound (16 bits a sample) or picture "
    "(24 bits a pixel).",
    "PESQ": "Predicted listening quality of speech: 1 is bad, 4.6 is perfect. On at most the "
    "first 10 seconds.",
    "STOI": "Predicted intelligibility of speech: 0 is nothing, 1 is everything. On at most the "
    "first 10 seconds.",
    "ESTOI": "Like STOI, stricter where noise comes and goes. On at most 10 seconds.",
    "PSNR": "Closeness of every pixel, in decibels. Below 25 one sees losses at once, above 40 "
    "hardly any.",
    "SSIM": "Likeness of structure: 1 is the same picture, 0 has nothing in common.",
    "SSIMULACRA2": "Likeness as people judged compressed pictures: 100 is the same picture, 70 is "
    "high quality, 30 is low, below 0 is hardly like it. On pictures of at least 225 x 225 pixels "
    "and at most a megapixel.",
    "LPIPS": "Distance as a trained eye model sees it: 0 is the same picture, larger is worse.",
    "codes used": "How many different entries of the codebook this file needs, of all there are.",
    "time": "To make the file from the input, and sound or picture from the file, on this machine.",
    "codebook": "A numbered list of building blocks that encoder and decoder share. A file holds "
    "only the numbers, its tokens. More entries describe more finely, and each number costs more "
    "bits.",
    "K": "Codebook size: how many building blocks there are to choose from.",
}


def tip(text: str, term: str | None = None) -> str:
    """Returns a word with its explanation on hover, focus and touch; plain where there is none."""
    meaning = TERMS.get(term or text)
    if meaning is None:
        return escape(text)
    return f'<span class="tip" tabindex="0" data-tip="{escape(meaning)}">{escape(text)}</span>'


def empty(title: str, text: str) -> str:
    """Returns what an output says before there is any."""
    return f'<div class="empty"><b>{escape(title)}</b><span>{escape(text)}</span></div>'


def notice(lines: list[str], kind: str = "note") -> str:
    """Returns remarks above a result, a "note" or a "fault"; nothing where there are none."""
    items = "".join(f"<p>{escape(sentence(line))}.</p>" for line in dict.fromkeys(lines))
    return f'<div class="notice {kind}" role="status">{items}</div>' if lines else ""


def sentence(text: str) -> str:
    """Returns a remark with a capital, unless it begins with a name, such as speech-vp or a.wav."""
    first = text.partition(" ")[0].rstrip(",;:")
    return text[:1].upper() + text[1:] if first.isalpha() else text


def duration(seconds: float) -> str:
    """Writes the length of a recording: seconds, or milliseconds where they are few."""
    return f"{1000 * seconds:.3g} ms" if seconds < 0.1 else f"{seconds:.1f} s"


def ratio(value: float) -> str:
    """Writes how many times smaller a file is: two digits below 10, whole numbers above."""
    return f"{value:.2g} : 1" if value < 9.95 else f"{value:,.0f} : 1"


def number(value: float | int | None, digits: int = 3) -> str:
    """Writes a figure for people; a dash for what could not be measured."""
    if value is None:
        return '<span class="none" title="could not be measured on this input">–</span>'
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}g}" if abs(value) < 1 else f"{value:.{2 if abs(value) < 100 else 0}f}"
