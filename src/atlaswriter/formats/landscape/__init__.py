"""Celldega LandscapeFiles: Parquet tables, data tiles and image pyramids in pixels of the full image."""
