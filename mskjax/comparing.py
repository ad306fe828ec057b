"""Runs that a user names, compared: which folders these are, what they are called, their page."""

from collections.abc import Sequence
from pathlib import Path

from mskjax import systems
from mskjax.errors import UserError
from mskjax.progress import say
from mskjax.reporting import comparable, comparison, comparison_page
from mskjax.workdir import config_of

FOLDER = "comparison"  # of a population, for what compares its members

NOTE = (
    "note: these figures are of test patients; a run that is chosen by them looks better than it"
    " is.  Choose by validation patients: python -m mskjax.sweep."
)


def members(folder: Path) -> list[Path]:
    """The folders of the members of a population; none of a run that is no population."""
    return sorted(path for path in folder.glob("member_*") if path.is_dir())


def named(folders: Sequence[Path]) -> dict[str, Path]:
    """Each folder under its name, with as many of those above it as it takes to tell them apart.

    >>> list(named([Path("runs/wide"), Path("runs/deep")]))
    ['wide', 'deep']
    >>> list(named([Path("wide/run"), Path("deep/run")]))
    ['wide/run', 'deep/run']

    Raises:
      UserError: one is given twice.
    """
    paths = [folder.resolve() for folder in folders]
    if twice := [str(f) for f, p in zip(folders, paths, strict=True) if paths.count(p) > 1]:
        raise UserError(f"--runs: {twice[0]} is given twice; give each run once.")
    names = [folder.name for folder in paths]
    for depth in range(2, max((len(p.parts) for p in paths), default=0) + 1):
        if len({*names}) == len(names):
            break
        names = ["/".join(path.parts[-depth:]) for path in paths]
    return dict(zip(names, folders, strict=True))


def write(folders: Sequence[Path], output: Path, reference: str | None = None) -> Path:
    """Compares finished runs, says what leads and leaves comparison.json and comparison.html.

    Args:
      folders: of two or more runs.
      output: folder that gets the files.
      reference: name or folder of the run that the others are compared with; None = the first.

    Returns:
      The page.

    Raises:
      UserError: a run is not finished, or they may not be compared (`reporting.comparable`).
    """
    if output.exists() and not output.is_dir():
        raise UserError(f"--output: {output} is a file; give a folder.")
    known = named(folders)
    first = next(iter(known)) if reference is None else _called(reference, known)
    names = [first, *(name for name in known if name != first)]
    runs = []
    for name in names:
        try:
            config = config_of(known[name])
        except UserError as error:  # names the field and not the run
            raise UserError(f"{name}: {error}") from None
        system = systems.load(config.system).build(config)
        runs.append(comparable.read(name, known[name], system))
    content = comparison.compare(runs)
    for line in comparison_page.leading(content):
        say(line)
    say(NOTE)
    page = comparison.write(content, output)
    say(f"comparison: {page}")
    return page


def _called(reference: str, known: dict[str, Path]) -> str:
    for name, folder in known.items():
        if reference == name or Path(reference).resolve() == folder.resolve():
            return name
    raise UserError(f"--reference is {reference}; it must be one of {', '.join(known)}.")
