"""One logical call: attempts, deadline, polling, streams."""
