"""The settings of Celery: a task whose worker is killed does not run a second time, because it may have been billed."""

broker_url = "redis://localhost"
result_backend = "redis://localhost"
task_acks_late = False
# A process reserves only one message in advance.
worker_prefetch_multiplier = 1
