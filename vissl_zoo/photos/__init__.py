"""Photos by certainty: scored, selected, filtered, rid of duplicates, and shown on a page."""
