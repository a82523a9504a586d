"""Check the links within the built pages: ``python doc/check_links.py doc/_build/html``.

Every address that is no other site's must be a file of the build, and what follows # in it must be
the name of a place in that file.
"""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Page(HTMLParser):
    """Addresses that a page links to or shows, and the places that it has."""

    def __init__(self, text):
        super().__init__()
        self.links, self.places = set(), set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.places.update(given[key] for key in ("id", "name") if given.get(key))
        key = {"a": "href", "link": "href", "img": "src", "script": "src"}.get(tag)
        if given.get(key):
            self.links.add(given[key])


def faults(folder):
    """Sentences, one for each link to nowhere."""
    # What the theme keeps among its own files are templates.
    files = sorted(path for path in folder.rglob("*.html") if "_static" not in path.parts)
    pages = {path.resolve(): Page(path.read_text("utf-8")) for path in files}
    found = []
    for path, page in pages.items():
        for link in sorted(page.links):
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            if not target.exists():
                found.append(f"{path.relative_to(folder.resolve())}: no file {link}")
            elif address.fragment and target in pages:
                places = pages[target].places
                if unquote(address.fragment) not in places:
                    found.append(f"{path.relative_to(folder.resolve())}: no place {link}")
    return len(pages), found


def main():
    n_pages, found = faults(Path(sys.argv[1]))
    print(*found, f"{n_pages} pages, {len(found)} broken links", sep="\n")
    return bool(found) or not n_pages


if __name__ == "__main__":
    sys.exit(main())
