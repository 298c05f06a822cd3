"""WATCH correlates findings into alerts; a Faust application."""
