"""The key of a sample: a name that every reader of the shards takes."""

from __future__ import annotations

import re

KEY_PATTERN = re.compile(r"[A-Za-z0-9_-]{1,80}")
