"""A script that runs at night and ends: one trace, its counters and its log, delivered before it is over.

INSITU_EXPORTERS=console python -m examples.script.nightly
"""

from __future__ import annotations

import random

import insitu

SHOPS = ("Berlin", "Kyoto", "Lima")
sales = insitu.counter("sales", labels=("shop",), help="Sales that were added up.")


@insitu.trace(name="nightly report")
def main() -> None:
    """Add up what each shop has sold."""
    total = sum(add_up(shop) for shop in SHOPS)
    insitu.log.info("the report is written", total=total)


@insitu.trace
def add_up(shop: str) -> int:
    """Return what one shop has sold."""
    sold = sum(random.randrange(100) for _ in range(1000))
    sales.add(sold, shop=shop)
    return sold


if __name__ == "__main__":
    insitu.init(service="nightly")
    main()
    insitu.flush()  # the end of a process delivers as well; this is for those who end by os._exit, or want to know
