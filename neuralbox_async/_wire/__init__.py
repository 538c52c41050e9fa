"""The wire format: endpoints, requests, responses, events, errors. No I/O; the only package that knows cattrs."""
