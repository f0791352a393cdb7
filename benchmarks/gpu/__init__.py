"""Measurements that want a GPU: ``python -m benchmarks.gpu``; README.md says how and what. Without one it says so."""
