"""Settings: their types and bounds, where they come from, and what is said of wrong ones."""
