from __future__ import annotations

from pathlib import Path

from services.worker import catalog_file
from services.worker.catalog_file import CatalogEntry

ENTRY = """\
id: {id}
created: 2026-01-02
owned_by: {owner}
checkpoint: me/mine
licence: MIT
descriptions: {{en: Mine.}}
"""


def test_an_entry_of_the_overlay_takes_precedence(tmp_path: Path) -> None:
    directory, overlay = tmp_path / "catalog", tmp_path / "overlay"
    for root, ids in ((directory, ("both", "ours")), (overlay, ("both",))):
        root.mkdir()
        for model_id in ids:
            (root / f"{model_id}.yaml").write_text(ENTRY.format(id=model_id, owner=root.name))
    owners = {
        model_id: catalog_file.load(CatalogEntry, model_id, directory=directory, overlay=overlay).owned_by
        for model_id in ("both", "ours")
    }
    assert owners == {"both": "overlay", "ours": "catalog"}
