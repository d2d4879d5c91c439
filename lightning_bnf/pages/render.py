"""Templates of pages: everything that comes from data is escaped, and nothing is fetched."""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lightning_bnf.pages.tokens import script_json
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.refusal import Refusal

GENERATOR = "lightning_bnf"
"""What a page of ours says of itself in its `generator`, so that no other file is written over."""


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("lightning_bnf.pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def _script_hash() -> str:
    """The one script that a browser runs in our pages, by its hash: none that data would bring in."""
    script = _environment().get_template("tokens.js").render()
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def render(template: str, title: str, tokens: Any = None, **values: Any) -> str:
    """A whole page. `tokens`: the token view's data, as `tokens.token_data` gives them; None leaves the view out."""
    return (
        _environment()
        .get_template(template)
        .render(
            title=title,
            token_json=None if tokens is None else Markup(script_json(tokens)),
            script_hash=_script_hash(),
            generator=GENERATOR,
            **values,
        )
    )


def inline(svg: str) -> Markup:
    """A figure of `charts`, whose texts are escaped already."""
    return Markup(svg)


def write_page(path: Path, html: str, accepted: str) -> None:
    """Write a page; it appears whole or not at all. Raises `Refusal` (`accepted`, got the path) where something else
    than a page of ours is there."""
    if path.exists() and not _ours(path):
        raise Refusal(f"{accepted}, got {path}, which something else has written")
    write_text(path, html)


def _ours(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return f'<meta name="generator" content="{GENERATOR}">'.encode() in file.read(2000)
