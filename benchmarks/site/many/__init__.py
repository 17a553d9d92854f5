"""An app with as many models as ``BENCH_MODELS`` says, for as many collections."""
