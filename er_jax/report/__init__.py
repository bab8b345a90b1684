"""Pages, tables and charts of evaluated predictors; nothing is computed here that others need."""
