"""Reports of evaluations: numbers, breakdowns, comparisons, pictures, and where they come from."""
