"""Two-stage deep-learning systems for musculoskeletal MRI: find the region, grade it."""

__version__ = "0.1.0"
