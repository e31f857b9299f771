"""The page asked over HTTP, by Gradio's own client: what a visitor gets, and what nobody gets."""

from __future__ import annotations

import io
import json
import re
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import gradio_client.exceptions
import httpx2 as httpx
import numpy as np
import pytest
import soundfile
from gradio_client import Client, handle_file

from tests.detection.recordings import RATE, voice_like
from tests.studio.conftest import Served
from tests.tiny import tiny_voice
from transformers_bark.narration import Piece, Spoken
from transformers_bark.studio import plots, streamed
from transformers_bark.studio.handlers import Handlers, verdict
from transformers_bark.studio.making import Making, Studio
from transformers_bark.studio.takes import Session, Take

VOICE = "v2/en_speaker_0"
SAMPLING = (0.0, 0.0, 0.5)  # the tiny model's


def speak(client: Client, text: str = "hello", seed: str = "3", streams: bool = True, voice: str = VOICE) -> list[Any]:
    """Everything that the page is told while a text is spoken."""
    job = client.submit(text, "Text", "", voice, seed, streams, *SAMPLING, api_name="/speak")
    job.result(timeout=120)
    return job.outputs()


def player(outputs: list[Any]) -> Path:
    """The finished take's file."""
    (path,) = [one for one in outputs[-1] if isinstance(one, dict) and str(one.get("value", "")).endswith(".wav")]
    return Path(path["value"])


def test_the_take_is_what_generate_gives(served: Served, tmp_path: Path) -> None:
    audio, rate = soundfile.read(player(speak(served.client(), streams=False)))
    processor = served.studio.shared._processor
    (expected,) = served.studio.model.generate(**processor("hello", voice_preset=VOICE), seed=3)
    processor.save_audio(expected, tmp_path / "expected.wav")
    assert rate == served.studio.rate and np.array_equal(audio, soundfile.read(tmp_path / "expected.wav")[0])


def test_streamed_pieces_are_the_whole(served: Served) -> None:
    session_hash = "streams"
    fields = ["hello", "Text", "", VOICE, "3", True, *SAMPLING, None]
    dependency = next(one for one in served.page.config["dependencies"] if one["api_name"] == "speak")
    asked = {"data": fields, "fn_index": dependency["id"], "session_hash": session_hash}
    base = f"{served.url}gradio_api"
    with httpx.Client(timeout=120) as http:
        assert http.post(f"{base}/queue/join", json=asked).status_code == 200
        playlist = wav = None
        with http.stream("GET", f"{base}/queue/data", params={"session_hash": session_hash}) as answer:
            for line in answer.iter_lines():
                playlist = playlist or next(iter(re.findall(r'"(http[^"]*playlist\.m3u8)"', line)), None)
                wav = next(iter(re.findall(r'"(http[^"]*\.wav)"', line)), wav)
                if '"process_completed"' in line:
                    break
        assert playlist is not None and wav is not None
        listed = http.get(playlist).text
        assert "#EXT-X-ENDLIST" in listed
        names = [line for line in listed.splitlines() if line and not line.startswith("#")]
        coded = b"".join(http.get(str(httpx.URL(playlist).join(name))).content for name in names)
        whole, rate = soundfile.read(io.BytesIO(http.get(wav).content))
    lengths = [float(value) for value in re.findall(r"#EXTINF:([\d.]+)", listed)]
    assert len(names) > 1  # it came in pieces
    assert sum(lengths) == pytest.approx(len(whole) / rate, abs=0.05)
    with av.open(io.BytesIO(coded)) as container:
        resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
        decoded = [part.to_ndarray()[0] for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    assert likeness(np.concatenate(decoded), whole) > 0.8


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """The greatest correlation of two recordings that are up to 30 ms apart."""
    n = min(len(one), len(other)) - 1600
    best = 0.0
    for shift in range(0, 1600):
        a, b = one[shift : shift + n], other[:n]
        best = max(best, float(np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b) + 1e-9)))
    return best


def test_pieces_pass_through_the_player_unchanged() -> None:
    audio = np.random.default_rng(0).uniform(-1, 1, 500).astype(np.float32)
    assert np.array_equal(streamed.as_samples(streamed.as_bytes(audio, 24_000)), audio)


BAD = [
    (("  ", "Text", "", VOICE, "", True), "type a text"),
    (("a" * 201, "Text", "", VOICE, "", True), "201 characters"),
    (("日本", "Text", "", VOICE, "", True), "日本"),
    (("hello", "Text", "", VOICE, "-4", True), "-4"),
    (("hello", "Text", "", VOICE, "4.5", True), "4.5"),
    (("Ben: hello", "Script", f"Anna = {VOICE}", VOICE, "", True), "Ben"),
]


@pytest.mark.parametrize(("fields", "said"), BAD, ids=[said for _, said in BAD])
def test_a_bad_value_is_told_beside_its_field(handlers: Handlers, session: Session, fields: Any, said: str) -> None:
    told = handlers.check(*fields, *SAMPLING, session)
    wrong = [one["message"] for one in told if not one["is_valid"]]
    assert len(told) == 10 and len(wrong) == 1 and said in wrong[0]
    assert all(one["is_valid"] for one in handlers.check("hello", "Text", "", VOICE, "", True, *SAMPLING, session))


PAST = [(("", VOICE, ""), "type a text"), (("hello", VOICE, "-4"), "'-4'"), (("hello", "/etc/passwd", ""), "400")]


@pytest.mark.parametrize(("fields", "said"), PAST, ids=[said for _, said in PAST])
def test_whoever_asks_past_the_page_is_refused_too(served: Served, fields: tuple[str, str, str], said: str) -> None:
    text, voice, seed = fields
    with pytest.raises(Exception, match=said):
        served.client().predict(text, "Text", "", voice, seed, True, *SAMPLING, api_name="/speak")


def test_sessions_have_their_own_takes_and_voices(served: Served) -> None:
    one, other = served.client(), served.client()
    speak(one)
    assert one.predict(api_name="/keep_seed") == "3"
    files = one.predict(".mp3", ".vtt", "word", api_name="/make_files")
    assert [Path(file).suffix for file in files["value"]] == [".mp3", ".vtt"]
    assert soundfile.info(files["value"][0]).duration > 0.1
    assert "hello" in Path(files["value"][1]).read_text()
    with pytest.raises(gradio_client.exceptions.AppError, match="no take yet"):
        other.predict(".mp3", ".vtt", "word", api_name="/make_files")
    voice, saved = one.predict("mine", api_name="/save_voice")
    assert ["mine (yours)", "mine"] in [list(choice) for choice in voice["choices"]] and voice["value"] == "mine"
    assert set(np.load(saved["value"])) == {"semantic_prompt", "coarse_prompt", "fine_prompt"}
    with pytest.raises(gradio_client.exceptions.AppError, match="already"):
        one.predict("mine", api_name="/save_voice")
    assert np.any(soundfile.read(one.predict("mine", api_name="/sample"))[0])
    with pytest.raises(Exception, match="mine"):
        other.predict("mine", api_name="/sample")


def test_visitors_at_once_get_what_each_gets_alone(served: Served) -> None:
    clients = [served.client() for _ in range(3)]
    fields = ("hello", "Text", "", VOICE, "3", False, *SAMPLING)
    jobs = [client.submit(*fields, api_name="/speak") for client in clients]
    for job in jobs:
        job.result(timeout=120)
    first, *others = (soundfile.read(player(job.outputs()))[0] for job in jobs)
    assert all(np.array_equal(first, other) for other in others)
    assert [client.predict(api_name="/keep_seed") for client in clients] == ["3", "3", "3"]


def test_a_voice_file_is_checked(served: Served, tmp_path: Path) -> None:
    client = served.client()
    tiny_voice(seed=2).save(tmp_path / "my voice.npz")
    voice, _ = client.predict(handle_file(tmp_path / "my voice.npz"), api_name="/upload_voice")
    assert voice["value"].startswith("my")
    np.savez(tmp_path / "evil.npz", semantic_prompt=np.array([{"a": 1}], dtype=object))
    with pytest.raises(gradio_client.exceptions.AppError, match="no voice of this model"):
        client.predict(handle_file(tmp_path / "evil.npz"), api_name="/upload_voice")


def test_stop_ends_what_is_made(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    client, began = served.client(), threading.Event()
    real = served.studio.model.generate

    def slow(*arguments: Any, **options: Any) -> Any:
        tell = options["stage_callback"]

        def steps(at: Any) -> None:
            began.set()
            threading.Event().wait(0.02)
            tell(at)

        return real(*arguments, **{**options, "stage_callback": steps})

    monkeypatch.setattr(served.studio.model, "generate", slow)
    job = client.submit("hello [pause:1s] hello hello cat", "Text", "", VOICE, "1", False, *SAMPLING, api_name="/speak")
    assert began.wait(30)
    client.predict(api_name="/stop")
    with pytest.raises(Exception):  # noqa: B017 - cancelled, or without a take
        assert player(job.outputs()) and not job.result(timeout=30)
    assert served.studio.working.acquire(timeout=10)
    served.studio.working.release()


def test_who_closes_the_page_is_no_longer_spoken_for(handlers: Handlers, session: Session) -> None:
    visitor: Any = SimpleNamespace(session_hash="visitor")
    steps = handlers.speak("hello", "Text", "", VOICE, "1", False, *SAMPLING, session, visitor)
    next(steps)
    assert "stages" in next(steps)["progress"]
    handlers.leave(visitor)
    last = list(steps)[-1]
    assert "Stopped" in last["progress"] and not session.takes
    handlers.leave(visitor)  # twice is no harm


def test_the_detector_answers(served: Served, handlers: Handlers, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "voice.wav", voice_like(2.0, 1), RATE)
    said, plot = served.client().predict(handle_file(tmp_path / "voice.wav"), api_name="/detect")
    assert "did not make this" in said or "cannot be told" in said
    assert plot.count("<rect") == 2
    (tmp_path / "text.wav").write_bytes(b"hello")
    with pytest.raises(Exception, match=re.escape("text.wav")):
        handlers.detect(str(tmp_path / "text.wav"))
    with pytest.raises(Exception, match="choose a file"):
        handlers.detect(None)


def test_the_words_of_a_verdict() -> None:
    from transformers_bark.detection.detect import Detection

    for probability, words in (
        (0.001, "Bark did not"),
        (0.1, "probably did not"),
        (0.5, "cannot"),
        (0.999, "Bark made"),
    ):
        assert words in verdict(Detection(probability, np.array([probability]), 1.0))


def test_nothing_points_outside(served: Served) -> None:
    """No font, script, picture or figure of another host: in the page, its settings, its styles and its script."""
    with httpx.Client() as http:
        page = http.get(served.url).text
        config = http.get(f"{served.url}config").json()
        theme = http.get(f"{served.url}theme.css").text
    for component in config["components"]:  # what Gradio's page on its interface shows, which this one does not have
        component.pop("example_inputs", None)
    own = [served.url.rstrip("/"), "http://www.w3.org/2000/svg"]
    loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(https?://[^\"]+)", page)
    assert [one for one in loaded if not one.startswith(served.url)] == []
    for text in (json.dumps(config), theme):
        assert [
            one for one in re.findall(r"https?://[^\s\"'\\)]+", text) if not any(one.startswith(o) for o in own)
        ] == []
    assert config["analytics_enabled"] is False and config["enable_queue"] is True
    assert config["footer_links"] == [] and config["run_history"] is False
    assert not served.page.share and served.page.server_name == "127.0.0.1"


@pytest.mark.parametrize("path", ["/etc/hostname", str(Path(__file__).resolve())])
def test_no_file_of_the_machine_is_given(served: Served, path: str) -> None:
    with httpx.Client() as http:
        assert http.get(f"{served.url}gradio_api/file={path}").status_code == 403
    with pytest.raises(Exception, match=r"(?i)path|not|403"):
        served.client().predict({"path": path, "meta": {"_type": "gradio.FileData"}}, api_name="/detect")


def test_pictures_say_what_they_show(studio: Studio, session: Session) -> None:
    *_, take = Making(studio, session, studio.wish(session, "hello", seed=1)).events()
    assert isinstance(take, Take)
    assert plots.tokens(take.tokens, studio.config).count("<img") == 3
    one = Spoken(Piece(1, "<i>hi</i> &amp"), np.zeros(100, np.float32), 100, 0.0, 0.0, None, (), 1, 1)
    assert "&lt;i&gt;hi" in plots.words([one]) and "&amp;amp" in plots.words([one]) and "<i>" not in plots.words([one])
    tone = np.sin(2 * np.pi * 3000 * np.arange(24_000) / 24_000)
    levels = plots.mel_levels(tone, 24_000)
    assert levels.shape[0] == 80 and 40 < int(levels.mean(1).argmax()) < 60
    points = plots.waveform(np.concatenate([np.zeros(1000), 0.5 * np.ones(1000)]), 24_000)
    heights = [float(y) for y in re.findall(r"\d+,([\d.]+)", points)]
    assert min(heights) == 26 and max(heights) == 50  # from the middle half of the way up
