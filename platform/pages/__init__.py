"""Pages for people: HTML that needs no network."""
