"""The steps as HTML, on screen and on paper. Every text is escaped; pictures are made by `pictures`."""

from __future__ import annotations

import html

from fasp_core.figures.theme import LIGHT
from pages.presentation import slides
from pages.presentation.facts import Talk
from pages.presentation.slides import Slide


def on_screen(slide: Slide, step: int) -> str:
    """One step as markup; all texts are escaped."""
    says = "".join(f"<p>{html.escape(text)}</p>" for text in slide.says)
    if slide.command:
        says += f'<p class="fasp-command">It is made by <code>{html.escape(slide.command)}</code></p>'
    picture = f'<div class="fasp-picture">{slide.picture}</div>' if slide.picture else ""
    return (
        f'<section class="fasp-slide fasp-step-{step}"><h1>{html.escape(slide.message)}</h1>'
        f'<div class="fasp-body">{picture}<div class="fasp-says">{says}</div></div>'
        f'<p class="fasp-source">{html.escape(slide.source)}</p></section>'
    )


def opening(slide: Slide) -> str:
    """What stands above the instrument."""
    numbers = " ".join(f"<span>{html.escape(text)}</span>" for text in slide.says)
    return f'<section class="fasp-slide fasp-step-3"><h1>{html.escape(slide.message)}</h1><p>{numbers}</p></section>'


def handout(talk: Talk, link: str) -> str:
    """All five steps on two pages of paper, without the speaker's notes; `link` leads to this set."""
    parts = []
    for step, slide in enumerate(slides.on_paper(talk, LIGHT), 1):
        says = "".join(f"<p>{html.escape(text)}</p>" for text in slide.says)
        if slide.command:
            says += f"<p>It is made by <code>{html.escape(slide.command)}</code></p>"
        parts.append(
            f'<section class="fasp-part fasp-part-{step}"><h2>{step}. {html.escape(slide.message)}</h2>'
            f'<div class="fasp-body"><div class="fasp-picture">{slide.picture}</div><div class="fasp-says">{says}</div>'
            f'</div><p class="fasp-source">{html.escape(slide.source)}</p></section>'
        )
    s = talk.settings
    about = (
        f"{talk.model}, {s.axis_title}. {len(talk.now.heads.heads)} of {talk.size} heads cut: "
        f"{talk.now.heads.format() or 'none'}."
    )
    return (
        '<div class="fasp-handout"><h1>Heads that carry bias: what cutting them does</h1>'
        f"<p>{html.escape(about)}</p>{''.join(parts)}"
        f'<p class="fasp-source">FASP Studio. This set: {html.escape(link)}</p></div>'
    )
