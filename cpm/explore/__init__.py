"""Files inside volumes, read without mounting or restoring them.

`blocks` fetches what is asked for, `sandbox.Session` lists and reads in a confined process, `archive` zips while
reading. Nothing here knows Django, AWS or the repository: whoever opens a session brings a `BlockSource`.
"""
