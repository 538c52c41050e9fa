"""Many calls: requests from an iterable, bounded concurrency, pacing, a budget and a journal."""
