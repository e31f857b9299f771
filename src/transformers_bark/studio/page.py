"""The page: its parts and where they stand, and which function of `Handlers` an event calls."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any

import gradio as gr

from ..serving.voices import RANDOM
from .handlers import Handlers, history, voice_choices
from .making import KINDS, STAGES, Studio
from .streamed import streamed_audio
from .takes import AUDIO_ENDINGS, SUBTITLE_ENDINGS

_CACHE_SECONDS = 3600
"""How long files that the page was given are kept."""

_NATIVE = {"show_recording_waveform": False}
"""The browser's own player: our pictures show the waveform."""

_CAVEATS = """<p>What this can tell, and what not</p><ul>
<li>It finds what the last stage of Bark, its codec, leaves in every recording: not who spoke, nor whether another model did.</li>
<li>Other synthesizers with the same codec may be taken for Bark, and so are pulses of 100 a second; hum of the mains makes it too
suspicious.</li>
<li>Loud noise hides the traces, and under a second says little.</li>
<li>Where few of many recordings are Bark's, most alarms are false: a verdict is a hint and no proof.</li>
<li>What was measured, and how: docs/detection.md. Nothing of a recording leaves the machine that runs this page.</li></ul>"""

_ABOUT = {
    "semantic": "what is said, and how",
    "coarse": "the sound",
    "fine": "its detail",
}


def create_page(studio: Studio) -> gr.Blocks:
    """The studio's page, to be launched by `server.launch` or mounted in another app."""
    handlers = Handlers(studio)
    with gr.Blocks(
        title="Bark studio", analytics_enabled=False, delete_cache=(_CACHE_SECONDS // 4, _CACHE_SECONDS)
    ) as page:
        session = gr.State(studio.first_session, delete_callback=lambda one: one.close())
        parts: dict[str, Any] = {"session": session}
        gr.HTML(f"<h1>Bark studio</h1><p>Type, listen, keep what sounds good. Model: {studio.name}</p>", elem_id="top")
        with gr.Tabs():
            with gr.Tab("Speak", id="speak"):
                _speak_tab(studio, parts)
            with gr.Tab("Takes", id="takes"):
                _takes_tab(parts)
            with gr.Tab("Did Bark make it?", id="detect"):
                _detect_tab(parts)
        _wire_speaking(handlers, parts)
        _wire_take(handlers, parts)
        _wire_rest(handlers, parts)
        page.unload(handlers.leave)
    page.queue(max_size=studio.limits.waiting, default_concurrency_limit=None)
    return page


def _speak_tab(studio: Studio, parts: dict[str, Any]) -> None:
    # on a phone the columns dissolve, and the cards stand in the order of page.css: text, voice, button, take
    with gr.Row(equal_height=False, elem_id="main"):
        with gr.Column(scale=5, min_width=320, elem_id="left"):
            _text_parts(studio, parts)
            with gr.Column(elem_id="do"):
                parts["speak"] = gr.Button("Speak", variant="primary", elem_id="speak")
                parts["stop"] = gr.Button("Stop", elem_id="stop", visible=False)
                parts["progress"] = gr.HTML("", elem_id="progress", min_height=0)
                parts["live"] = streamed_audio(
                    studio.rate,
                    label="As it is made",
                    autoplay=True,
                    visible=False,
                    elem_id="live",
                    buttons=[],
                    waveform_options=_NATIVE,
                )
            with gr.Column(visible=False, elem_classes="card", elem_id="result") as parts["result"]:
                _result_parts(parts)
        with gr.Column(scale=3, min_width=280, elem_id="right"):
            with gr.Column(elem_classes="card", elem_id="voices"):
                _voice_parts(studio, parts)
            with gr.Column(elem_classes="card", elem_id="sampling"):
                _sampling_parts(studio, parts)


def _text_parts(studio: Studio, parts: dict[str, Any]) -> None:
    with gr.Column(elem_classes="card", elem_id="what"):
        parts["kind"] = gr.Radio(
            list(KINDS), value="Text", label="Read as", show_label=False, container=False, elem_id="kind"
        )
        parts["text"] = gr.Textbox(
            label="Text",
            show_label=False,
            placeholder="What shall be said?",
            lines=5,
            max_lines=14,
            elem_id="text",
            autofocus=True,
        )
        parts["cast"] = gr.Textbox(
            label="Voices of the speakers",
            info="A line for each, as in: Anna = en_heart. In the text, a line begins with its speaker: Anna: Hello!",
            lines=2,
            visible=False,
            elem_id="cast",
        )
        parts["note"] = gr.HTML("", elem_id="note")


def _voice_parts(studio: Studio, parts: dict[str, Any]) -> None:
    choices = voice_choices(studio.first_session)
    parts["voice"] = gr.Dropdown(
        choices, value=choices[0][1], label="Voice", elem_id="voice", filterable=len(choices) > 8
    )
    parts["sample"] = _player("How it sounds", "sample")
    parts["upload"] = gr.UploadButton(
        "Add a voice file", file_types=[".npz", ".safetensors"], size="sm", elem_id="upload"
    )


def _sampling_parts(studio: Studio, parts: dict[str, Any]) -> None:
    parts["seed"] = gr.Textbox(
        label="Seed",
        info="Makes it repeatable. Empty: another one every time.",
        placeholder="drawn",
        max_lines=1,
        elem_id="seed",
    )
    parts["streamed"] = gr.Checkbox(
        value=True,
        label="Play while it is made",
        info="Heard sooner. Without it, a sentence is heard when all of it is made.",
        elem_id="streamed",
    )
    with gr.Accordion("Temperatures", open=False, elem_id="temperatures"):
        for stage in STAGES:
            parts[stage] = gr.Slider(
                0,
                1.5,
                value=studio.temperatures[stage],
                step=0.05,
                label=stage.capitalize(),
                info=f"{_ABOUT[stage]}; 0 always takes the most probable token",
                elem_id=f"temperature_{stage}",
                buttons=["reset"],
            )


def _result_parts(parts: dict[str, Any]) -> None:
    parts["player"] = _player("Take", "player")
    parts["facts"] = gr.HTML("", elem_id="facts")
    parts["words"] = gr.HTML("")
    parts["pictures"] = gr.HTML("", elem_id="pictures")
    with gr.Accordion("Tokens of the three stages", open=False, elem_id="tokens"):
        parts["tokens"] = gr.HTML("")
    with gr.Row():
        parts["go_on"] = gr.Button("Go on in this voice", elem_id="go_on", min_width=150)
        parts["keep_seed"] = gr.Button("Use this seed again", elem_id="keep_seed", min_width=150)
    with gr.Accordion("Save as a voice", open=False, elem_id="save"):
        with gr.Row(equal_height=True):
            parts["voice_name"] = gr.Textbox(
                label="Name", max_lines=1, max_length=64, min_width=150, elem_id="voice_name"
            )
            parts["save_voice"] = gr.Button("Save", elem_id="save_voice", min_width=100)
        parts["saved"] = gr.File(label="Voice file", visible=False, interactive=False, elem_id="saved")
    with gr.Accordion("Download, with subtitles", open=False, elem_id="download"):
        with gr.Row():
            parts["format"] = gr.Dropdown(list(AUDIO_ENDINGS), value=".wav", label="Audio", min_width=110)
            parts["subtitles"] = gr.Dropdown(
                [*SUBTITLE_ENDINGS, "none"], value=".srt", label="Subtitles", min_width=110
            )
            parts["by"] = gr.Dropdown(["sentence", "word"], value="sentence", label="By", min_width=110)
        parts["make_files"] = gr.Button("Make the files", elem_id="make_files")
        parts["files"] = gr.File(
            label="Files", file_count="multiple", visible=False, interactive=False, elem_id="files"
        )


def _takes_tab(parts: dict[str, Any]) -> None:
    with gr.Column(elem_classes="card"):
        parts["history"] = gr.HTML(history([]), elem_id="history")
        parts["open_take"] = gr.Dropdown([], label="Show on the first page", elem_id="open_take")
    with gr.Column(elem_classes="card"):
        gr.HTML("<h3>One against the other</h3><p class='line'>Switching goes on at the same place.</p>")
        with gr.Row():
            for one in ("a", "b"):
                with gr.Column(min_width=260):
                    parts[f"take_{one}"] = gr.Dropdown([], label=one.upper(), elem_id=f"take_{one}")
                    parts[f"player_{one}"] = _player("", f"player_{one}")
                    parts[f"play_{one}"] = gr.Button(f"Play {one.upper()}", elem_id=f"play_{one}")


def _detect_tab(parts: dict[str, Any]) -> None:
    with gr.Column(elem_classes="card"):
        parts["recording"] = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            label="Recording",
            elem_id="recording",
            editable=False,
            buttons=[],
            waveform_options=_NATIVE,
        )
        parts["judge"] = gr.Button("Did Bark make it?", variant="primary", elem_id="judge")
        parts["verdict"] = gr.HTML("", elem_id="verdict")
        parts["probability"] = gr.HTML("", elem_id="probability")
        gr.HTML(_CAVEATS, elem_classes="caveats")


def _player(label: str, name: str) -> Any:
    return gr.Audio(
        label=label,
        show_label=bool(label),
        interactive=False,
        elem_id=name,
        buttons=[],
        waveform_options=_NATIVE,
        type="filepath",
    )


def _named(function: Callable[..., Any], parts: Mapping[str, Any]) -> Callable[..., Any]:
    """A function that gives values by names -> one that gives them by Gradio's components."""

    def placed(values: Any) -> Any:
        return {parts[name]: value for name, value in values.items()}

    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def steps(*arguments: Any) -> Any:
            for values in function(*arguments):
                yield placed(values)

        return steps

    @wraps(function)
    def once(*arguments: Any) -> Any:
        return placed(function(*arguments))

    return once


_RESULT = ("result", "player", "facts", "words", "pictures", "tokens", "files", "saved", "voice_name")
_LISTED = ("history", "open_take", "take_a", "take_b")


def _wire_speaking(handlers: Handlers, parts: dict[str, Any]) -> None:
    asked = [parts[name] for name in ("text", "kind", "cast", "voice", "seed", "streamed", *STAGES, "session")]
    told = [parts[name] for name in ("speak", "stop", "progress", "note", "live", *_RESULT, *_LISTED)]
    speaking = gr.on(
        [parts["speak"].click, parts["text"].submit],
        _named(handlers.speak, parts),
        asked,
        told,
        api_name="speak",
        show_progress="minimal",
        show_progress_on=parts["progress"],
        concurrency_limit=1,
        concurrency_id="model",
        trigger_mode="once",
        validator=handlers.check,
    )
    parts["stop"].click(
        _named(handlers.stop, parts),
        [parts["session"]],
        [parts[name] for name in ("speak", "stop", "progress", "live")],
        api_name="stop",
        queue=False,
        cancels=[speaking],
        show_progress="hidden",
    )
    # what was streamed is the take's from then on
    parts["live"].stop(
        lambda: gr.update(visible=False),
        None,
        parts["live"],
        api_visibility="private",
        queue=False,
        show_progress="hidden",
    )
    parts["kind"].change(
        lambda kind: gr.update(visible=kind == "Script"),
        parts["kind"],
        parts["cast"],
        api_visibility="private",
        queue=False,
        show_progress="hidden",
    )


def _wire_take(handlers: Handlers, parts: dict[str, Any]) -> None:
    session = parts["session"]

    def on_click(button: str, function: Callable[..., Any], inputs: list[str], outputs: list[str]) -> None:
        parts[button].click(
            _named(function, parts),
            [*(parts[name] for name in inputs), session],
            [parts[name] for name in outputs],
            api_name=button,
            show_progress="minimal",
        )

    on_click("go_on", handlers.go_on, [], ["voice", "note"])
    on_click("save_voice", handlers.save_voice, ["voice_name"], ["voice", "saved"])
    on_click("make_files", handlers.download, ["format", "subtitles", "by"], ["files"])
    parts["keep_seed"].click(
        handlers.keep_seed, [session], [parts["seed"]], api_name="keep_seed", show_progress="hidden"
    )
    parts["open_take"].input(
        _named(handlers.open, parts),
        [parts["open_take"], session],
        [parts[name] for name in (*_RESULT, "live")],
        api_name="open_take",
        show_progress="hidden",
    )
    for one in ("a", "b"):
        parts[f"take_{one}"].change(
            handlers.compared,
            [parts[f"take_{one}"], session],
            parts[f"player_{one}"],
            api_name=f"compare_{one}",
            show_progress="hidden",
        )
        parts[f"play_{one}"].click(None, js=f"() => window.barkCompare('{one}')")


def _wire_rest(handlers: Handlers, parts: dict[str, Any]) -> None:
    session = parts["session"]
    sampled: dict[str, Any] = {"show_progress": "minimal", "concurrency_limit": 1, "concurrency_id": "codec"}
    parts["voice"].change(
        handlers.sample,
        [parts["voice"], session],
        parts["sample"],
        api_name="sample",
        trigger_mode="always_last",
        **sampled,
    )
    gr.on(None, handlers.sample, [parts["voice"], session], parts["sample"], api_visibility="private", **sampled)
    parts["voice"].change(
        lambda voice: gr.update(visible=voice != RANDOM),
        parts["voice"],
        parts["sample"],
        api_visibility="private",
        queue=False,
        show_progress="hidden",
    )
    parts["upload"].upload(
        _named(handlers.upload_voice, parts),
        [parts["upload"], session],
        [parts["voice"], parts["note"]],
        api_name="upload_voice",
        show_progress="minimal",
    )
    parts["judge"].click(
        handlers.detect,
        parts["recording"],
        [parts["verdict"], parts["probability"]],
        api_name="detect",
        concurrency_limit=1,
        concurrency_id="detector",
        show_progress_on=parts["verdict"],
    )


__all__ = ["create_page"]
