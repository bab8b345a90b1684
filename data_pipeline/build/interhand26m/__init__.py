"""InterHand2.6M v1.0: schema of its files, their columns, and the rules from these to records."""
