"""Maps: reading and writing, resampling, filters, Fourier shell correlation, masks. Axes are (z, y, x)."""
