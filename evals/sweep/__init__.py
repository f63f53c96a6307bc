"""What a sweep concludes: its trials as a table, scaling fits, frontiers, the smallest fraction, and costs."""
