"""Settings of `drp quickstart`, read by `drp_hf` as package data."""
