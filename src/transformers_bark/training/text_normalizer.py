"""What a text tokenizer of a recipe does to a text first: signs become words that its vocabulary has, or are left out.

It is part of `tokenizer.json`, so that every reader of the checkpoint does the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Regex, normalizers
from transformers import BertTokenizer, PreTrainedTokenizerFast

_UNIT = r"\s(?i:hundred|thousand|million|billion|trillion)\b"


def text_normalizer(settings: Mapping[str, Any]) -> Any:
    """The normalizer of a recipe.

    Args:
        settings: `replacements` lists pairs of a regular expression and what takes its place; `amounts` maps a currency's sign
            to its singular and plural, which are said after the number. Both may be missing.
    """
    steps = [
        *(step for sign, words in settings.get("amounts", {}).items() for step in _amounts(sign, *words)),
        *(normalizers.Replace(Regex(pattern), text) for pattern, text in settings.get("replacements", ())),
    ]
    plain = normalizers.BertNormalizer(lowercase=True)
    return normalizers.Sequence([*steps, normalizers.NFKC(), plain]) if steps else plain


def _amounts(sign: str, one: str, many: str) -> Iterator[Any]:
    """£1 -> 1 pound, £2.50 -> 2.50 pounds, £3 million -> 3 million pounds, £ -> pounds."""
    # a replacement cannot repeat what it replaces: \K matches the place behind it alone
    number = rf"{sign}\s?\d[\d.,]*(?<=\d)"
    yield normalizers.Replace(Regex(rf"{sign}\s?1\b\K(?![.,]\d|{_UNIT})"), f" {one}")
    yield normalizers.Replace(Regex(rf"{number}(?:{_UNIT})*\b\K(?![.,]?\d| {one}\b)"), f" {many}")
    yield normalizers.Replace(Regex(rf"{sign}(?=\s?\d)"), " ")
    yield normalizers.Replace(sign, f" {many} ")


def normalizing_tokenizer(plain: BertTokenizer, settings: Mapping[str, Any]) -> PreTrainedTokenizerFast:
    """A WordPiece tokenizer with the normalizer of a recipe.

    It is no `BertTokenizer`: that puts a normalizer of its own in the place of the one that `tokenizer.json` has.
    """
    plain.backend_tokenizer.normalizer = text_normalizer(settings)
    return PreTrainedTokenizerFast(
        tokenizer_object=plain.backend_tokenizer,
        model_max_length=plain.model_max_length,
        clean_up_tokenization_spaces=False,
        **plain.special_tokens_map,
    )
