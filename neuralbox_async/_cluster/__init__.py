"""Batches on several machines: one coordinator owns journal, budget and limits; workers hold leases."""
