"""Self-contained HTML pages: templates filled, pictures inside."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import jinja2

from shard_builder.errors import counted
from shard_builder.files import write_atomically
from shard_builder.images import Image


def write_html(out: Path, template: Path, **values: Any) -> None:
    """Fill a template, everything escaped, and write the page; a missing name is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["counted"] = counted
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, environment.get_template(template.name).render(**values).encode())


def png_address(png: bytes) -> str:
    """Return a PNG as a data address."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def jpeg_address(image: Image) -> str:
    """Return an RGB picture as a data address."""
    _, data = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88]
    )
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
