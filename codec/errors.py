"""Every error that codec raises on purpose, in one family.

    CodecError              catch this one to catch them all
    ├── MediaError          an input picture or recording cannot be read, or an output written
    ├── BitstreamError      a .bin is damaged, truncated, or not one of ours; it has the offset
    └── ModelError          a model is missing, damaged, or not the one that a .bin names

Each message is one line that says what is wrong, where, and what to do. Wrong arguments in Python
code are plain ValueError: those are faults of the calling program, not of the data.
"""

import errno


class CodecError(Exception):
    """Base of all deliberate errors; `exit_code` is what the commands return for it."""

    exit_code = 1


class MediaError(CodecError):
    """An input cannot be decoded as audio or as a picture, or an output cannot be written."""


class ModelError(CodecError):
    """A model is missing, damaged, or does not match the bitstream."""

    exit_code = 3


class BitstreamError(CodecError):
    """A bitstream is damaged or is not one of ours.

    Args:
        message: What is wrong and what to do.
        offset: Where in the file, in bytes from its start, or None where no single place is at
            fault.
    """

    exit_code = 4

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message if offset is None else f"{message} (at byte {offset})")
        self.offset = offset


def not_installed(module: str | None, extra: str) -> str:
    """Returns the line that names the package of a missing module, and the extra that brings it.

    The extra comes from the project's folder: an index may have another project of its name.
    """
    package = (module or "").partition(".")[0]
    return f"{package} is not installed; in the project's folder: pip install '.[{extra}]'"


def reason_of(error: BaseException) -> str:
    """Returns what another library's error says, in a line without a full stop.

    A line that ends in a colon has the next one, and an error without a text says its class. The
    file's name is left out where it can be, since the caller names the file.
    """
    text = str(getattr(error, "error_string", error))  # libsndfile's
    if isinstance(error, OSError):
        text = error.strerror or text
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return " ".join(lines[: 2 if lines[0].endswith(":") else 1]).rstrip(".")


MEMORY_TEXTS = ("memory", "failed to map segment", "can't start new thread")


def out_of_memory(error: BaseException) -> bool:
    """Whether the machine, or a limit of the process, has no memory left.

    Each library says so in its own way.

    Libraries that cannot be loaded raise ImportError or OSError then, torch a RuntimeError.
    """
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    told = any(text in str(error).lower() for text in MEMORY_TEXTS)
    return isinstance(error, MemoryError) or (
        isinstance(error, ImportError | OSError | RuntimeError) and told
    )
