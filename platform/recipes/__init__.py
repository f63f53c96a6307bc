"""Named, complete configurations (see chexray.platform.config)."""
