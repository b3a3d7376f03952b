"""Rows of an evaluation on disk, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scoremri_core.paths import check_absent, replacing
from scoremri_core.priors.storage import sha256
from scoremri_core.studies.evaluate.comparison import MethodScore
from scoremri_core.studies.evaluate.survey import ScanScore
from scoremri_core.text import counted

logger = logging.getLogger(__name__)

SUFFIX = ".rows"

Case = tuple[str, str, float]  # scan, mask, acceleration


class StoredRows:
    """Rows in a file of JSON lines next to the table, removed when the evaluation is complete.

    The first line identifies settings and files.

    Parameters
    ----------
    table : Path
        The side file is TABLE.json.rows.
    settings : mapping
        All settings that the rows depend on.
    files : sequence of Path
        The scans, identified by their SHA-256.
    overwrite : bool, optional
        Replace the rows of another evaluation.

    Raises
    ------
    InputError
        The rows of another evaluation.
    """

    def __init__(
        self,
        table: Path,
        settings: Mapping[str, Any],
        files: Sequence[Path],
        overwrite: bool = False,
    ) -> None:
        self.path = side_file(table)
        self.rows: dict[Case, ScanScore] = {}
        text = json.dumps([settings, [sha256(path) for path in files]], sort_keys=True, default=str)
        self._key = hashlib.sha256(text.encode()).hexdigest()
        lines = self.path.read_text().splitlines() if self.path.is_file() else []
        if not lines:
            return
        if lines[0] != self._key:
            check_absent(self.path, overwrite, "it has other settings or scans; --overwrite")
            return
        for line in lines[1:]:
            row = json.loads(line)
            row["scores"] = [MethodScore(**score) for score in row["scores"]]
            self._keep(ScanScore(**row))
        logger.info("%s: resuming after %s", table, counted(len(self.rows), "row"))

    def add(self, row: ScanScore) -> None:
        """Append a row; failures are repeated in the next run."""
        if row.error or (row.scan, row.mask, row.acceleration) in self.rows:
            return
        self._keep(row)
        lines = [json.dumps(asdict(each)) for each in self.rows.values()]
        with replacing(self.path) as partial:
            partial.write_text("\n".join([self._key, *lines, ""]))

    def remove(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)

    def _keep(self, row: ScanScore) -> None:
        self.rows[row.scan, row.mask, row.acceleration] = row


def side_file(table: Path) -> Path:
    """Return the file of the rows of a table."""
    return table.with_name(table.name + SUFFIX)
