"""A fold's trainings from all seeds as one: they read together the patients that the fold held out.

The networks of other folds have seen these patients and take no part.  What is read lies beside the
seeds, in ``ensemble/fold_<k>/`` of the whole study, in the files that a fold of one seed has.
"""

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path

from mskjax import ensemble, held_out, roles
from mskjax.fold_training import Fold
from mskjax.replicas import Replica
from mskjax.setting import Setting
from mskjax.workdir import ENSEMBLE


@dataclasses.dataclass(frozen=True, eq=False)
class FoldEnsemble:
    """A fold that was trained from several seeds.

    Attributes:
      study: folder of the study that consists of the seeds.
      setting: of that study, in its folder of the ensemble.
      members: the fold as each seed trains it.
    """

    study: Path
    setting: Setting
    members: tuple[Fold, ...]

    @property
    def number(self) -> int:
        """Of the fold."""
        return self.members[0].number

    @property
    def folder(self) -> Path:
        """``ensemble/fold_<k>``."""
        return self.setting.folder(self.number)

    @property
    def is_read(self) -> bool:
        """Whether all held-out patients are read."""
        return (self.folder / held_out.CASES["test"]).exists()

    def discard(self) -> None:
        """Removes what was read: a member is trained anew."""
        if roles.is_first():
            (self.setting.workdir / held_out.CASES["test"]).unlink(missing_ok=True)
            if self.folder.exists():
                shutil.rmtree(self.folder)

    def evaluate(self) -> None:
        """Reads the held-out studies and writes rows, pictures and label maps.

        A process that ends before is not asked to read again what is read (`reading.write_rows`).
        """
        folders = [member.folder for member in self.members]
        together = ensemble.of(folders, self.setting.config, self.setting.mesh)
        held_out.write(together, self.setting, self.number, seed="")


def of(whole: Replica, setting: Setting, groups: Sequence[Sequence[Fold]]) -> list[FoldEnsemble]:
    """The folds of every study that consists of seeds.

    Args:
      whole: a study.
      setting: of the study.
      groups: its folds, of `parts.groups`.
    """
    found = []
    for study in whole.every():
        if not study.seeds:
            continue
        name = f"{study.name} {ENSEMBLE}".strip()
        own = setting.replica(study.config, study.workdir / ENSEMBLE, name)
        seeds = {single.workdir for single in study.single()}
        for group in groups:
            by_number: dict[int, list[Fold]] = {}
            for fold in (fold for fold in group if fold.setting.workdir in seeds):
                by_number.setdefault(fold.number, []).append(fold)
            found += [FoldEnsemble(study.workdir, own, tuple(f)) for f in by_number.values()]
    return found
