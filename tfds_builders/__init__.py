"""Builders of cohorts, a package each; a user's own lie in folders of theirs."""

from mskjax import extensions

__path__ = [*__path__, *extensions.folders("tfds_builders")]
