"""The leaderboard: from scores in folders to tables, comparisons and pages."""
