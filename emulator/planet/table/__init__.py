"""The variable table: a file for each part of the planet with its entries, `TABLE`; `planet/variables.py` joins them."""
