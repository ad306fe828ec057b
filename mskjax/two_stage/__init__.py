"""What systems share: find regions, cut, grade, score, draw."""
