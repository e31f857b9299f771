"""Registers the package's classes with Transformers when Transformers is imported, be it before the package or after.

Transformers' modelling code takes seconds to import. A command that only prints a help text, and a program that only reads
a text into pieces, need none of it. So the package imports none of it, and this module sees to it that the `Auto` classes
and pipelines know its classes all the same:

- Transformers is imported already: they are registered at once, as `import transformers_bark` ends.
- It is not: they are registered at the end of its import. Transformers' `__init__` imports none of its own modules that
  matter here, so nothing of it is half imported then.
- It is imported by one of our own modules, as in `from transformers_bark.modeling_bark import BarkModel` in a fresh process:
  that module is not whole yet, and they are registered at its end.

For that, one finder stands first on `sys.meta_path` until the classes are registered. It finds nothing itself: it asks the others,
and lets the loader that they name call back when it has run `transformers` or a module of this package.
"""

from __future__ import annotations

import copy
import sys
import threading
import warnings
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_PACKAGE = __name__.rpartition(".")[0]
_WATCHED = "transformers"


class _Finder:
    """Tells when a module has been run. In each thread on its own, as another thread's modules may be half imported."""

    def __init__(self) -> None:
        self._thread = threading.local()

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """What the other finders find, with a loader that calls back."""
        if name != _WATCHED and not name.startswith(f"{_PACKAGE}."):
            return None
        for finder in sys.meta_path:
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(name, path, target)
                if spec is not None:
                    return self._calling_back(spec)
        return None

    def _calling_back(self, spec: ModuleSpec) -> ModuleSpec:
        """The same spec. Its loader keeps its class, as `inspect`, `runpy` and `importlib.resources` look at that."""
        if not hasattr(spec.loader, "exec_module"):
            return spec
        loader: Any = copy.copy(spec.loader)  # an archive's is one for all of its modules
        run = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)
            self._thread.depth = self._depth + 1
            try:
                run(module)
            finally:
                self._thread.depth = self._depth - 1
            self.try_to_register()

        try:
            loader.exec_module = exec_module
        except AttributeError:  # a loader without a `__dict__`
            return spec
        spec.loader = loader
        return spec

    @property
    def _depth(self) -> int:
        return getattr(self._thread, "depth", 0)

    def try_to_register(self) -> None:
        """Registers, if Transformers is there and none of our modules is being imported in this thread."""
        if self._depth or self not in sys.meta_path or not _is_imported():
            return
        sys.meta_path.remove(self)
        try:
            from .registration import register

            register()
        except Exception as error:
            # the import of Transformers must not fail for what is wrong here
            warnings.warn(
                f"Transformers does not know the classes of {_PACKAGE}: {error}", RuntimeWarning, stacklevel=2
            )


def _is_imported() -> bool:
    return hasattr(sys.modules.get(_WATCHED), "__version__")


def register_when_imported() -> None:
    """Registers now, or when Transformers is imported; calling it again changes nothing."""
    if f"{_PACKAGE}.registration" in sys.modules or any(isinstance(finder, _Finder) for finder in sys.meta_path):
        return
    if _is_imported():
        from .registration import register

        register()
    else:
        sys.meta_path.insert(0, _Finder())  # type: ignore[arg-type]
