"""Messages about a study without what identifies it.

Readers name files, since a user must find them, and quote headers, since a user must mend them.
What they may name or quote of a study is known: its files and folders, and the values of the
identifying attributes (`identifying`).  Each is replaced by neutral words wherever it occurs, the
longest first.
"""

import functools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydicom.datadict import dictionary_VR, tag_for_keyword

from mskjax.inputs.identifying import values_of_file
from mskjax.inputs.walk import printable

# Shorter texts, in bytes of UTF-8, are words of every sentence: up to two they are replaced between
# quotes alone, up to four as whole words.
_SHORTEST, _SHORT = 3, 5
_SURE = 12  # characters by which a text that was cut short is known
# Words that folders and series of many patients are called; they identify nobody.
_GENERIC = frozenset(
    " ".join(
        (
            "t1 t2 pd t1w t2w stir tirm flair dixon tse fse spin echo se gr ir sag sagittal cor",
            "coronal ax axial tra transversal image images img dicom dcm mr mri scan scans series",
            "study studies slice slices file files folder data input inputs raw nii nifti mha mhd",
            "png none yes no original primary derived secondary m f w o other true false unknown",
            "anonymous hfs ffs",
        )
    ).split()
)
_UID = re.compile(r"[0-9.]+")
_PARTS = re.compile(r"[\\^=]+|\s{2,}")


class Scrubber:
    """Replaces what identifies a study.

    Args:
      files: of the study, those that are not read included.
      roots: the paths that the user gave.
    """

    def __init__(self, files: Sequence[Path], roots: Sequence[Path]):
        self._files, self._roots = tuple(files), tuple(roots)

    def scrub(self, text: str, keep_ids: bool = False) -> str:
        """The text with neutral words; control characters are escaped in any case.

        Args:
          text: a message about the study; lines stay lines.
          keep_ids: replaces nothing.
        """
        if keep_ids:
            folders = {folder for file in self._files for folder in self._folders(file)}
            for path in sorted(map(str, (*self._files, *folders)), key=len, reverse=True):
                text = text.replace(path, printable(path))
        else:
            text = self._replaced(text)
        return "\n".join(map(printable, text.split("\n")))

    def _replaced(self, text: str) -> str:
        pattern, known = self._known
        done, start = [], 0
        while found := pattern.search(text, start):
            end, alias = found.end(), "[removed]"
            for whole, name in known.get(found[0].lower(), ()):
                reached = found.end() + _shared(whole[len(found[0]) :], text[found.end() :])
                if alias == "[removed]" or reached > end:
                    end, alias = reached, name
            done += [text[start : found.start()], alias]
            start = end
        return "".join([*done, text[start:]])

    @functools.cached_property
    def _known(self) -> tuple[re.Pattern[str], dict[str, list[tuple[str, str]]]]:
        """A pattern of all texts, and what it finds, in lower case, to whole texts and aliases.

        A long text is found by its beginning too, since messages cut what they quote.
        """
        known: dict[str, list[tuple[str, str]]] = {}
        patterns: dict[str, str] = {}
        for text, alias, is_path in [*self._path_texts(), *self._header_texts()]:
            for form in dict.fromkeys((text, repr(text)[1:-1], printable(text))):
                if form in patterns or not form.strip():
                    continue
                known.setdefault(form.lower(), []).append((form, alias))
                patterns[form] = _pattern(form, is_path)
                if len(form) > _SURE and not is_path and not _UID.fullmatch(form):
                    cut = form[:_SURE]
                    known.setdefault(cut.lower(), []).append((form, alias))
                    patterns.setdefault(cut, _pattern(cut, is_path))
        ordered = sorted(patterns, key=len, reverse=True)
        joined = "|".join(patterns[form] for form in ordered) or r"(?!)"
        return re.compile(joined, re.IGNORECASE), known

    def _path_texts(self) -> Iterator[tuple[str, str, bool]]:
        """Text, alias, and whether the text is a whole path."""
        names: list[tuple[str, str]] = []
        files = sorted(self._files)
        for number, path in enumerate(files, start=1):
            alias = f"file {number} of {len(files)}"
            yield from ((form, alias, True) for form in _forms(path))
            names += [(path.name, alias), (path.name.split(".")[0], alias)]
            for folder in self._folders(path):
                yield from ((form, "its folder", True) for form in _forms(folder))
                if folder != path.parent:
                    yield str(path.relative_to(folder)), alias, True
                names.append((folder.name or folder.resolve().name, "its folder"))
        yield from ((name, alias, False) for name, alias in names if _is_telling(name))

    def _folders(self, path: Path) -> Iterator[Path]:
        """The folders from the one that holds a file up to the one that was given."""
        for folder in path.parents:
            if folder in self._roots or any(folder in root.parents for root in self._roots):
                yield folder
                return
            yield folder

    def _header_texts(self) -> Iterator[tuple[str, str, bool]]:
        values = dict.fromkeys(v for file in self._files for v in values_of_file(file))
        for keyword, value in values:
            flat = " ".join(value.split())
            apart = re.split(r"[\\^=\s,]+", value) if _is_name(keyword) else _PARTS.split(value)
            for text in dict.fromkeys((value, flat, *value.split("="), *apart)):
                if _is_telling(text.strip()):
                    yield text.strip(), f"[{keyword}]", False


def _shared(a: str, b: str) -> int:
    """How many characters two texts begin with in common, upper and lower case alike."""
    pairs = zip(a.lower(), b.lower(), strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))


def _forms(path: Path) -> Iterable[str]:
    """How a path may be written, without forms so short that they are no path."""
    forms = (str(path), os.path.abspath(path), os.path.realpath(path))
    return [form for form in dict.fromkeys(forms) if len(form) >= _SHORTEST and form.strip("./\\")]


def _is_name(keyword: str) -> bool:
    """Whether an attribute holds names of people, of which each word tells."""
    tag = tag_for_keyword(keyword)
    return tag is not None and dictionary_VR(tag) == "PN"


def _is_telling(text: str) -> bool:
    words = re.findall(r"[^\W_]+", text.lower())
    return bool(words) and not _GENERIC.issuperset(words)


def _pattern(form: str, is_path: bool) -> str:
    escaped = re.escape(form)
    size = len(form.encode(errors="replace"))  # a name of two characters tells much in some scripts
    if is_path or size >= _SHORT:
        return escaped
    if size >= _SHORTEST:
        return rf"(?<![^\W_]){escaped}(?![^\W_])"
    return rf"(?<=['\"]){escaped}(?=['\"])"
