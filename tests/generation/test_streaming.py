"""Streaming: pieces that are together the whole, early, and with the tokens of the whole run."""

from __future__ import annotations

import pytest
import torch

from tests.tiny import tiny_model, tiny_voice
from transformers_bark import BARK_NANO, BarkModel, BarkProcessor, codec
from transformers_bark.generation.output import BarkGenerateOutput
from transformers_bark.generation.streaming import BarkStreamOutput

IDS = torch.tensor([[5, 6, 7, 8]])
OPTIONS = {"do_sample": True, "semantic_allow_early_stop": False, "seed": 4}


def whole_and_pieces(model: BarkModel, **options: object) -> tuple[BarkGenerateOutput, list[BarkStreamOutput]]:
    whole = model.generate(IDS, return_dict_in_generate=True, **OPTIONS, **options)
    pieces = list(model.generate_stream(IDS, return_dict_in_generate=True, chunk_seconds=0.2, **OPTIONS, **options))
    return whole, pieces


@pytest.mark.parametrize("cuts", [(7, 20), (9, 10, 11, 30), (12, 40)])
def test_codes_decode_in_pieces_as_in_one(cuts: tuple[int, ...]) -> None:
    model = tiny_model().codec_model
    codes = torch.randint(0, 32, (4, 45))
    decoder = codec.StreamDecoder(model)
    pieces = [decoder.decode(part) for part in codes.tensor_split(cuts, dim=1)]
    assert torch.allclose(torch.cat(pieces), codec.decode(model, [codes])[0], atol=1e-5)
    assert [len(piece) for piece in pieces] == [600 * part.shape[1] for part in codes.tensor_split(cuts, dim=1)]


@pytest.mark.parametrize("voiced", [False, True])
def test_a_stream_is_its_own_codes_and_the_coarse_codes_of_the_whole_run(voiced: bool) -> None:
    model = tiny_model()
    voice = tiny_voice(n_semantic=8) if voiced else None
    whole, pieces = whole_and_pieces(model, history_prompt=voice)
    codes = torch.cat([piece.fine_codes for piece in pieces], dim=1)
    audio = torch.cat([piece.audio for piece in pieces])
    assert len(pieces) > 3
    assert torch.allclose(audio, codec.decode(model.codec_model, [codes])[0], atol=1e-5)
    assert torch.equal(codes[:2], whole.coarse_codes[0])
    assert len(audio) == int(whole.audio_lengths[0])
    assert all(piece.fine_codes.shape[1] >= 8 for piece in pieces[1:-1])  # 0.2 s of 40 frames a second


def test_the_first_piece_comes_before_the_last_window_is_made() -> None:
    model, seen = tiny_model(), []
    stream = model.generate_stream(IDS, stage_callback=seen.append, chunk_seconds=0.2, **OPTIONS)
    assert not seen
    first = next(stream)
    coarse = [report for report in seen if report.stage == "coarse"]
    assert len(first) and 0 < coarse[-1].done < coarse[-1].total / 2


def test_a_row_too_short_to_stream_is_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    options = {**OPTIONS, "semantic_max_new_tokens": 3}
    (piece,) = model.generate_stream(IDS, return_dict_in_generate=True, **options)
    assert (
        torch.equal(piece.audio, codec.decode(model.codec_model, [piece.fine_codes])[0])
        and piece.fine_codes.shape[1] < 7
    )


def test_bad_calls_show_at_once() -> None:
    model = tiny_model()
    for arguments, message in (
        ({"input_ids": IDS.expand(2, -1)}, "one text is streamed at a time, got 2 rows"),
        ({"input_ids": IDS, "chunk_seconds": 0}, "`chunk_seconds` must be positive, got 0"),
        ({"input_ids": IDS, "top_k": -1}, "`top_k`"),
    ):
        with pytest.raises(ValueError, match=message):
            model.generate_stream(**arguments)
    with pytest.raises(ValueError, match="at least 7 frames, got 3"):
        codec.StreamDecoder(model.codec_model).decode(torch.zeros(4, 3, dtype=torch.long))
    model.codec_model.config.use_causal_conv = False
    with pytest.raises(ValueError, match="looks ahead"):
        model.generate_stream(IDS, **OPTIONS)


def test_the_embedded_checkpoint_streams_nearly_what_it_says_whole() -> None:
    """The fine stage sees less of what follows: the codebooks it fills may differ, and the sound with them, a little."""
    model, processor = BarkModel.from_pretrained(BARK_NANO).eval(), BarkProcessor.from_pretrained(BARK_NANO)
    inputs = processor("Good morning, how are you today?")
    whole = model.generate(**inputs, seed=1, fine_temperature=None, return_dict_in_generate=True)
    pieces = list(model.generate_stream(**inputs, seed=1, fine_temperature=None, return_dict_in_generate=True))
    codes = torch.cat([piece.fine_codes for piece in pieces], dim=1)
    assert torch.equal(codes[:3], whole.coarse_codes[0])
    assert (codes == whole.fine_codes[0]).float().mean() > 0.6
