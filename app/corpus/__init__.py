"""A corpus of any size, scored text by text into Parquet: what there is to do, and one part of it.

Boundary: files in, files out, in one process. Which processes do which parts is `app.on_ray`.
"""
