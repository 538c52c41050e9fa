"""The nodes of the Ray clusters of tests, small ones, and what the local server bills."""

PRICE = 3  # of a request
NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
