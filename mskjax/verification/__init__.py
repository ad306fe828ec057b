"""Whether a finished run is what it says: read, scored and summed up again from its folder."""
