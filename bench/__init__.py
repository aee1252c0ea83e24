"""Side-by-side measurements, run by hand. Nothing of the product imports this."""
