"""Card templates, read by `drp_hf` as package data."""
