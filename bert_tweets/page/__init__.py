"""The page: what a study found, in one self-contained HTML file, and what lies beside it for a paper."""
