"""A small shop, measured by insitu: `python -m examples.shop` starts it with traffic and ends with what was seen.

Read `app` for how an application uses insitu; the rest is a shop as anybody would write it.
"""
