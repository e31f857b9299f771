"""What importing the package costs, and that its classes are registered in whatever order things are imported."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import transformers_bark

SLOW = ("torch", "transformers", "numpy", "scipy", "onnxruntime")


def run(program: str, *paths: Path) -> str:
    """What a program prints in a fresh process that takes the hook's warnings for errors."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), *sys.path])}
    command = [sys.executable, "-W", "error::RuntimeWarning", "-c", textwrap.dedent(program)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


STUB_HOOK = """
import importlib, sys, types
import transformers_bark
calls = []
stub = types.ModuleType("transformers_bark.registration")
def register():
    # what register() needs can be imported by now
    import transformers
    calls.append(hasattr(transformers, "done"))
stub.register = register
sys.modules["transformers_bark.registration"] = stub
"""


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder with a package named transformers, for tests of the hook alone."""
    package = tmp_path / "transformers"
    package.mkdir()
    (package / "__init__.py").write_text("__version__ = '5'\nfrom . import part\ndone = True\n")
    (package / "part.py").write_text("")
    return tmp_path


@pytest.mark.parametrize(
    "statement",
    [
        "import transformers_bark",
        "from transformers_bark import cli, BARK_NANO",
        "from transformers_bark.cli import say, voices, export; say.build_parser()",
        "import transformers_bark.narration",
    ],
)
def test_imports_that_need_no_torch_import_none(statement: str) -> None:
    program = f"{statement}\nimport sys\nprint([name for name in {SLOW} if name in sys.modules])"
    assert run(program) == "[]"


def test_registers_at_the_end_of_the_import_of_transformers(stand_in: Path) -> None:
    program = (
        f"{STUB_HOOK}\nassert not calls\nimport transformers\nprint(calls)\nimport transformers.part; print(calls)"
    )
    assert run(program, stand_in) == "[True]\n[True]"
    program = f"{STUB_HOOK}\nimport transformers.part\nprint(calls, transformers.__loader__.__class__.__name__)"
    assert run(program, stand_in) == "[True] SourceFileLoader"


def test_a_module_of_ours_that_imports_transformers_is_whole_first(stand_in: Path) -> None:
    program = f"""
        {textwrap.indent(STUB_HOOK, "        ").strip()}
        import pathlib
        folder = pathlib.Path({str(stand_in)!r})
        (folder / "inner.py").write_text("import transformers\\nbefore = list(sys_calls)\\n")
        (folder / "outer.py").write_text("from . import inner\\nbefore = list(sys_calls)\\n")
        transformers_bark.__path__.append(str(folder))
        import builtins
        builtins.sys_calls = calls
        from transformers_bark import outer
        print(outer.inner.before, outer.before, calls)
    """
    assert run(program, stand_in) == "[] [] [True]"


def test_an_import_that_fails_leaves_the_hook_for_the_next(stand_in: Path) -> None:
    program = f"""
        {textwrap.indent(STUB_HOOK, "        ").strip()}
        import pathlib
        init = pathlib.Path({str(stand_in)!r}, "transformers", "__init__.py")
        text = init.read_text()
        init.write_text("raise ImportError('not yet')")
        for _ in range(2):
            try:
                import transformers
            except ImportError as error:
                print(error, calls)
        init.write_text(text + "# whole again")
        importlib.invalidate_caches()
        import transformers
        print(calls)
    """
    assert run(program, stand_in) == "not yet []\nnot yet []\n[True]"


def test_what_fails_in_registering_is_a_warning_and_the_import_works(stand_in: Path) -> None:
    program = f"""
        {textwrap.indent(STUB_HOOK, "        ").strip()}
        import warnings
        def register():
            raise ImportError("no torch here")
        stub.register = register
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            import transformers
        print(transformers.done, [str(one.message) for one in told])
    """
    told = "Transformers does not know the classes of transformers_bark: no torch here"
    assert run(program, stand_in) == f"True ['{told}']"


ORDERS = {
    "ours first": "import transformers_bark; from transformers import AutoModel, pipeline",
    "theirs first": "from transformers import AutoModel, pipeline; import transformers_bark",
    "theirs only named": "import transformers, transformers_bark; from transformers import AutoModel, pipeline",
    "a module of ours": "from transformers_bark.modeling_bark import BarkModel; from transformers import AutoModel, pipeline",
    "a module of theirs": "import transformers_bark; import transformers.pipelines; from transformers import AutoModel, pipeline",
    "a star": "from transformers_bark import *; from transformers import AutoModel, pipeline",
}


@pytest.mark.parametrize("order", ORDERS)
def test_models_and_pipelines_are_ours_in_every_order(order: str, checkpoint: Path) -> None:
    program = f"""
        {ORDERS[order]}
        import transformers_bark
        spoken = pipeline("text-to-speech", {str(checkpoint)!r}, device="cpu")
        made = AutoModel.from_config(spoken.model.config)
        print(type(spoken).__module__, type(spoken.model) is transformers_bark.BarkModel is type(made))
    """
    assert run(program).splitlines()[-1] == "transformers_bark.pipeline_bark True"


def test_names_are_listed_pickled_and_refused() -> None:
    assert set(transformers_bark.__all__) <= set(dir(transformers_bark))
    paths = {"BARK_DETECTOR", "BARK_NANO"}
    assert set(transformers_bark._MODULES) == set(transformers_bark.__all__) - paths | {"register"}
    for name in set(transformers_bark.__all__) - paths:
        value = getattr(transformers_bark, name)
        assert pickle.loads(pickle.dumps(value)) is value
    with pytest.raises(AttributeError, match="no attribute 'BarkModle'"):
        transformers_bark.BarkModle  # noqa: B018
    with pytest.raises(ImportError, match="BarkModle"):
        from transformers_bark import BarkModle  # noqa: F401
