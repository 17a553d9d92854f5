"""An index over filters, which finds those that match a row without evaluating all of them."""
