"""Two looks at a run, in seconds: before its first step, and at the adapter that came out of it.

A wrong end mark, rows that see each other or a matrix without gradient cost an evening if they are noticed at
its end; ``start`` notices them before the first step, on the user's own rows. ``end`` asks of a finished
adapter what users find out last: whether it differs from its base, loads elsewhere as it was, and stops.
"""
