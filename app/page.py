"""The page: what it is about, the input on one side, a tab for each thing to do with it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gradio as gr

from app import api
from app.input_panel import InputPanel
from app.service import Service
from app.tabs.blind import BlindTab
from app.tabs.compare import CompareTab
from app.tabs.decode import DecodeTab
from app.tabs.inspect import InspectTab
from app.tabs.sweep import SweepTab
from app.turns import Sessions
from app.widgets import STATIC
from app.words import tip

HEAD = "".join(
    f"<{tag}>{(STATIC / name).read_text(encoding='utf-8')}</{tag}>"
    for tag, name in (
        ("style", "style.css"),
        ("script", "tips.js"),
        ("script", "radios.js"),
        ("script", "current.js"),
    )
)
FONTS = [
    "ui-sans-serif",
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "Noto Sans",
    "sans-serif",
]
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]
# For each tab its title, and what builds it on the input panel and the name of the tab that is
# open.
TABS: dict[str, tuple[str, Callable[[InputPanel, gr.State], object]]] = {
    "compare": ("Compare", CompareTab),
    "sweep": ("Sweep", lambda panel, _: SweepTab(panel)),
    "inspect": ("Inspect", lambda panel, _: InspectTab(panel)),
    "decode": ("Decode", lambda panel, _: DecodeTab(panel)),
    "blind": ("Blind test", lambda panel, _: BlindTab(panel)),
}


def theme() -> gr.themes.Base:
    """Returns the looks of the page: paper and ink, one accent, fonts that are there already."""
    colours: gr.themes.Base = gr.themes.Base(
        primary_hue="teal", neutral_hue="stone", radius_size="md", font=FONTS, font_mono=MONO
    ).set(
        body_background_fill="#faf9f7",
        body_background_fill_dark="#141618",
        background_fill_primary="#ffffff",
        background_fill_primary_dark="#1c1f22",
        background_fill_secondary="#f4f2ee",
        background_fill_secondary_dark="#22262a",
        block_background_fill="#ffffff",
        block_background_fill_dark="#1c1f22",
        block_border_color="#e4e0d8",
        block_border_color_dark="#33383d",
        border_color_primary="#e4e0d8",
        border_color_primary_dark="#33383d",
        input_background_fill="#ffffff",
        input_background_fill_dark="#22262a",
        block_shadow="none",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        button_primary_background_fill="#0f6b63",
        button_primary_background_fill_hover="#0b544e",
        button_primary_background_fill_dark="#2cb5a6",
        button_primary_background_fill_hover_dark="#4cc9bb",
        button_primary_text_color="#ffffff",
        button_primary_text_color_dark="#0b1f1d",
        checkbox_label_background_fill_selected="#e3f1ef",
        checkbox_label_background_fill_selected_dark="#1d3b38",
        checkbox_background_color_selected="#0f6b63",
        checkbox_background_color_selected_dark="#2cb5a6",
        checkbox_border_color_selected="#0f6b63",
        checkbox_border_color_selected_dark="#2cb5a6",
        checkbox_label_background_fill="#f4f2ee",
        checkbox_label_background_fill_dark="#22262a",
        checkbox_label_background_fill_hover="#ebe8e1",
        checkbox_label_background_fill_hover_dark="#2b3035",
        color_accent="#0f6b63",
        checkbox_border_color="#84888c",
        checkbox_border_color_dark="#7d848a",
        body_text_color_subdued="#6b6f73",
        block_info_text_color="#6b6f73",
        slider_color="#0f6b63",
        slider_color_dark="#2cb5a6",
    )
    return colours


def build(service: Service, sessions: Sessions | None = None) -> gr.Blocks:
    """Builds the whole app, which is launched with `theme()` and `HEAD`.

    Args:
        service: What does the work.
        sessions: Where jobs are noted, so that they can be ended.
    """
    age = round(service.settings.keep_s)
    title = "codec: what a codebook size means"
    page = gr.Blocks(title=title, analytics_enabled=False, delete_cache=(60, age))
    sessions = sessions or Sessions()
    with page:
        page.unload(sessions.leave)
        api.build(service)  # first, so that its names are free
        gr.HTML(
            '<header class="hero"><h1>Hear and see what a codebook size means</h1>'
            "<p>A codec writes sound or a picture as a list of numbers, each that of a building "
            f"block in a shared {tip('codebook')}. More blocks describe more finely, "
            "and cost more bytes. Here you judge for yourself what they are worth.</p></header>"
        )
        with gr.Row(elem_id="main"):
            with gr.Column(scale=0, min_width=300, elem_id="source") as side:
                panel = InputPanel(service, sessions)
            with gr.Column(scale=1, min_width=320, elem_id="work"):
                active = gr.State("compare")
                with gr.Tabs(selected="compare", elem_id="tabs"):
                    for tab, (title, build_tab) in TABS.items():
                        # Drawn from the start, so that an update never meets a tab half drawn.
                        with gr.Tab(
                            title, id=tab, elem_id=f"tab-{tab}", render_children=True
                        ) as opened:
                            build_tab(panel, active)
                        opened.select(
                            partial(_opened, tab),
                            None,
                            [active, side],
                            queue=False,
                            api_visibility="private",
                            show_progress="hidden",
                        )
    return page


def _opened(tab: str) -> tuple[str, Any]:
    """Returns what opening a tab changes: the open tab, and whether the input is shown.

    Decode does not need the input.
    """
    return tab, gr.update(visible=tab != "decode")
