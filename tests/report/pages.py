"""Pages as their tests read them."""

from __future__ import annotations

from html.parser import HTMLParser

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked=2'>\"'&$x$.wav"


class Parsed(HTMLParser):
    """Elements of a page, the text of its tables' cells, and whatever an attribute would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.handlers: list[str] = []
        self.loads: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name.startswith("on"):
                self.handlers.append(name)
            if name in ("src", "href", "xlink:href", "action", "data", "srcset"):
                self.loads.append(value or "")
