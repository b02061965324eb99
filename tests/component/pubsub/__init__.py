"""Two apps on real sidecars: a shop that publishes, and a ledger that subscribes."""
