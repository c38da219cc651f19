"""Raw files to checked, split Parquet: readers, checks of every record, splits, the audit of leaks."""
