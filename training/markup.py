"""HTML from values: every text is escaped here, once."""

import base64
from collections.abc import Iterable, Sequence
from html import escape

__all__ = [
    "HTML",
    "data_uri",
    "details",
    "figure",
    "html",
    "join",
    "link",
    "paragraph",
    "section",
    "table",
]


class HTML(str):
    """Markup; any other string is text."""

    __slots__ = ()


def html(content: str) -> HTML:
    """Text escaped, markup as it is."""
    return content if isinstance(content, HTML) else HTML(escape(content))


def join(parts: Iterable[str], between: str = "\n") -> HTML:
    """Parts one after the other."""
    return HTML(between.join(html(part) for part in parts))


def section(title: str, *content: str) -> HTML:
    """A part of the page under its heading."""
    return HTML(f"<section>\n<h2>{html(title)}</h2>\n{join(content)}\n</section>")


def details(summary: str, *content: str) -> HTML:
    """What is folded away until it is asked for."""
    return HTML(f"<details>\n<summary>{html(summary)}</summary>\n{join(content)}\n</details>")


def paragraph(*content: str) -> HTML:
    """One."""
    return HTML(f"<p>{join(content, ' ')}</p>")


def table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> HTML:
    """A table whose rows are headed by their first cell; it scrolls where it is too wide."""
    heading = "".join(f'<th scope="col">{html(cell)}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{html(row[0])}</th>'
        + "".join(f"<td>{html(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in rows
    )
    return HTML(
        f'<div class="wide" role="region" aria-label="{html(caption)}" tabindex="0">\n<table>\n'
        f"<caption>{html(caption)}</caption>\n<thead><tr>{heading}</tr></thead>\n"
        f"<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def figure(
    picture: bytes, media_type: str, alt: str, caption: str, size: tuple[int, int] | None = None
) -> HTML:
    """A picture, inlined, with its width and height in pixels where they are known."""
    sides = f' width="{size[0]}" height="{size[1]}"' if size else ""
    return HTML(
        f'<figure><img src="{data_uri(picture, media_type)}" alt="{html(alt)}"{sides}>'
        f"<figcaption>{html(caption)}</figcaption></figure>"
    )


def data_uri(content: bytes, media_type: str) -> HTML:
    """A file as an address that holds it."""
    return HTML(f"data:{media_type};base64,{base64.b64encode(content).decode()}")


def link(address: str, text: str) -> HTML:
    """A link that is followed only where someone does."""
    return HTML(f'<a href="{html(address)}">{html(text)}</a>')
