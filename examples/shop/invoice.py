"""Totals of an invoice, in cents."""


def line_total(price_cents: int, quantity: int, discount_percent: int = 0) -> int:
    """Price of one line after its discount, rounded half up."""
    full = price_cents * quantity
    return full - full * discount_percent // 10


def invoice_total(lines: list[tuple[int, int, int]]) -> int:
    """Sum over (price, quantity, discount) of all lines."""
    return sum(line_total(*line) for line in lines)
