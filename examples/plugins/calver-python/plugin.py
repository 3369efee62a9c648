"""Keeps calendar versions (2026.04, 2026.04.1), newest first: examples/plugins/calver in Python."""

import json
import re

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import types
from wit_world.exports.meta import Info
from wit_world.exports.tag_filter import Choice, Dropped, Selection

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {"since": {"type": "string", "description": "The oldest version to keep: YEAR.MONTH[.PATCH]."}},
}
VERSION = re.compile(r"([0-9]{4})\.([0-9]+)(?:\.([0-9]+))?")


def version(tag: str):
    """2026.04.1 as (2026, 4, 1). None means that it is no calendar version."""
    found = VERSION.fullmatch(tag)
    if not found:
        return None
    year, month, patch = (int(part or 0) for part in found.groups())
    return (year, month, patch) if 1 <= month <= 12 and patch < 2**32 else None


class Meta(exports.Meta):
    def describe(self) -> Info:
        summary = "Keeps calendar versions, newest first"
        return Info("calver", "0.1.0", summary, [], json.dumps(SCHEMA), [], [])


class TagFilter(exports.TagFilter):
    def select(self, given: Choice, config: str) -> Selection:
        text = json.loads(config).get("since")
        since = version(text) if text is not None else None
        if text is not None and since is None:
            raise Err(types.Error_Invalid("since: write YEAR.MONTH, as in 2026.02"))
        versions = [version(tag) for tag in given.tags]
        kept, other, older = [], [], []
        for at, found in enumerate(versions):
            if found is None:
                other.append(at)
            elif since is not None and found < since:
                older.append(at)
            else:
                kept.append(at)
        # Sorting keeps the order of what is equal, also when it is reversed.
        kept.sort(key=lambda at: versions[at], reverse=True)
        groups = [("no calendar version", other), ("older than `since`", older)]
        return Selection(kept, [Dropped(reason, tags, False) for reason, tags in groups if tags])
