"""Several vertical axes, masks and series without space, from NetCDF and text files to a store, its statistics and climatology."""
