"""Modules that are commands, `python -m codec.compress`, and functions, `codec.compress(data)`."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import codec


class CommandModule(ModuleType):
    """A module that can be called like the function of its name.

    `import codec.compress` puts the module in the place of that function.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """What the function returns."""
        function = codec.__getattr__(self.__name__.removeprefix("codec."))
        return function(*arguments, **options)
