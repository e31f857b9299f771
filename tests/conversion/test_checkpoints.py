"""Files that are damaged or hostile, folders that appear whole or not at all, and memory."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from conversion import checkpoints
from conversion.checkpoints import ConversionError, new_folder, read_suno, read_torch, write_safetensors
from conversion.convert_suno_to_hf import Sources, convert

from .originals import build, checkpoint

MakeSources = Callable[..., Sources]


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def truncate(path: Path, mark: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def flip(path: Path, mark: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def plant(path: Path, mark: Path) -> None:
    content = torch.load(path, weights_only=False)
    content["optimizer" if "optimizer" in content else "inited"] = Hostile(f"touch {mark}")
    torch.save(content, path)


def plant_plain(path: Path, mark: Path) -> None:
    path.write_bytes(pickle.dumps({"model": Hostile(f"touch {mark}"), "model_args": {}}))


def plant_legacy(path: Path, mark: Path) -> None:
    torch.save({"model": Hostile(f"touch {mark}"), "model_args": {}}, path, _use_new_zipfile_serialization=False)


def compress(path: Path, mark: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, record in records.items():
            archive.writestr(name, record)


SPOILERS = {
    truncate: "truncated or damaged",
    flip: "does not match its checksum",
    plant: r"refused, nothing of it was run: it asks for .*\.system",
    plant_plain: "not a checkpoint, damaged, or unsafe",
    plant_legacy: r"unsafe.*system",
    compress: "is compressed",
    lambda path, mark: path.write_bytes(b""): "not a checkpoint",
    lambda path, mark: path.write_bytes(b"GGUF" * 100): "not a checkpoint",
    lambda path, mark: path.write_bytes(b"PK\x03\x04" * 100): "truncated or damaged",
    lambda path, mark: torch.save([1, 2], path): "expected a state dict|must be a mapping",
}


@pytest.mark.parametrize("stage", ["fine", "codec"])
@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_damaged_and_hostile_files(
    original: SimpleNamespace, sources: MakeSources, tmp_path: Path, spoil: Callable[[Path, Path], Any], stage: str
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path, mark, output = folder / f"{stage}.pt", tmp_path / "mark", tmp_path / "out/bark"
    path.write_bytes(getattr(sources(), stage).read_bytes())
    spoil(path, mark)
    with pytest.raises(ConversionError, match=SPOILERS[spoil]) as caught:
        convert(sources(**{stage: path}), output)
    assert str(path) in str(caught.value)
    assert not mark.exists(), "the file's code was run"
    assert list((tmp_path / "out").iterdir()) == [], "something was left behind"


def test_allow_list_is_no_wider_than_needed() -> None:
    named = {entry[1] for entry in checkpoints.SAFE_GLOBALS if isinstance(entry, tuple)}
    assert named == {"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype", "_codecs.encode"}
    others = [entry for entry in checkpoints.SAFE_GLOBALS if not isinstance(entry, tuple)]
    assert others == [np.dtypes.Float64DType, np.dtypes.Float32DType]


@pytest.mark.parametrize("module", ["numpy.core.multiarray", "numpy._core.multiarray"])
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_numpy_losses_of_old_and_new_numpy(tmp_path: Path, module: str, kind: type) -> None:
    path = tmp_path / "a.pt"
    torch.save({"model": {"a": torch.ones(2)}, "model_args": {}, "best_val_loss": kind(1.25)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, record in records.items():
            archive.writestr(name, record.replace(b"cnumpy._core.multiarray\n", f"c{module}\n".encode()))
    assert read_suno(path).best_val_loss == 1.25


def test_the_allow_list_does_not_outlive_a_read(tmp_path: Path) -> None:
    torch.save({"loss": np.float64(1.0)}, tmp_path / "a.pt")
    read_torch(tmp_path / "a.pt")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pt", weights_only=True)


def test_files_of_old_torch(original: SimpleNamespace, tmp_path: Path) -> None:
    model, args = build(original, "coarse")
    torch.save(checkpoint(model, args), tmp_path / "coarse.pt", _use_new_zipfile_serialization=False)
    found = read_suno(tmp_path / "coarse.pt")
    assert found.best_val_loss == 2.345678901234567
    assert torch.equal(found.model["_orig_mod.lm_head.weight"], model.lm_head.weight)


def test_checksums_can_be_left_out(original: SimpleNamespace, tmp_path: Path) -> None:
    torch.save(checkpoint(*build(original, "coarse")), tmp_path / "coarse.pt")
    flip(tmp_path / "coarse.pt", tmp_path)
    assert read_suno(tmp_path / "coarse.pt", checksums=False).model


def test_folders_appear_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "new/folder"
    with pytest.raises(KeyboardInterrupt), new_folder(target) as draft:
        (draft / "a").touch()
        assert not target.exists()
        raise KeyboardInterrupt
    assert list((tmp_path / "new").iterdir()) == []
    with new_folder(target) as draft:
        (draft / "a").touch()
    assert [path.name for path in target.iterdir()] == ["a"]
    with pytest.raises(ConversionError, match="not empty; --overwrite"), new_folder(target):
        pass
    with pytest.raises(ZeroDivisionError), new_folder(target, overwrite=True):
        raise ZeroDivisionError
    assert [path.name for path in target.iterdir()] == ["a"], "a failed conversion leaves what was there"
    with new_folder(target, overwrite=True) as draft:
        (draft / "b").touch()
    assert [path.name for path in target.iterdir()] == ["b"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["folder"]
    with pytest.raises(ConversionError, match="not a folder"), new_folder(target / "b", overwrite=True):
        pass


def test_written_file_is_what_safetensors_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_CHUNK", 5)
    tensors = {
        "a": torch.randn(3, 4),
        "transposed": torch.randn(4, 6).T,
        "scalar": torch.tensor(7),
        "flag": torch.tensor([True, False, True]),
        "half": torch.randn(7).half(),
        "none": torch.zeros(0, 3),
        "infinite": torch.tensor([float("inf"), float("nan")]),
    }
    dtypes = {name: torch.bfloat16 if name in ("a", "infinite") else t.dtype for name, t in tensors.items()}
    size = write_safetensors(tmp_path / "x.safetensors", tensors, dtypes, {"format": "pt"})
    found = load_file(tmp_path / "x.safetensors")
    assert size == sum(t.numel() * t.element_size() for t in found.values())
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        wanted = tensor.to(dtypes[name])
        assert found[name].dtype == wanted.dtype
        torch.testing.assert_close(found[name], wanted, rtol=0, atol=0, equal_nan=True)


MEASURE = """
import sys
from pathlib import Path
from conversion.convert_suno_to_hf import DTYPES, Sources, convert
import transformers.models.encodec.modeling_encodec

def peak():  # getrusage would count the parent's peak as well
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

before = peak()
folder, output, dtype = Path(sys.argv[1]), Path(sys.argv[2]), DTYPES.get(sys.argv[3])
files = {name: folder / f"{name}.pt" for name in ("text", "coarse", "fine")}
convert(Sources(**files, codec=folder / "encodec.th"), output, dtype=dtype)
print((peak() - before) / max(path.stat().st_size for path in files.values()))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")
@pytest.mark.parametrize("dtype", ["keep", "float16"])
@pytest.mark.parametrize("optimizer", [True, False])
def test_peak_memory(original: SimpleNamespace, suno_folder: Path, tmp_path: Path, optimizer: bool, dtype: str) -> None:
    """At most 1.3 times the largest file, above what the interpreter and the libraries take."""
    for stage in ("coarse", "fine"):
        os.link(suno_folder / f"{stage}.pt", tmp_path / f"{stage}.pt")
    os.link(suno_folder / "encodec.th", tmp_path / "encodec.th")
    width = 176 if optimizer else 480
    content = checkpoint(*build(original, "text", width=width))
    if not optimizer:
        del content["optimizer"]
    torch.save(content, tmp_path / "text.pt")
    size = (tmp_path / "text.pt").stat().st_size
    assert 2.0e8 < size < 3.5e8
    del content
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}:{root / 'src'}"}
    command = [sys.executable, "-c", MEASURE, str(tmp_path), str(tmp_path / "out"), dtype]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    ratio = float(result.stdout.split()[-1])
    print(f"optimizer state: {optimizer}, dtype: {dtype}: peak memory {ratio:.2f} x {size / 1e6:.0f} MB")
    assert ratio <= (0.6 if optimizer else 1.3)  # an optimizer's state is two thirds of the file
