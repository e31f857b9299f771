"""How the page looks: one calm theme, light and dark, of fonts that every system has."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import gradio as gr

_MOSS = gr.themes.Color(
    c50="#f1f6f2",
    c100="#dfeae2",
    c200="#c0d6c7",
    c300="#98bba4",
    c400="#6b9b7d",
    c500="#4a7f5f",
    c600="#38664b",
    c700="#2d523d",
    c800="#254232",
    c900="#1e3529",
    c950="#102019",
)
_STONE = gr.themes.Color(
    c50="#faf8f5",
    c100="#f3f0ea",
    c200="#e6e1d8",
    c300="#d2cbbf",
    c400="#a49c8f",
    c500="#797167",
    c600="#5a534b",
    c700="#443f39",
    c800="#2b2824",
    c900="#1f1d1a",
    c950="#171513",
)


def theme() -> Any:
    """Moss on stone."""
    own = gr.themes.Base(
        primary_hue=_MOSS,
        secondary_hue=_MOSS,
        neutral_hue=_STONE,
        spacing_size="md",
        radius_size="lg",
        text_size="md",
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "DejaVu Sans", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"],
    )
    return own.set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_800",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_950",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_800",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_shadow="none",
        block_padding="0",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_text_color="*neutral_500",
        block_label_text_color_dark="*neutral_400",
        block_label_text_weight="500",
        block_title_text_weight="500",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="*neutral_300",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        input_background_fill="white",
        input_background_fill_dark="*neutral_800",
        input_border_color="*neutral_300",
        input_border_color_dark="*neutral_700",
        input_border_width="1px",
        input_shadow="none",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        input_placeholder_color="*neutral_400",
        input_placeholder_color_dark="*neutral_500",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_500",
        button_primary_background_fill_hover_dark="*primary_400",
        button_primary_text_color="white",
        button_secondary_background_fill="transparent",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="transparent",
        button_secondary_background_fill_hover_dark="*neutral_800",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_secondary_text_color="*neutral_700",
        button_secondary_text_color_dark="*neutral_200",
        button_border_width="1px",
        form_gap_width="14px",
        checkbox_background_color_selected="*primary_600",
        checkbox_border_color_selected="*primary_600",
        slider_color="*primary_600",
        slider_color_dark="*primary_400",
        color_accent_soft="*primary_100",
        color_accent_soft_dark="*primary_900",
    )


def css() -> str:
    """The page's own rules."""
    return files(__package__).joinpath("page.css").read_text(encoding="utf-8")


def head() -> str:
    """The page's own script: the line that follows the speech, words that light up, A against B."""
    return f"<script>{files(__package__).joinpath('page.js').read_text(encoding='utf-8')}</script>"
