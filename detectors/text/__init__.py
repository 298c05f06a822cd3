"""Text before detection: normalised, decoded, cut to a bounded window, with offsets back to the original."""
