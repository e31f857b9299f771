"""What a tokenizer does not know is replaced, named or refused; what it knows stays as it is."""

from __future__ import annotations

import json
import unicodedata
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer

from tests.tiny import WORDS, tiny_tokenizer
from transformers_bark import BARK_NANO, BarkProcessor
from transformers_bark.training.text_normalizer import text_normalizer
from transformers_bark.unknown_text import known_text

RECIPE = Path(__file__).parents[1] / "recipes" / "nano" / "text_tokenizer.json"
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PLAIN = f"{LETTERS}{LETTERS.upper()}0123456789 .,!?;:'$%-"


def letters(folder: Path, more: str = "") -> BertTokenizer:
    """A cased tokenizer of single characters."""
    folder.mkdir(parents=True, exist_ok=True)
    known = f"{LETTERS}{LETTERS.upper()}{more}"
    words = [*WORDS[:5], *known, *(f"##{one}" for one in known if one.isalnum()), "'", '"', "-", ",", "."]
    (folder / "vocab.txt").write_text("\n".join(dict.fromkeys(words)) + "\n", encoding="utf-8")
    return BertTokenizer(vocab=str(folder / "vocab.txt"), do_lower_case=False, strip_accents=False)


@pytest.fixture(scope="module")
def processor(tmp_path_factory: pytest.TempPathFactory) -> BarkProcessor:
    return BarkProcessor(letters(tmp_path_factory.mktemp("letters")))


@pytest.fixture(scope="module")
def nano() -> BarkProcessor:
    return BarkProcessor.from_pretrained(BARK_NANO)


def read(processor: BarkProcessor, text: str) -> str:
    """The text as the tokenizer gets it, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ids = processor(text)["input_ids"][0]
    assert processor.tokenizer.unk_token_id not in ids
    return processor.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("don’t “stop”", 'don\'t "stop"'),
        ("one — two – three‑four", "one - two - three-four"),
        ("well…", "well..."),
        ("ﬁne ＡＢＣ", "fine ABC"),
        ("caf\u00e9 cafe\u0301 Straße", "cafe cafe Strasse"),
        ("(see) [this] *now*", "see this now"),
    ],
)
def test_equivalents_are_read(processor: BarkProcessor, text: str, same: str) -> None:
    assert read(processor, text) == read(processor, same)


def test_the_form_that_is_known_is_taken(tmp_path: Path) -> None:
    processor = BarkProcessor(letters(tmp_path, "éñ“"))
    assert read(processor, unicodedata.normalize("NFD", "éñ")) == "éñ"
    # what is known stays, an equivalent or not
    assert read(processor, "“a”") == read(processor, '“a"') != read(processor, '"a"')


def test_what_is_lost_is_named_once(processor: BarkProcessor) -> None:
    with pytest.warns(UserWarning, match="does not know '你', '好', '☃'") as caught:
        inputs = processor(["hello 你好 snow☃man", "hello 你"])
    assert len(caught) == 1 and caught[0].filename == __file__
    assert read(processor, "hello snow man") == processor.tokenizer.decode(
        inputs["input_ids"][0], skip_special_tokens=True
    )


def test_a_word_whose_letters_are_known_is_named(tmp_path: Path) -> None:
    processor = BarkProcessor(tiny_tokenizer(tmp_path))
    with pytest.warns(UserWarning, match="does not know 'bad'"):
        processor("hello bad")


@pytest.mark.parametrize("text", ["你好", "你好!", "♪ ♪", ["hello", "你好"]])
def test_nothing_known_is_an_error(processor: BarkProcessor, text: str) -> None:
    with pytest.raises(ValueError, match="nothing that the tokenizer knows"):
        processor(text)


def test_half_characters_are_named(processor: BarkProcessor) -> None:
    with pytest.raises(ValueError, match=r"not Unicode.*'\\udce9'.*at 3"):
        processor("caf\udce9")


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60))
def test_text_that_is_known_is_never_touched(processor: BarkProcessor, text: str) -> None:
    tokenizer = processor.tokenizer
    changed, unknown = known_text(tokenizer, text)
    if tokenizer.unk_token_id not in tokenizer(text)["input_ids"]:
        assert (changed, unknown) == (text, [])
    elif not unknown:
        assert tokenizer.unk_token_id not in tokenizer(changed)["input_ids"]


@settings(deadline=None, max_examples=200)
@given(st.one_of(st.text(max_size=200), st.text(PLAIN, max_size=200)))
def test_any_text_is_tokenized_or_refused(nano: BarkProcessor, text: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            inputs = nano(text)
    except ValueError as error:
        assert "text" in str(error)
    else:
        assert inputs["attention_mask"].sum() > 0


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("don’t — “stop”", "don't, stop"),
        ("Tom & Ann, AT&T", "tom and ann, at and t"),
        ("It cost £5.", "It cost 5 pounds."),
        ("£1, £45.60 and €3 million", "1 pound, 45.60 pounds and 3 million euros"),
        ("£1 million, ¥100", "1 million pounds, 100 yen"),
        ("[laughs] Hello! [sighs] ♪ la la ♪", "Hello! la la"),
        ("a@b.com 1+1=2 #5 20°", "a at b.com 1 plus 1 equals 2 number 5 20 degrees"),
        ("He said (twice) no", "He said, twice, no"),
        ("wait… what…", "wait, what."),
        ("1½ cups", "1 and a half cups"),
        ("naïve café", "naive cafe"),
        ("50% of $42.60", "50% of $42.60"),
    ],
)
def test_the_embedded_tokenizer_reads_signs(nano: BarkProcessor, text: str, same: str) -> None:
    assert read(nano, text) == read(nano, same)


@settings(deadline=None, max_examples=300)
@given(st.text(PLAIN, max_size=80))
def test_the_embedded_tokenizer_reads_plain_text_as_it_was_trained(nano: BarkProcessor, text: str) -> None:
    plain = BertTokenizer.from_pretrained(BARK_NANO)  # which puts its own normalizer in the place of the file's
    assert plain(text)["input_ids"] == nano.tokenizer(text)["input_ids"]


def test_the_embedded_tokenizer_is_that_of_the_recipe(nano: BarkProcessor, tmp_path: Path) -> None:
    wanted = text_normalizer(json.loads(RECIPE.read_text(encoding="utf-8")))
    assert nano.tokenizer.backend_tokenizer.normalizer.__getstate__() == wanted.__getstate__()
    nano.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again("Tom & Ann pay £5")["input_ids"] == nano.tokenizer("Tom & Ann pay £5")["input_ids"]
