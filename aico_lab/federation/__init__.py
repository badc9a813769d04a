"""The same rows on all of a person's devices, through any folder, readable by these devices only.

Every device publishes its changes of rows as immutable bundles, encrypted for the trusted devices
and signed by itself, in streams; whoever carries the files learns their sizes and times. A row has
a version that orders all its writings on all devices, so bundles may come late, twice and in any
order: see `rows`. `Federation` in `syncing` is the way in.
"""
