"""docs/recipe.md from the models: ``python -m py2rely_core.parameters.recipe_docs > docs/recipe.md``."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel

from py2rely_core.parameters.recipe import LEVEL_BLOCKS, Recipe, model_of

HEAD = """\
# Every field of the parameter file

Made from the models in `py2rely_core/parameters/recipe.py`. What a block is for: [parameters](parameters.md).
"""


def as_markdown() -> str:
    """The page."""
    parts = [HEAD]
    for name, field in Recipe.model_fields.items():
        model = model_of(field)
        if model is not None:
            optional = ", or `null`" if field.default is None else ""
            parts.append(f"## {name}{optional}\n\n{_table(model)}\n")
    names = ", ".join(f"`{name}`" for name in LEVEL_BLOCKS)
    parts.append(f'## levels\n\nOther values at one binning, `{{"2": {{"refine3D": {{...}}}}}}`, of {names}.')
    return "\n".join(parts)


def _table(model: type[BaseModel]) -> str:
    written = model().model_dump(by_alias=True)
    rows = ["| field | default | |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        key = field.alias or name
        rows.append(f"| `{key}` | {_shown(written[key])} | {field.description} |")
    return "\n".join(rows)


def _shown(value: Any) -> str:
    return "" if value in ("", None) else f"`{value if isinstance(value, str) else json.dumps(value)}`"


if __name__ == "__main__":
    print(as_markdown())
