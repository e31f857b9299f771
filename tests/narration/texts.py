"""Texts of every released voice's language, and a tokenizer to count with, without a model."""

from __future__ import annotations

import regex

LONG_WORD = "Donaudampfschiff" * 312 + "fahrtsge"  # 5 000 letters

TEXTS = {
    "de": "Das ist z. B. am 3. Mai so gewesen, d. h. vor langer Zeit. „Wirklich?“, fragte Dr. Müller. Er zahlte 1.234,50 € dafür.",
    "en": 'Dr. Smith paid $3.50 at 5 p.m. on Jan. 4th. "Really?" she said. See https://example.org/a.b?c=1,2#d. [laughs] It\'s the '
    "U.S. Army's No. 5… Wait — what? ♪ La la la, la. La! ♪ Mr. and Mrs. J. R. R. Tolkien (who wrote) agreed.",
    "es": "El Sr. López llegó a las 10:30. ¿Qué hora es? ¡Ya es tarde! «Vámonos», dijo ella; y se fueron.",
    "fr": "M. Dupont est arrivé. « Oui ! » dit-il. C'est-à-dire : l'après-midi, vers 14 h 30. Est-ce vrai ? Voilà…",
    "hi": "नमस्ते। आप कैसे हैं? मैं ठीक हूँ, धन्यवाद। उसने कहा, “आज मौसम अच्छा है।” क्षत्रिय और ज्ञान।",
    "it": "Il dott. Rossi è partito. «Davvero?», chiese lei. Costa 12,50 € al kg. Perché no? L'anno dopo tornò.",
    "ja": "こんにちは。「お元気ですか。」と彼は言った。東京タワーの高さは333メートルです！本当に？はい、そうです。",
    "ko": "안녕하세요. 오늘 날씨가 좋네요! 정말요? 네, 3시에 만나요. “좋아요.”라고 그가 말했다.",
    "pl": "To jest np. pierwsze zdanie. Dr Kowalski przyszedł o godz. 15.30. „Naprawdę?” – zapytała. Żółć, gęś, jaźń!",
    "pt": "O Sr. Silva não veio. A Dra. Ana disse: «Amanhã, às 9h». Será? É claro que sim! Custou R$ 20,00.",
    "ru": "Он жил в г. Москве, на ул. Арбат. «Правда?» — спросила она. И т. д., и т. п. Это стоит 1 500 руб.",
    "tr": "Merhaba. Dr. Ali Bey geldi. “Nasılsınız?” diye sordu. İstanbul'da saat 14.30'du. Işık, ığdır, çok güzel!",
    "zh": "你好。你叫什么名字？“我叫王明。”他说。今天是2024年5月1日，天气很好！我们去公园吧……好的。",
}

ODD = [
    LONG_WORD,
    "https://example.org/" + "path/" * 200 + "?q=" + "x" * 300,
    "word " * 2000,
    "这是一个没有标点的句子" * 100,
    "カタカナ" * 100 + "ひらがな" * 100,
    "e\u0301" * 400,  # combining accents
    "नमस्ते" * 200,
    "👨‍👩‍👧‍👦 family 👍🏽 " * 100,
    "word \u0301, and。\u0301" * 100,  # accents on spaces and stops
    "a" + "\u0301" * 3000,  # one character of 3 001 code points
    "Wait… " * 100,
    "!" * 3000 + " hello",
    "♪ " + "la la la " * 200 + "♪",
    "[laughs] " * 100,
    "1234567890" * 50,
    "... \n ... \u00a0\u2003 A. B.\x85J. C.\u2028D.",
]


def count_tokens(text: str) -> int:
    """As WordPiece without a word list: a letter, digit or sign is a token, but a word of over 100 letters is one unknown."""
    return sum(
        1 if len(word) > 100 else len(word) for word in regex.findall(r"[\w\p{M}]+|[^\w\p{M}\s]", text, regex.V1)
    )
