"""The command line: what it writes, says and refuses."""

from __future__ import annotations

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from safetensors.torch import load_file, save_file
from transformers import GPT2Config

from transformers_bark import BarkModel, VoicePreset, __version__
from transformers_bark.cli import main
from transformers_bark.cli.say import build_parser
from transformers_bark.cli.speaking import generation_options

NAME = "v2/en_speaker_0"


def test_speaks_to_a_file(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o.wav"
    assert main(["hello my dog", "-o", str(out), "--model", str(checkpoint), "--seed", "1"]) == 0
    info = soundfile.info(out)
    assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
    said = capsys.readouterr().out
    assert str(out) in said and f"{info.duration:.2f} s" in said and "real-time factor" in said
    first = out.read_bytes()
    assert main(["hello my dog", "-o", str(out), "--model", str(checkpoint), "--seed", "1", "--quiet"]) == 0
    assert out.read_bytes() == first and not capsys.readouterr().out
    assert main(["hello my dog", "-o", str(out), "--model", str(checkpoint), "--seed", "1", "--temperature", "2"]) == 0
    assert out.read_bytes() != first


def test_as_a_process_with_text_from_standard_input(checkpoint: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "transformers_bark",
        "-",
        "-o",
        str(tmp_path / "o.wav"),
        "--model",
        str(checkpoint),
    ]
    done = subprocess.run(command, input="hello dog\n", capture_output=True, text=True, check=True)
    assert "o.wav" in done.stdout and soundfile.info(tmp_path / "o.wav").frames > 0
    assert "Traceback" not in done.stderr


def test_standard_output_takes_the_audio_and_nothing_else(
    checkpoint: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    arguments = ["hello dog", "--model", str(checkpoint), "--seed", "1", "-o"]
    assert main([*arguments, str(tmp_path / "o.wav")]) == 0
    assert b"o.wav" in capfdbinary.readouterr().out
    assert main([*arguments, "-"]) == 0
    said = capfdbinary.readouterr()
    assert said.out == (tmp_path / "o.wav").read_bytes() and b"real-time factor" in said.err
    assert main([*arguments, str(tmp_path / "o.flac"), "--quiet"]) == 0
    assert soundfile.info(tmp_path / "o.flac").format == "FLAC"


@pytest.mark.parametrize("arguments", [["hello", "-o", "o.wav"], ["hello", "-o", "-"], ["voices"]])
def test_a_closed_standard_output_is_a_failure(checkpoint: Path, tmp_path: Path, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "transformers_bark", *arguments, "--model", str(checkpoint)]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(writer)
    assert done.returncode == 1 and done.stderr.splitlines()[-1] == "bark-tts: standard output: Broken pipe"
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert soundfile.info(tmp_path / "o.wav").frames if "o.wav" in arguments else not list(tmp_path.iterdir())


def test_voices_are_listed_used_and_saved(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["voices", "--model", str(checkpoint)]) == 0
    assert capsys.readouterr().out == f"{NAME}\n"
    monkeypatch.chdir(tmp_path)
    model = ["--model", str(checkpoint), "--seed", "2"]
    assert main(["hello", "--voice", NAME, "--save-voice", "kept.npz", *model]) == 0
    assert Path("speech.wav").exists()
    voice = VoicePreset.load("kept.npz")
    assert soundfile.info("speech.wav").frames == voice.fine_prompt.shape[1] * 600
    assert main(["hello", "--voice", "kept.npz", "-o", "b.wav", *model]) == 0
    # what was kept is what was said: its codes decode to the same audio
    audio = BarkModel.from_pretrained(checkpoint).codec_decode(voice.fine_prompt[None])[0].detach()
    written = soundfile.read("speech.wav", dtype="float32")[0]
    assert abs(audio.clamp(-1, 1).numpy() - written).max() < 1e-3


def test_the_original_commands_arguments(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "made" / "here"  # the original makes it
    arguments = [
        "--text",
        "hello",
        "--output_filename",
        "a.wav",
        "--output_dir",
        str(folder),
        "--history_prompt",
        NAME,
    ]
    more = ["--text_temp", "0.6", "--waveform_temp", "0.8", "--silent", "True", "--output_full", "True"]
    assert main([*arguments, *more, "--model", str(checkpoint)]) == 0
    assert sorted(file.name for file in folder.iterdir()) == ["a.npz", "a.wav"]
    VoicePreset.load(folder / "a.npz")
    assert not capsys.readouterr().out
    # a word that means something else without --text, and the original's name for the file
    assert main(["--text", "voices", "--output_dir", str(folder), "--model", str(checkpoint), "--silent", "False"]) == 0
    assert "bark_generation.wav" in capsys.readouterr().out and (folder / "bark_generation.wav").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hello", "--voice", "nobody"], "nobody"),
        (["hello", "--voice", "v2/en_speaker_1"], "did you mean v2/en_speaker_0"),
        (["hello", "--min-eos-p", "0"], "ended before it said anything"),
        (["hello", "--device", "nonsense"], "device 'nonsense' cannot be used here"),
        (["hello", "--device", "cuda:99"], "device 'cuda:99' cannot be used here"),
    ],
)
def test_failures_are_one_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert main([*arguments, "--model", str(checkpoint), "-o", str(tmp_path / "o.wav")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("bark-tts: ") and error.count("\n") == 1
    assert re.search(words, error), error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give a text"),
        (["  "], "text is empty"),
        (["hello", "-o", "/nowhere/o.wav"], "folder /nowhere does not exist"),
        (["hello", "--save-voice", "v.bin"], "v.bin"),
        (["hello", "--dtype", "int8"], "invalid choice"),
        (["hello", "-o", "o.txt"], ".wav, .flac, "),
        (["hello", "-o", "."], "is a folder"),
        (["hello", "-o", "o.wav", "--output_dir", "."], "-o takes the place of"),
        (["hello", "--text", "hello"], "give the text once"),
        (["hello", "--temperature", "0"], "expected a positive number, got '0'"),
        (["hello", "--fine-temperature", "warm"], "expected a positive number, got 'warm'"),
        (["hello", "--seed", "-4"], "expected a whole number of at least 0, got '-4'"),
        (["hello", "--top-p", "1.5"], "expected a number in (0, 1], got '1.5'"),
        (["hello", "--min-eos-p", "2"], "expected a number in [0, 1], got '2'"),
        (["--silent", "hello"], "expected True or False, got 'hello'"),
        (["caf\udce9"], "not UTF-8"),
    ],
)
def test_bad_usage_exits_with_2(capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert words in capsys.readouterr().err


def test_bad_checkpoints_are_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damaged, empty, out = tmp_path / "damaged", tmp_path / "empty", tmp_path / "o.wav"
    shutil.copytree(checkpoint, damaged)
    empty.mkdir()
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    for folder in (damaged, empty, tmp_path / "absent"):
        assert main(["hello", "--model", str(folder), "-o", str(out)]) == 1
        error = capsys.readouterr().err
        assert "bark-tts: " in error and "Traceback" not in error
        assert not out.exists()
    assert f"model folder {tmp_path / 'absent'} does not exist" in error


def test_checkpoints_that_would_make_noise_are_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "partial"
    shutil.copytree(checkpoint, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["semantic.lm_head.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert main(["hello", "--model", str(folder), "-o", str(tmp_path / "o.wav")]) == 1
    assert "lacks 1 weights, semantic.lm_head.weight among them" in capsys.readouterr().err
    GPT2Config(n_embd=8, n_head=1, n_layer=1).save_pretrained(folder)
    assert main(["hello", "--model", str(folder), "-o", str(tmp_path / "o.wav")]) == 1
    assert "is a model of type 'gpt2', not 'bark'" in capsys.readouterr().err


def test_a_failure_leaves_the_file_that_was_there(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.wav"
    out.write_bytes(b"earlier")
    assert main(["hello", "--min-eos-p", "0", "--model", str(checkpoint), "-o", str(out)]) == 1
    assert out.read_bytes() == b"earlier" and len(list(tmp_path.iterdir())) == 1


def test_sampling_options_reach_their_stages() -> None:
    def options(*arguments: str) -> dict[str, object]:
        return generation_options(build_parser().parse_args(arguments))

    assert options() == {}
    assert options("--coarse-temperature", "0.6") == {"coarse_temperature": 0.6, "coarse_do_sample": True}
    # the fine stage samples at any temperature, and keeps its own when another stage's is given
    assert options("--fine-temperature", "0.6") == {"fine_temperature": 0.6}
    assert options("--temperature", "0.6") == {
        "temperature": 0.6,
        "semantic_do_sample": True,
        "coarse_do_sample": True,
    }
    assert options("--greedy", "--min-eos-p", "0.1") == {"min_eos_p": 0.1, "do_sample": False}


def test_greedy_needs_no_seed(checkpoint: Path, tmp_path: Path) -> None:
    files = [tmp_path / "a.wav", tmp_path / "b.wav"]
    for file in files:
        assert main(["hello my dog", "--greedy", "--model", str(checkpoint), "-o", str(file), "--min-eos-p", "1"]) == 0
    assert files[0].read_bytes() == files[1].read_bytes()


def test_version_and_standard_input(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
    monkeypatch.setattr(sys, "stdin", io.StringIO(" \n"))
    with pytest.raises(SystemExit, match="2"):
        main(["-"])


def test_engines_say_the_same_and_graphs_are_built_ahead(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = ["--model", str(checkpoint), "--seed", "1"]
    assert main(["export", "--precision", "int8", *model]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == [
        f"Bark{stage}Model in int8" for stage in ("Semantic", "Coarse", "Fine")
    ]
    assert all("largest logit difference from PyTorch" in line for line in said)
    assert main(["export", "--cache-precision", "int8", *model]) == 0
    assert "BarkCoarseModel in fp32 with an int8 cache: largest" in capsys.readouterr().out
    files = {}
    for engine in ("torch", "onnxruntime"):
        files[engine] = tmp_path / f"{engine}.wav"
        assert main(["hello my dog", "-o", str(files[engine]), "--engine", engine, *model]) == 0
    torch_audio, onnx_audio = (soundfile.read(file)[0] for file in files.values())
    assert len(torch_audio) == len(onnx_audio) and abs(torch_audio - onnx_audio).max() < 1e-3
    assert main(["hello", "--engine", "torch", "--precision", "int8", "-o", str(tmp_path / "x.wav"), *model]) == 1
    assert "of the engine 'torch' must be one of fp32, bf16" in capsys.readouterr().err


def test_an_interrupt_while_importing_ends_quietly(tmp_path: Path) -> None:
    # a module that is imported on the way interrupts, as Ctrl-C would
    (tmp_path / "soundfile.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nwhile True: pass\n")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    command = [sys.executable, "-m", "transformers_bark", "hello"]

    def listen() -> None:  # a shell's background jobs ignore interrupts, and so would what they start
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120, preexec_fn=listen
    )
    assert done.returncode == 130 and "Traceback" not in done.stderr


def test_a_dtype_that_the_engine_does_not_obey_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["-o", str(tmp_path / "o.wav"), "--model", str(checkpoint), "--dtype", "bfloat16"]
    assert main(["hello", "--engine", "onnxruntime", *out]) == 1
    assert "--dtype bfloat16 is PyTorch's" in capsys.readouterr().err
    assert main(["hello", *out]) == 0, "auto takes an engine that obeys"
