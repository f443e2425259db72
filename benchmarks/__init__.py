"""
Measures regd: ``python -m benchmarks`` beside Debian's ``docker-registry``, ``python -m benchmarks.streaming`` its memory under streams.
"""
