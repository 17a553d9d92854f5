"""The index: finds the filters that may match a row without trying all of them."""
