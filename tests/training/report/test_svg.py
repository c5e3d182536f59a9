"""A figure in a page: ids of its own, the page's ink, and a title."""

import re
from xml.etree import ElementTree

import matplotlib
import pytest
from matplotlib import pyplot

from training.report.svg import INK, STYLE, inline

SVG = "{http://www.w3.org/2000/svg}"


def _drawn(name: str, title: str = "A line") -> str:
    with matplotlib.rc_context(STYLE):
        figure, axis = pyplot.subplots(figsize=(2, 1))
        axis.plot((0, 1), (0, 1), "o-", color="#d55e00")
        axis.set(xlabel="across")
        return inline(figure, name, title)


@pytest.fixture(scope="module")
def drawn() -> str:
    return _drawn("line")


def test_its_title_is_its_label(drawn: str) -> None:
    root = ElementTree.fromstring(drawn)

    assert root[0].tag == f"{SVG}title"
    assert root[0].text == "A line"
    assert root.attrib["aria-labelledby"] == root[0].attrib["id"] == "line-title"
    assert root.attrib["role"] == "img"


def test_text_in_a_title_is_escaped() -> None:
    assert '<title id="bad-title">&lt;b&gt; &amp; co</title>' in _drawn("bad", "<b> & co")


def test_ids_and_references_are_its_own(drawn: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', drawn)
    references = re.findall(r'(?:href="|url\()#([^")]+)', drawn)

    assert len(ids) == len(set(ids))
    assert all(value.startswith("line-") for value in ids)
    assert references
    assert set(references) <= set(ids)


def test_it_takes_the_ink_of_the_page_and_scales_with_it(drawn: str) -> None:
    root = ElementTree.fromstring(drawn)

    assert INK not in drawn
    assert "currentColor" in drawn
    assert "#d55e00" in drawn
    assert root.attrib["viewBox"].split()[2:] == ["144", "72"]  # 2 x 1 inches
    assert "width" not in root.attrib
    assert ">across</text>" in drawn


def test_it_brings_no_style_for_the_page_and_no_date(drawn: str) -> None:
    for tag in ("style", "metadata"):
        assert not list(ElementTree.fromstring(drawn).iter(f"{SVG}{tag}"))
    assert drawn == _drawn("line")
