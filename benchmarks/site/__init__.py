"""The measured ASGI applications, all with the same trigger and documents."""

import os

if os.environ.get("BENCH_WITHOUT_METRICS"):
    from . import without_metrics

    without_metrics.install()
